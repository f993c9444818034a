"""The figures as a picture: each as a multiple of its bar, so that one look tells which pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tests.bench.machine import headline
from tests.bench.result import TIMES, Figure, Result

_PASS, _MISS, _RUN, _INK = "#2a7f3f", "#c2452d", "#333333", "#222222"
#: Margins beyond these are drawn at the edge; what they are stands beside the bar.
_LEAST, _MOST = 1 / 16, 16.0
_TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)


def draw(results: Mapping[str, Result], machine: Mapping[str, str], path: Path) -> None:
    """Write a PNG of all figures that have a bar."""
    rows = [
        (name, figure)
        for name, result in results.items()
        for figure in result.figures
        if figure.bar is not None
    ]
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        canvas = Canvas(figsize=(12, 1.6 + 0.36 * len(rows)), dpi=110, layout="constrained")
        axes = canvas.subplots()
        for position, (_, figure) in enumerate(rows):
            _bar(axes, position, figure)
        _dress(axes, rows)
        canvas.suptitle("transferd against its bars (right of the line: reached)", weight="bold")
        axes.set_title(headline(machine), fontsize=9, color="#666666")
        canvas.savefig(path, format="png", metadata={"Software": None})


def _bar(axes: Axes, position: int, figure: Figure) -> None:
    assert figure.bar is not None
    margin = _within(figure.bar.margin(figure.value))
    color = _PASS if figure.passed else _MISS
    axes.barh(position, margin - 1, left=1, height=0.62, color=color, alpha=0.85)
    singles = [_within(figure.bar.margin(value)) for value in figure.values]
    if 1 < len(singles) <= 20:
        axes.plot(singles, [position] * len(singles), "|", color=_RUN, markersize=7, alpha=0.7)
    axes.annotate(
        f"{figure}  ({figure.bar})",
        (1.0, position),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=color,
        weight="bold",
    )


def _within(margin: float) -> float:
    return min(max(margin, _LEAST), _MOST)


def _dress(axes: Axes, rows: list[tuple[str, Figure]]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(_LEAST * 0.9, _MOST * 1.1)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}{TIMES}" if x >= 1 else f"1/{1 / x:g}")
    )
    axes.set_xlabel("as a multiple of the bar, more is better (ticks: single runs)")
    axes.axvline(1, color=_INK, linewidth=1.5)
    axes.set_yticks(range(len(rows)), [f"{name}: {figure.what}" for name, figure in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
