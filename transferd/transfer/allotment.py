"""Who gets how much of what there is not enough of."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from transferd.model.units import Seconds

_Key = TypeVar("_Key", bound=Hashable)

#: Whoever uses so much of his share could use more.
_HUNGRY = 0.8
#: What others use they are left with room to grow in…
_GROWTH = 1.5
#: …and never with less than this part of a fair share, with which they show that they want more.
_LEAST = 1 / 16


def allot(total: float, demands: Mapping[_Key, float]) -> dict[_Key, float]:
    """Share *total* among all, max-min fair: nobody gets more by another's getting less than he.

    What is left when every demand is met is shared alike, so that nobody waits for what is there.
    """
    shares: dict[_Key, float] = {}
    left, waiting = total, len(demands)
    for key, demand in sorted(demands.items(), key=lambda item: item[1]):
        shares[key] = min(demand, left / waiting)
        left -= shares[key]
        waiting -= 1
    return {key: share + left / len(shares) for key, share in shares.items()}


def demand(used: float | None, share: float | None, fair: float) -> float:
    """Return what somebody wants who uses so much of his *share*, as far as both are known.

    *fair* is what each would get if all were hungry.
    """
    if used is None or share is None or used >= _HUNGRY * share:
        return math.inf
    return max(used * _GROWTH, fair * _LEAST)


class Throughput:
    """How many bytes came in a second, of late, from reports at any time."""

    #: Reports come twice a second, from each of several files.
    WINDOW: Seconds = 0.9

    def __init__(self, now: Seconds) -> None:
        self._began = now
        self._count = 0
        self._rate: float | None = None

    def count(self, size: int, now: Seconds) -> bool:
        """Take that so many bytes more have come; whether the rate is another now."""
        self._count += size
        past = now - self._began
        if past < self.WINDOW:
            return False
        self._rate = self._count / past
        self._began = now
        self._count = 0
        return True

    def rate(self, now: Seconds) -> float | None:
        """Return the rate; None: nobody knows yet. Of whom nothing is heard, it falls."""
        past = now - self._began
        return self._rate if past < 1.5 * self.WINDOW else self._count / past
