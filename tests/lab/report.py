"""What the cells have shown, for people: at a terminal, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tests.bench.machine import headline
from tests.bench.result import number
from tests.lab.book import Book, Entry
from tests.lab.run import Run
from tests.lab.scenarios import Outcome

_NOT_MEASURED = "-"


def text(run: Run, outcome: Outcome) -> str:
    """Return a run for a terminal."""
    said = ", ".join(f"{what} {shown(value)}" for what, value in outcome.figures.items())
    return f"{run.cell.name} {run.tool}: {said}"


def shown(value: float | None) -> str:
    """Return a figure; None or infinite: it never happened."""
    return "never" if value is None or not math.isfinite(value) else number(value)


def figure(entry: Entry, what: str) -> str:
    """Return the median of one of its figures, if it has that."""
    values = entry.figures.get(what)
    return _NOT_MEASURED if values is None else shown(values.median)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    first, *lines = (f"| {' | '.join(line)} |" for line in [head, *rows])
    return "\n".join([first, f"|{'---|' * len(head)}", *lines])


def markdown(book: Book) -> str:
    """Return a table for each cell: tools as columns, figures as rows."""
    tables = [
        table([cell, *(entry.tool for entry in tools)], list(_rows(tools)))
        for cell, tools in book.by_cell().items()
    ]
    return "\n\n".join([*tables, f"{headline(book.machine)}; never: not within the run, or lost."])


def _rows(tools: Sequence[Entry]) -> Iterator[list[str]]:
    for what in dict.fromkeys(what for entry in tools for what in entry.figures):
        yield [what, *(figure(entry, what) for entry in tools)]
    yield ["measured", *(entry.measured.isoformat() for entry in tools)]
