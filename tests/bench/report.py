"""What was measured, for people at a terminal, for the README, and for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.result import Figure, Result, number

_WIDTH = 44


def text(name: str, result: Result) -> str:
    """Return a row for a terminal: what each program took, then the figures."""
    return "\n".join([f"{name}: {result.title}", *_runs(result), *_figures(result)])


def _runs(result: Result) -> Iterator[str]:
    for tool in result.tools:
        runs = result.of(tool)
        seconds = statistics.median(run.seconds for run in runs)
        cpu = statistics.median(run.cpu_seconds for run in runs)
        rate = ""
        if result.work is not None:
            value = statistics.median(result.work.rate(run) for run in runs)
            rate = f"{number(value):>8} {result.work.unit}"
        beside = "".join(
            f", {key} {number(statistics.median(run.beside[key] for run in runs))}"
            for key in runs[0].beside
        )
        yield f"  {tool:<12}{seconds:8.2f} s{cpu:8.2f} CPU s{rate}{beside}"


def _figures(result: Result) -> Iterator[str]:
    for figure in result.figures:
        line = f"  {figure.what:<{_WIDTH}}{figure!s:>12}"
        if figure.bar is not None:
            line += f"   {figure.bar!s:<9}{_verdict(figure)}"
        yield line


def markdown(results: Mapping[str, Result], machine: Mapping[str, str]) -> str:
    """Return the figures that have a bar as a table for the README."""
    lines = ["| what | figure | bar | |", "|---|---|---|---|"]
    for result in results.values():
        for figure in result.figures:
            if figure.bar is not None:
                what = f"{result.title}: {figure.what}"
                lines.append(f"| {what} | {figure} | {figure.bar} | {_verdict(figure)} |")
    programs = ", ".join(f"{name} {machine[name]}" for name in ("curl", "aria2c", "wget2", "nginx"))
    lines += ["", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}; {programs}."]
    return "\n".join(lines)


def document(
    results: Mapping[str, Result], machine: Mapping[str, str], pairs: int, size: int
) -> dict[str, Any]:
    """Return everything, down to the single run, as it goes into the JSON file."""
    return {
        "machine": dict(machine),
        "pairs": pairs,
        "size": size,
        "rows": [{"name": name, **_row(result)} for name, result in results.items()],
    }


def _row(result: Result) -> dict[str, Any]:
    return {
        "title": result.title,
        "figures": [
            {
                "what": figure.what,
                "value": figure.value,
                "unit": figure.unit,
                "bar": None if figure.bar is None else str(figure.bar),
                "passed": figure.passed,
                "values": figure.values,
            }
            for figure in result.figures
        ],
        "commands": dict(result.commands),
        "runs": list(result.runs),
    }


def _verdict(figure: Figure) -> str:
    return "pass" if figure.passed else "MISS"
