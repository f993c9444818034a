"""One run, in a process of its own: a tool plays a cell once.

    python -m tests.lab.run CELL TOOL [LOCK]

What it has shown goes to standard output, for `tests.lab.lanes`; all that is said meanwhile goes to
the other one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.stage import quiet
from tests.lab.cells import CELLS, Cell
from tests.lab.scenarios import Outcome
from tests.lab.scene import scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is to be played."""

    cell: Cell
    tool: str


def planned(chosen: Sequence[Cell], players: Sequence[str], times: int) -> list[Run]:
    """Return each cell so often, tools in turn, of those that it is played with."""
    return [
        Run(cell=cell, tool=tool)
        for cell in chosen
        for _ in range(times)
        for tool in players
        if tool in cell.kind.tools
    ]


def encode(outcome: Outcome) -> bytes:
    """Return it for another process; what never happened stays infinite."""
    return msgspec.msgpack.encode(outcome)


def decode(told: bytes) -> Outcome:
    """Return what another process has seen."""
    return msgspec.msgpack.decode(told, type=Outcome)


async def measure(run: Run, lock: Path | None) -> Outcome:
    """Play it."""
    kind = run.cell.kind
    with scene(
        run.cell.link,
        foreground=kind.foreground,
        background=kind.background,
        tls=kind.tls,
        proxied=kind.proxied,
    ) as built:
        async with kind.maker(run.tool, built) as download, quiet(lock):
            return await kind.scenario(built, download)


def main() -> None:
    """Play what the arguments say."""
    cell, tool, *lock = sys.argv[1:]
    # Ended like that, it removes its files all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in [name for name in os.environ if "proxy" in name.lower()]:
        del os.environ[name]
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as told:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        run = Run(cell=CELLS[cell], tool=tool)
        told.write(encode(asyncio.run(measure(run, Path(lock[0]) if lock else None))))


if __name__ == "__main__":
    main()
