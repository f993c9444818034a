"""What arrives at a server each second, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

_COLORS = {"without": "#c2452d", "with": "#2a7f3f"}
_INK, _PALE = "#222222", "#eeeeee"
#: Seconds that are drawn as one point: their peak.
_POINT = 10
#: The tail of the last few is not drawn.
_SHOWN = 0.998


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One scenario."""

    title: str
    capacity: int
    outage: tuple[int, int]
    #: Behaviour → requests in each second.
    requests: Mapping[str, NDArray[np.int64]]


def draw(panels: Sequence[Panel], jobs: int, path: Path) -> None:
    """Write a PNG of all scenarios."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        canvas = Canvas(figsize=(12, 3.2 * len(panels)), dpi=110, layout="constrained")
        rows = canvas.subplots(len(panels), 1, squeeze=False)
        for axes, panel in zip(rows[:, 0], panels, strict=True):
            _draw(axes, panel)
        canvas.suptitle(f"requests a second at one server, {jobs:,} downloads", weight="bold")
        canvas.savefig(path, format="png", metadata={"Software": None})


def _draw(axes: Axes, panel: Panel) -> None:
    end = 0.0
    for way, requests in panel.requests.items():
        peaks = np.maximum.reduceat(requests, np.arange(0, len(requests), _POINT))
        minutes = np.arange(len(peaks)) * _POINT / 60
        label = f"{way}: {requests.max():,} at most"
        axes.fill_between(minutes, 0.8, np.maximum(peaks, 0.8), color=_COLORS[way], alpha=0.25)
        axes.plot(minutes, np.maximum(peaks, 0.8), color=_COLORS[way], linewidth=1.2, label=label)
        shown = np.searchsorted(np.cumsum(requests), _SHOWN * requests.sum())
        end = max(end, float(shown) / 60)
    label = f"capacity: {panel.capacity:,}"
    axes.axhline(panel.capacity, color=_INK, linewidth=1, linestyle="--", label=label)
    if panel.outage[1]:
        axes.axvspan(panel.outage[0] / 60, panel.outage[1] / 60, color=_PALE, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.set_xlim(0, end)
    axes.set_xlabel("minutes")
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.legend(loc="upper right", frameon=False)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
