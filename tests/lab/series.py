"""What was seen over time, and what it comes to."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.measure import percentile
from tests.lab.topology import Role

#: Rates are looked at over so many seconds, not over a single sample: bursts are no rate.
_SMOOTHING = 0.25
#: How long a rate must hold.
_HOLD = 0.5
#: Bytes after which a download has begun: more than handshakes and the head of an answer.
_BEGUN = 16384


def interface_bytes(text: str) -> dict[str, int]:
    """Return received bytes by interface, from /proc/net/dev."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): int(rest.split()[0]) for name, found, rest in lines if found}


def shares(received: Mapping[str, int], through: int) -> dict[str, int]:
    """Return who had how much of the bottleneck, of what came *through* it.

    The background has what nobody else has: a proxy keeps some of that, or hands it over later.
    """
    others = (Role.SECOND, Role.FOREGROUND, Role.PROBE)
    rest = through - sum(received[role.interface] for role in others)
    return {**received, Role.BACKGROUND.interface: rest}


def jain(rates: Sequence[float]) -> float:
    """Return how fair shares are: 1 when all are the same, 1/n when one has all."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else math.nan


@dataclass(slots=True)
class Series:
    """Bytes that each role has received, and echoes, by seconds since the beginning."""

    times: list[float] = field(default_factory=list)
    counts: dict[Role, list[int]] = field(default_factory=lambda: {role: [] for role in Role})
    #: When each was sent → the seconds after which it came back; infinite when it was lost.
    echoes: dict[float, float] = field(default_factory=dict)
    #: When something was done, and what.
    marks: list[tuple[float, str]] = field(default_factory=list)

    def add(self, when: float, received: Mapping[str, int]) -> None:
        """Take a sample of interface counters."""
        self.times.append(when)
        for role, counts in self.counts.items():
            counts.append(received[role.interface])

    def rate(self, role: Role, begin: float, end: float) -> float:
        """Return bytes a second from the first sample at *begin* or later to that at *end*."""
        first, last = self._index(begin), self._index(end)
        seconds = self.times[last] - self.times[first]
        moved = self.counts[role][last] - self.counts[role][first]
        return moved / seconds if seconds else 0.0

    def rates(self, role: Role) -> list[float]:
        """Return, for each sample, the rate of what came shortly before."""
        return [self.rate(role, when - _SMOOTHING, when) for when in self.times]

    def began(self, role: Role, since: float) -> float:
        """Return when a download brought its first bytes after *since*; infinite: never."""
        counts, first = self.counts[role], self._index(since)
        for when, count in zip(self.times[first:], counts[first:], strict=True):
            if count - counts[first] >= _BEGUN:
                return when
        return math.inf

    def falls(self, role: Role, limit: float, begin: float, end: float) -> float:
        """Return after how many seconds a rate is below *limit*, and stays; infinite: never."""
        return self._holds([rate < limit for rate in self.rates(role)], begin, end)

    def rises(self, role: Role, limit: float, begin: float, end: float) -> float:
        """Return after how many seconds a rate has come to *limit*, and stays; infinite: never."""
        return self._holds([rate >= limit for rate in self.rates(role)], begin, end)

    def settles(self, role: Role, limit: float, begin: float, end: float) -> float:
        """Return after how many seconds a rate is below *limit* until *end*; infinite: never."""
        rates = self.rates(role)
        first, last = self._index(begin), self._index(end)
        above = [at for at in range(first, last + 1) if rates[at] >= limit]
        if not above:
            return 0.0
        after = self.times[above[-1]] - begin
        return after if self.times[last] - self.times[above[-1]] >= _HOLD else math.inf

    def delay(self, begin: float, end: float, percent: int = 50) -> float:
        """Return seconds that echoes sent in that time have taken; lost ones took for ever.

        It is infinite where that many were lost, and not a number where none were sent.
        """
        values = [took for sent, took in self.echoes.items() if begin <= sent < end]
        if not values:
            return math.nan
        returned = sorted(values)
        place = math.ceil(len(returned) * percent / 100) - 1
        return returned[max(place, 0)]

    def _holds(self, states: Sequence[bool], begin: float, end: float) -> float:
        first, last = self._index(begin), self._index(end)
        since = math.inf
        for at in range(first, last + 1):
            since = min(since, self.times[at]) if states[at] else math.inf
            if self.times[at] - since >= _HOLD:
                return since - begin
        return math.inf

    def _index(self, when: float) -> int:
        return min(bisect_left(self.times, when), len(self.times) - 1)


def latency(seconds: Sequence[float], percent: int) -> float:
    """Return in milliseconds what so many of a hundred requests did not exceed."""
    return 1000 * percentile(seconds, percent)
