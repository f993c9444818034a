"""When a flow makes itself small for a moment, to see the delay of the path without its queue."""

from __future__ import annotations

import math

from transferd.model.units import Seconds
from transferd.transfer.growth import INTERVAL, period

#: A flow that still doubles looks at its base delay after this time.
_FIRST: Seconds = 3.0
#: Periods from one to the next: soon after the start, then so seldom that they cost little.
_PERIODS = (8, 32, 100)
#: The flows of one machine do it together, at multiples of this.
_TOGETHER: Seconds = 5.0
#: What is left of the window: a flow alone has but its own little queue to get out of the way; of
#: several none knows how much is its own.
_DEPTH, _DEPTH_OF_SEVERAL = 3 / 4, 1 / 4


class SlowDowns:
    """The slow-downs of one connection (LEDBAT++, "Initial and Periodic Slowdown")."""

    def __init__(self, now: Seconds, spread: float) -> None:
        """Begin with the connection; *spread*, below 1, keeps those of several flows apart."""
        self._spread = spread
        self._count = 0
        self._next = now + _FIRST

    def due(self, now: Seconds) -> bool:
        """Tell whether it is time for one."""
        return now >= self._next

    def small(self, window: float, needed: float, flows: int) -> float | None:
        """Return what is to be left of a window of which so much was *needed*; None: it is small.

        Both are in bytes.
        """
        left = min(window, needed) * (_DEPTH if flows == 1 else _DEPTH_OF_SEVERAL)
        return left if left <= window * _DEPTH else None

    def begun(self, now: Seconds, base: Seconds, flows: int) -> None:
        """Take that one begins."""
        self._count += 1
        self.plan(now, base, flows)

    def plan(self, now: Seconds, base: Seconds, flows: int) -> None:
        """Choose the time of the next one.

        Flows of one machine slow down together, at whole multiples of the clock that they share:
        then none of them takes the queue of another for the base delay.
        """
        length = period(base)
        if flows > 1:
            space = _TOGETHER if length <= 2 * INTERVAL else 2 * _TOGETHER
            self._next = (math.floor(now / space) + 1) * space
        else:
            periods = _PERIODS[min(self._count, len(_PERIODS) - 1)]
            self._next = now + periods * length * (0.75 + self._spread / 2)

    def meet(self, now: Seconds) -> None:
        """Have all flows of the machine look at the path anew, at the same full second."""
        self._next = math.floor(now) + 2.0
