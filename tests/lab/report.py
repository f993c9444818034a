"""What the cells have shown, for people at a terminal, as a table, and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from tests.bench.machine import headline
from tests.bench.result import Figure, median, number
from tests.lab.cells import Cell
from tests.lab.scenarios import Outcome

#: Cell → tool → its runs.
Results: TypeAlias = Mapping[Cell, Mapping[str, Sequence[Outcome]]]


def text(cell: Cell, tool: str, outcome: Outcome) -> str:
    """Return a run for a terminal."""
    said = ", ".join(f"{what} {_number(value)}" for what, value in outcome.figures.items())
    return f"{cell.name} {tool}: {said}"


def figures(runs: Sequence[Outcome]) -> list[Figure]:
    """Return the medians of some runs."""
    return [median(what, [run.figures[what] for run in runs]) for what in runs[0].figures]


def markdown(results: Results, machine: Mapping[str, str]) -> str:
    """Return a table for each cell: tools as columns, figures as rows."""
    tables = ["\n".join(_table(cell, tools)) for cell, tools in results.items()]
    return "\n\n".join([*tables, f"{headline(machine)}; never: not within the run, or lost."])


def document(results: Results, machine: Mapping[str, str]) -> dict[str, Any]:
    """Return everything as it goes into the JSON file; what never happened is null there."""
    return {
        "machine": dict(machine),
        "cells": [
            {
                "cell": cell.name,
                "link": cell.link,
                "tool": tool,
                "figures": {
                    figure.what: {"median": figure.value, "runs": figure.values}
                    for figure in figures(runs)
                },
            }
            for cell, tools in results.items()
            for tool, runs in tools.items()
        ],
    }


def _table(cell: Cell, tools: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    columns = [figures(runs) for runs in tools.values()]
    yield f"| {cell.name} | {' | '.join(tools)} |"
    yield f"|---|{'---|' * len(tools)}"
    for row in zip(*columns, strict=True):
        yield f"| {row[0].what} | {' | '.join(_number(figure.value) for figure in row)} |"


def _number(value: float) -> str:
    return number(value) if math.isfinite(value) else "never"
