"""What has been measured, today and earlier, as `lab.json` keeps it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from tests.bench.result import median
from tests.lab.cells import Cell
from tests.lab.lanes import places
from tests.lab.link import Link
from tests.lab.scenarios import Outcome

#: Cell → tool → its runs.
Results: TypeAlias = Mapping[Cell, Mapping[str, Sequence[Outcome]]]


class Values(msgspec.Struct, frozen=True):
    """A figure's median and the runs behind it; None: it never happened."""

    median: float | None
    runs: list[float | None]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool has shown in a cell."""

    cell: str
    link: Link
    tool: str
    measured: datetime.date
    #: How many runs there were at once.
    lanes: int
    figures: dict[str, Values]

    @property
    def kind(self) -> str:
        """The cell's name without its link."""
        return self.cell.partition("@")[0]


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """All entries, and the machine of the newest."""

    machine: dict[str, str]
    cells: list[Entry]

    def by_cell(self) -> dict[str, list[Entry]]:
        """Return entries by the names of their cells."""
        found: dict[str, list[Entry]] = {}
        for entry in self.cells:
            found.setdefault(entry.cell, []).append(entry)
        return found


def entries(results: Results, measured: datetime.date, lanes: int) -> list[Entry]:
    """Return what was measured on a day, with so many lanes."""
    return [
        Entry(
            cell=cell.name,
            link=cell.link,
            tool=tool,
            measured=measured,
            lanes=places(cell, lanes),
            figures={
                what: _values([run.figures[what] for run in runs]) for what in runs[0].figures
            },
        )
        for cell, tools in results.items()
        for tool, runs in tools.items()
    ]


def merged(kept: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Return all; of a cell and a tool that are in both, the new one, in the old one's place."""
    found = {(entry.cell, entry.tool): entry for entry in [*kept, *new]}
    return list(found.values())


def encode(book: Book) -> bytes:
    """Return it as a file."""
    return msgspec.json.format(msgspec.json.encode(book)) + b"\n"


def decode(data: bytes) -> Book:
    """Return what a file says.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(data, type=Book)


def _values(runs: Sequence[float]) -> Values:
    return Values(_happened(median("", runs).value), [_happened(value) for value in runs])


def _happened(value: float) -> float | None:
    return value if math.isfinite(value) else None
