"""Programs that do the same work, one after the other, again and again.

What else goes on in the machine changes over minutes: ratios are made within a pair, and the order
is turned round from one pair to the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.bench.result import TIMES, Bar, Figure, Run, Work, median

OURS = "transferd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What doing the work once has taken."""

    seconds: float
    cpu_seconds: float
    beside: Mapping[str, float] = field(default_factory=dict)


#: Does the work once.
Contender: TypeAlias = Callable[[], Awaitable[Spent]]


async def alternate(
    contenders: Mapping[str, Contender],
    pairs: int,
    quiet: Callable[[], AbstractAsyncContextManager[None]],
) -> list[Run]:
    """Let all do the work *pairs* times, each alone within *quiet*."""
    runs = []
    for pair in range(pairs):
        names = list(contenders)
        if pair % 2:
            names.reverse()
        for turn, name in enumerate(names):
            async with quiet():
                spent = await contenders[name]()
            runs.append(
                Run(
                    tool=name,
                    pair=pair,
                    turn=turn,
                    seconds=spent.seconds,
                    cpu_seconds=spent.cpu_seconds,
                    beside=spent.beside,
                )
            )
    return runs


def speed_ratio(runs: Sequence[Run], other: str, bar: Bar | None, what: str = "") -> Figure:
    """Return how many times as fast as *other* ours was, as the median over the pairs."""
    ratios = [theirs.seconds / ours.seconds for ours, theirs in _paired(runs, other)]
    return median(f"{what or 'throughput'} ÷ {other}'s", ratios, unit=TIMES, bar=bar)


def cpu_ratio(runs: Sequence[Run], other: str, bar: Bar | None) -> Figure:
    """Return how much of the CPU ours took for each second of *other*."""
    ratios = [ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in _paired(runs, other)]
    return median(f"CPU ÷ {other}'s", ratios, unit=TIMES, bar=bar)


def rate(what: str, runs: Sequence[Run], work: Work, bar: Bar) -> Figure:
    """Return how much ours has done in a second."""
    rates = [work.rate(run) for run in runs if run.tool == OURS]
    return median(what, rates, unit=work.unit, bar=bar)


def _paired(runs: Sequence[Run], other: str) -> list[tuple[Run, Run]]:
    ours = [run for run in runs if run.tool == OURS]
    theirs = [run for run in runs if run.tool == other]
    return list(zip(ours, theirs, strict=True))
