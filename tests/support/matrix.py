"""Tables of what was tried with what: each test fills a cell, the run prints the tables at its end.

A test asks for the fixture `cell` and says which cell of which table it is; the cell shows what the
test saw, or FAILED. A cell that no test of the run filled is blank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import pytest

#: Call with table, row, column and what was seen.
Cell: TypeAlias = Callable[[str, str, str, str], None]

_PROPERTY = "cell"


@pytest.fixture
def cell(record_property: Callable[[str, object], None]) -> Cell:
    """Fill one cell of one table."""

    def fill(table: str, row: str, column: str, seen: str) -> None:
        record_property(_PROPERTY, [table, row, column, seen])

    return fill


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every table of which a cell was filled."""
    tables: dict[str, dict[tuple[str, str], str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == _PROPERTY and report.when == "call":
                    table, row, column, seen = value
                    seen = seen if report.passed else "FAILED"
                    tables.setdefault(table, {})[row, column] = seen
    for title in sorted(tables):
        terminalreporter.section(title)
        for line in drawn(tables[title]):
            terminalreporter.write_line(line)


def drawn(cells: dict[tuple[str, str], str]) -> Iterable[str]:
    """Return the lines of a table, rows and columns sorted."""
    columns = sorted({column for _, column in cells})
    rows = sorted({row for row, _ in cells})
    lines = [["", *columns], *([row, *(cells.get((row, c), "") for c in columns)] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    for line in lines:
        yield "  ".join(
            text.ljust(width) for text, width in zip(line, widths, strict=True)
        ).rstrip()
