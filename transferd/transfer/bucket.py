"""A token bucket: how many bytes may move now, so that no more than a rate do."""

from __future__ import annotations

import math

from transferd.model.units import Seconds

#: Of its rate, in seconds: what a bucket holds at most, so that whoever is late loses nothing…
_FULL: Seconds = 0.09
#: …what is there when those whose turn it is do not want it…
_PLENTY: Seconds = 0.05
#: …and what is worth a read.
_ENOUGH: Seconds = 0.02
#: In bytes, for slow rates: the least that a bucket holds.
_LEAST = 4096


class Bucket:
    """Tokens for bytes, of which so many come in each second. Who takes more is in its debt.

    All times are of one steady clock.
    """

    def __init__(self, rate: float | None = None, now: Seconds = 0.0) -> None:
        """Begin empty, with bytes a second; None: without a limit."""
        self._rate = rate
        self._level = 0.0
        self._at = now
        #: How many take from it.
        self.sharers = 0

    @property
    def rate(self) -> float | None:
        """Bytes a second; None: there is no limit."""
        return self._rate

    def change(self, rate: float | None, now: Seconds) -> None:
        """Have another rate from now on. Debts stay; without a limit there are none."""
        if rate == self._rate:
            return
        self._fill(now)
        if self._rate is None or rate is None:
            self._level = 0.0
        self._rate, self._at = rate, now
        if rate is not None:
            self._level = min(self._level, self._capacity(rate))

    def room(self, now: Seconds, *, patient: bool = False) -> float:
        """Return how many bytes may be taken now; 0: too few to bother.

        The *patient* have had their share, and leave to others what these want.
        """
        if self._rate is None:
            return math.inf
        self._fill(now)
        return self._level if self._level >= self._worth(self._rate, patient) else 0.0

    def wait(self, now: Seconds, *, patient: bool = False) -> Seconds:
        """Return how long it takes until there is room, if nobody takes anything."""
        if self._rate is None:
            return 0.0
        self._fill(now)
        return max(0.0, self._worth(self._rate, patient) - self._level) / self._rate

    def take(self, now: Seconds, count: int) -> None:
        """Take *count* bytes, whether they are there or not; a negative one gives back."""
        if self._rate is not None:
            self._fill(now)
            self._level = min(self._level - count, self._capacity(self._rate))

    def turn(self, count: int) -> Seconds:
        """Return how long the others need to take as much as somebody who took *count*."""
        if self._rate is None or self.sharers < 2:
            return 0.0
        return count * self.sharers / self._rate

    def round(self) -> Seconds:
        """Return how long it takes until each of those who take has had all that it holds."""
        if self._rate is None:
            return 0.0
        return self.sharers * self._capacity(self._rate) / self._rate

    def _fill(self, now: Seconds) -> None:
        if self._rate is not None and now > self._at:
            more = self._level + self._rate * (now - self._at)
            self._level = min(more, self._capacity(self._rate))
            self._at = now

    @staticmethod
    def _capacity(rate: float) -> float:
        return max(rate * _FULL, float(_LEAST))

    @staticmethod
    def _worth(rate: float, patient: bool) -> float:
        if patient:
            return max(rate * _PLENTY, _LEAST / 2)
        return max(rate * _ENOUGH, _LEAST / 4)
