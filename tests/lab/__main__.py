"""Measures, prints and writes it all; see `tests.lab`."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import machine
from tests.lab import report
from tests.lab.book import Book, Entry, Results, decode, encode, entries, merged
from tests.lab.cells import CELLS, USUAL, Cell, cells, tools
from tests.lab.downloads import TOOLS
from tests.lab.lanes import play
from tests.lab.picture import draw
from tests.lab.run import Run, planned
from tests.lab.scenarios import Outcome
from tests.lab.scene import MEMORY

_BOOK = "lab.json"


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
    parser.add_argument("--add", action="store_true", help="keep what is there of all else")
    parser.add_argument("--lanes", type=int, default=1, help="how many runs there are at once")
    parser.add_argument(
        "--lock", type=lambda name: Path(name).resolve(), help="a file to lock during each run"
    )
    asked = parser.parse_args()
    if asked.lanes < 1:
        parser.error("--lanes is 1 at least")
    if asked.lanes > 1 and asked.lock:
        parser.error("--lock lets no other run be beside: it takes --lanes 1")
    return asked


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
    output: Path = asked.output
    kept = _kept(output / _BOOK) if asked.add else []
    runs = planned(chosen, players, asked.runs)
    ended: dict[Run, list[Outcome]] = {run: [] for run in runs}

    def note(run: Run, outcome: Outcome) -> None:
        ended[run].append(outcome)
        print(report.text(run, outcome), flush=True)

    # Ended like that, it ends what it runs, and writes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        asyncio.run(play(runs, asked.lanes, asked.lock, note))
    finally:
        # However far it has come: it takes hours.
        _write(_results(ended), kept, asked.lanes, output)


def _kept(path: Path) -> Sequence[Entry]:
    return decode(path.read_bytes()).cells if path.exists() else []


def _results(ended: Mapping[Run, Sequence[Outcome]]) -> Results:
    found: dict[Cell, dict[str, Sequence[Outcome]]] = {}
    for run, outcomes in ended.items():
        if outcomes:
            found.setdefault(run.cell, {})[run.tool] = outcomes
    return found


def _write(results: Results, kept: Sequence[Entry], lanes: int, output: Path) -> None:
    if not results:
        return
    told = machine.describe({"memory": MEMORY}) | {"lanes": str(lanes)}
    new = entries(results, datetime.datetime.now(datetime.UTC).date(), lanes)
    book = Book(machine=told, cells=merged(kept, new))
    output.mkdir(parents=True, exist_ok=True)
    (output / _BOOK).write_bytes(encode(book))
    table = report.markdown(book)
    (output / "lab.md").write_text(f"{table}\n", encoding="utf-8")
    for cell, players in results.items():
        draw(cell, players, told, output / f"{cell.name}.png")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
