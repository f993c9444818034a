"""Measures, prints and writes it all; see `tests.lab`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from tests.bench import machine
from tests.bench.stage import quiet
from tests.lab import report
from tests.lab.cells import CELLS, USUAL, Cell, cells, tools
from tests.lab.downloads import TOOLS
from tests.lab.picture import draw
from tests.lab.scenarios import Outcome
from tests.lab.scene import MEMORY, scene

#: Cell → tool → its runs so far.
Book: TypeAlias = dict[Cell, dict[str, list[Outcome]]]


async def measure(cell: Cell, tool: str, lock: Path | None) -> Outcome:
    """Let one tool play a cell once."""
    kind = cell.kind
    with scene(
        cell.link,
        foreground=kind.foreground,
        background=kind.background,
        tls=kind.tls,
        proxied=kind.proxied,
    ) as built:
        async with kind.maker(tool, built) as download, quiet(lock):
            return await kind.scenario(built, download)


async def run(
    chosen: Sequence[Cell], players: Sequence[str], runs: int, lock: Path | None, book: Book
) -> None:
    """Play cells so often, tools in turn; each run is printed, and put into *book*."""
    for cell in chosen:
        for _ in range(runs):
            for tool in [tool for tool in players if tool in cell.kind.tools]:
                outcome = await measure(cell, tool, lock)
                book.setdefault(cell, {}).setdefault(tool, []).append(outcome)
                print(report.text(cell, tool, outcome), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="How background downloads behave at a bottleneck."
    )
    parser.add_argument(
        "--cells", nargs="+", default=USUAL, metavar="PATTERN", help="as in a shell"
    )
    parser.add_argument("--list", action="store_true", help="print the names of all cells")
    parser.add_argument("--runs", type=int, default=1, help="how often everything is repeated")
    parser.add_argument(
        "--tools", type=lambda names: names.split(","), default=TOOLS, metavar="NAME,NAME…"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--lock", type=Path, help="a file to lock during each run")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write it all."""
    asked = _arguments()
    if asked.list:
        print(*CELLS, sep="\n")
        return
    try:
        chosen, players = cells(asked.cells), tools(asked.tools)
    except ValueError as error:
        sys.exit(str(error))
    if os.geteuid() != 0:
        sys.exit("python -m tests.lab takes root, to make networks")
    # Ended like that, it removes its files all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in [name for name in os.environ if "proxy" in name.lower()]:
        del os.environ[name]
    book: Book = {}
    try:
        asyncio.run(run(chosen, players, asked.runs, asked.lock, book))
    finally:
        # However far it has come: it takes hours.
        _write(book, asked.output)


def _write(results: report.Results, output: Path) -> None:
    told = machine.describe({"memory": MEMORY})
    output.mkdir(parents=True, exist_ok=True)
    document = report.document(results, told)
    (output / "lab.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    table = report.markdown(results, told)
    (output / "lab.md").write_text(f"{table}\n", encoding="utf-8")
    for cell, players in results.items():
        draw(cell, players, told, output / f"{cell.name}.png")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
