"""Runs, several at once: below 1 Gbit/s each needs but a part of a core."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.stage import CHECKOUT
from tests.lab.cells import Cell
from tests.lab.run import Run, decode
from tests.lab.scenarios import Outcome
from tests.lab.topology import until_parent_ends

#: Mbit/s; who moves that much needs the machine.
_MUCH = 1000


def places(cell: Cell, lanes: int) -> int:
    """Return how many runs there may be at once where one of this cell is among them."""
    return 1 if cell.link.rate >= _MUCH else lanes


def turns(runs: Sequence[Run], lanes: int) -> list[tuple[int, list[Run]]]:
    """Return how many are played at once, and which; those that are played alone come last."""
    alone = [run for run in runs if places(run.cell, lanes) == 1]
    together = [run for run in runs if places(run.cell, lanes) > 1]
    return [(count, part) for count, part in ((lanes, together), (1, alone)) if part]


async def play(
    runs: Sequence[Run], lanes: int, lock: Path | None, ended: Callable[[Run, Outcome], None]
) -> None:
    """Play all of them; tells each that has *ended*, when it has.

    Raises:
        ExceptionGroup: one has failed; those beside it are ended.
    """
    for count, part in turns(runs, lanes):
        waiting = iter(part)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(_lane(waiting, lock, ended))


async def _lane(
    waiting: Iterator[Run], lock: Path | None, ended: Callable[[Run, Outcome], None]
) -> None:
    for run in waiting:
        ended(run, await _played(run, lock))


async def _played(run: Run, lock: Path | None) -> Outcome:
    words = [run.cell.name, run.tool, *([str(lock)] if lock else [])]
    process = await asyncio.create_subprocess_exec(
        *until_parent_ends("TERM"),
        *(sys.executable, "-m", "tests.lab.run", *words),
        stdout=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
        # A terminal's ^C is for this process, which ends the others, once.
        start_new_session=True,
    )
    try:
        told, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{run.cell.name} {run.tool} has failed")
    return decode(told)
