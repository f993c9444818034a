"""A cell over time: who had how much of the link, and how long its queue was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tests.bench.machine import headline
from tests.lab.cells import Cell
from tests.lab.scenarios import Outcome
from tests.lab.topology import Role

_COLORS = {
    Role.FOREGROUND: "#1f5fa8",
    Role.BACKGROUND: "#d9822b",
    Role.SECOND: "#8a4fa0",
    Role.PROXY: "#e3b98a",
}
_DELAY, _FAINT = "#777777", "#bbbbbb"
#: Mbit/s; a neighbour who asks for an address is no traffic.
_SHOWN = 0.1


def draw(
    cell: Cell, tools: Mapping[str, Sequence[Outcome]], machine: Mapping[str, str], path: Path
) -> None:
    """Write a PNG of the first run of each tool."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        canvas = Canvas(figsize=(11, 0.8 + 2.1 * len(tools)), dpi=100, layout="constrained")
        rows = canvas.subplots(len(tools), 1, squeeze=False, sharex=True)
        for (axes,), (tool, runs) in zip(rows, tools.items(), strict=True):
            _panel(axes, cell, tool, runs[0])
        canvas.legend(
            *rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
        rows[-1][0].set_xlabel("seconds")
        canvas.suptitle(f"{cell.name}\n{headline(machine)}", fontsize=10)
        canvas.savefig(path, format="png", metadata={"Software": None})


def _panel(axes: Axes, cell: Cell, tool: str, outcome: Outcome) -> None:
    series = outcome.series
    for role, color in _COLORS.items():
        rates = [rate * 8 / 1e6 for rate in series.rates(role)]
        if max(rates) > _SHOWN:
            axes.plot(series.times, rates, color=color, linewidth=1.3, label=role.interface)
    for number, (when, what) in enumerate(series.marks):
        axes.axvline(when, color=_FAINT, linewidth=0.8, linestyle=":")
        axes.annotate(
            what,
            (when, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -9 - 8 * (number % 2)),
            textcoords="offset points",
            fontsize=6,
            color="#555555",
        )
    axes.set_ylim(0, cell.link.rate * 1.15)
    axes.set_ylabel("Mbit/s")
    axes.set_title(tool, loc="left", fontsize=10, weight="bold")
    _delays(axes.twinx(), cell, outcome)


def _delays(axes: Axes, cell: Cell, outcome: Outcome) -> None:
    echoes = sorted(outcome.series.echoes.items())
    came = [(sent, 1000 * took) for sent, took in echoes if math.isfinite(took)]
    axes.plot(*zip(*came, strict=True), color=_DELAY, linewidth=0.7, label="ping")
    axes.set_ylim(0, cell.link.rtt + 1.3 * cell.link.buffer)
    axes.set_ylabel("ping, ms", color=_DELAY)
