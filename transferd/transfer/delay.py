"""The delay of a path, as a receiver sees it who knows what window he advertised.

The byte at the window's right edge can leave the sender only after it was told of that edge, so it
arrives one round trip after it was allowed, however the bytes before it are bunched: Linux measures
its own `rcv_rtt` that way. RFC 9840 (rLEDBAT) 4.2.1 does it with timestamps, which no program sees.
"""

from __future__ import annotations

import math
from collections import deque

from transferd.model.units import Seconds

#: A route that became longer is believed after so many minutes (RFC 6817 2.4.2: BASE_HISTORY).
BASE_HISTORY = 5

_MINUTE: Seconds = 60.0


class Rounds:
    """Round trips, each measured from an advertised edge to the arrival of its byte.

    A receiver cannot take back what it advertised (RFC 9293 3.8.6, "shrinking the window"; RFC
    9840 4.1.1): after a shrink the edge stands still until enough has arrived, and rounds begin
    only when it moves again, so no sample mixes the old window with the new one.

    Several rounds are under way at once, because the bytes of a window come in bunches as long as
    the line is not full: the last of a bunch has waited for the first, and only the smallest of
    the samples shows the queue that stands (RFC 6817 2.4.2: FILTER() may be a minimum).
    """

    def __init__(self, received: int, window: int) -> None:
        self._window = window
        self._edge = received + window
        self._marks: deque[tuple[Seconds, int]] = deque()
        self._least: Seconds = math.inf

    def advertise(self, window: int) -> None:
        """Have *window* advertised with the next bytes that are read."""
        self._window = window

    def saw(self, now: Seconds, received: int, spacing: Seconds) -> None:
        """Take note of *received* bytes in all; begin a round if none began for *spacing*."""
        marks = self._marks
        while marks and received >= marks[0][1]:
            self._least = min(self._least, now - marks.popleft()[0])
        edge = received + self._window
        if edge <= self._edge:
            return
        self._edge = edge
        if not marks or now - marks[-1][0] >= spacing:
            marks.append((now, edge))

    def interrupt(self) -> None:
        """Drop the rounds under way and what was measured: the network was not the limit."""
        self._marks.clear()
        self._least = math.inf

    def take(self) -> Seconds | None:
        """Return the shortest of the rounds that ended since the last time; None: none did."""
        least, self._least = self._least, math.inf
        return least if least < math.inf else None

    def waiting(self, now: Seconds) -> Seconds:
        """Return how long the oldest round under way has lasted."""
        return now - self._marks[0][0] if self._marks else 0.0


class BaseDelay:
    """The smallest delay of each of the last minutes (RFC 6817 2.4.2 and 3.1.1)."""

    def __init__(self, now: Seconds, first: Seconds) -> None:
        self._minutes: deque[float] = deque([first], maxlen=BASE_HISTORY)
        self._turned = now

    def learn(self, now: Seconds, sample: Seconds) -> None:
        """Take a *sample* into account."""
        if now - self._turned >= _MINUTE:
            self._turned = now
            self._minutes.append(sample)
        self._minutes[-1] = min(self._minutes[-1], sample)

    @property
    def value(self) -> Seconds:
        """The smallest delay that is not forgotten."""
        return min(self._minutes)
