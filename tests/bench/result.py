"""What a row has measured: figures, each held against its bar, and the runs behind them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: The unit of ratios: a multiplication sign.
TIMES = "\u00d7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure has to reach, or may reach at most."""

    limit: float
    #: Whether less is better.
    most: bool

    def passed(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value <= self.limit if self.most else value >= self.limit

    def margin(self, value: float) -> float:
        """Return a value as a multiple of the bar: 1 reaches it just so, more is better."""
        best = max(value, 1e-9)
        return self.limit / best if self.most else best / self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {self.limit:g}"


def at_least(limit: float) -> Bar:
    """More is better."""
    return Bar(limit=limit, most=False)


def at_most(limit: float) -> Bar:
    """Less is better."""
    return Bar(limit=limit, most=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, and the single values behind it."""

    what: str
    value: float
    unit: str = ""
    bar: Bar | None = None
    values: tuple[float, ...] = ()

    @property
    def passed(self) -> bool | None:
        """Whether it is good enough; None where it has no bar."""
        return None if self.bar is None else self.bar.passed(self.value)

    def __str__(self) -> str:
        space = "" if self.unit in ("", TIMES) else " "
        return f"{number(self.value)}{space}{self.unit}"


def number(value: float) -> str:
    """Return a number with as many digits as matter."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:.{digits}f}"


def median(what: str, values: Sequence[float], *, unit: str = "", bar: Bar | None = None) -> Figure:
    """Return the median of some values as a figure."""
    value = statistics.median(values)
    return Figure(what=what, value=value, unit=unit, bar=bar, values=tuple(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One program did the work once."""

    tool: str
    #: In which pair, and as the how manieth of it.
    pair: int
    turn: int
    seconds: float
    #: Of all its processes.
    cpu_seconds: float
    #: What else was seen, by name.
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much a run moves."""

    amount: float
    unit: str

    def rate(self, run: Run) -> float:
        """Return how much a second."""
        return self.amount / run.seconds


def megabytes(count: int) -> Work:
    """Return so many bytes as work."""
    return Work(amount=count / 1e6, unit="MB/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a row has measured."""

    title: str
    figures: Sequence[Figure]
    runs: Sequence[Run] = ()
    work: Work | None = None
    #: Program → how it was called.
    commands: Mapping[str, str] = field(default_factory=dict)

    def of(self, tool: str) -> list[Run]:
        """Return the runs of one program, in order."""
        return [run for run in self.runs if run.tool == tool]

    @property
    def tools(self) -> list[str]:
        """The programs that ran, ours first."""
        found = dict.fromkeys(run.tool for run in self.runs)
        return sorted(found, key=lambda tool: (tool != "transferd", tool))
