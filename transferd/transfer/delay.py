"""The delay of a path, as a receiver sees it who knows what window he advertised.

The byte at the window's right edge can leave the sender only after it was told of that edge, so it
arrives one round trip after it was allowed, however the bytes before it are bunched: Linux measures
its own `rcv_rtt` that way. RFC 9840 (rLEDBAT) 4.2.1 does it with timestamps, which no program sees.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from transferd.model.units import Seconds

#: A route that became longer is believed after so many minutes (RFC 6817 2.4.2: BASE_HISTORY).
BASE_HISTORY = 5

_MINUTE: Seconds = 60.0
#: The rate that bounds the round trip is measured over no less than this time.
_SPAN: Seconds = 0.2
_TOLERANCE: Seconds = 0.001
#: A kernel's clock may be that coarse.
_FRESH: Seconds = 0.004
#: A flow at its smallest window believes a delay that has not moved for so long, the smallest of
#: each such time being what counts.
_STEADY: Seconds = 15.0
_BLOCK: Seconds = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a receiver sees of a connection at a moment."""

    #: Bytes that have come in all, read or not.
    received: int
    #: How long ago the newest of them came.
    age: Seconds = 0.0
    #: How many more the sender was told that it may send; None: that is not known.
    advertised: int | None = None
    #: The round trip as the kernel measures it, by timestamps (RFC 7323 4); None: it does not.
    rtt: Seconds | None = None
    #: Segments that have come before others that were sent earlier: somebody lost those.
    disordered: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One round trip, and the window of which its byte was the last."""

    rtt: Seconds
    window: int


class Rounds:
    """Round trips, each measured from an advertised edge to the arrival of its byte.

    A receiver cannot take back what it advertised (RFC 9293 3.8.6, "shrinking the window"; RFC
    9840 4.1.1): after a shrink the edge stands still until enough has arrived, and rounds begin
    only when it moves again, so no sample mixes the old window with the new one.

    Several rounds are under way at once, because the bytes of a window come in bunches as long as
    the line is not full: the last of a bunch has waited for the first, and only the smallest of
    the samples shows the queue that stands (RFC 6817 2.4.2: FILTER() may be a minimum).
    """

    def __init__(self, received: int, window: int, segment: int) -> None:
        self._window = window
        self._segment = segment
        self._marked = 0
        self._resumed = False
        self._edge = received + window
        self._marks: deque[tuple[Seconds, int, int]] = deque()
        self._best: Sample | None = None

    def advertise(self, window: int) -> None:
        """Have *window* advertised with the next bytes that are read."""
        self._window = window

    def saw(self, now: Seconds, look: Look, spacing: Seconds) -> None:
        """Take note of what has come; begin a round if none began for *spacing*."""
        received, marks = look.received, self._marks
        while marks and received >= marks[0][1]:
            begun, _, window = marks.popleft()
            if self._best is None or now - begun < self._best.rtt:
                self._best = Sample(now - begun, window)
        if look.advertised is not None and look.advertised > self._window:
            # Not taken back yet; each ACK rounds it up, so that its edge moves all the same.
            self._edge = max(self._edge, received + look.advertised)
            return
        # Nobody sends the beginning of a segment whose end the window does not allow.
        edge = received + self._window // self._segment * self._segment
        if edge <= self._edge:
            return
        if self._resumed or look.age > _FRESH:
            # Who knows when this edge was advertised.
            self._resumed = False
            self._edge = self._marked = edge
            return
        self._edge = edge
        if edge - self._marked < self._segment:
            return
        if not marks or now - marks[-1][0] >= spacing:
            self._marked = edge
            marks.append((now, edge, self._window))

    def interrupt(self) -> None:
        """Drop the rounds under way and what was measured: the network was not the limit."""
        self._marks.clear()
        self._resumed = True
        self._best = None

    def take(self) -> Sample | None:
        """Return the shortest of the rounds that ended since the last time; None: none did."""
        best, self._best = self._best, None
        return best

    def waiting(self, now: Seconds) -> Seconds:
        """Return how long the oldest round under way has lasted."""
        return now - self._marks[0][0] if self._marks else 0.0


class Ceiling:
    """How long a round trip was at most: no more than a window comes in each.

    A server that has nothing to send lets rounds seem longer than that.
    """

    def __init__(self) -> None:
        self._past: deque[tuple[Seconds, int, int]] = deque()

    def add(self, now: Seconds, received: int, window: int, rtt: Seconds) -> Seconds:
        """Return it, *window* being what is advertised now, and *rtt* what a round seems to be."""
        past, span = self._past, max(_SPAN, rtt)
        past.append((now, received, window))
        # What came was allowed by windows of a round before.
        while past[0][0] < now - span - rtt - _SPAN / 4:
            past.popleft()
        began, before = next((at, came) for at, came, _ in past if at >= now - span - _TOLERANCE)
        if received == before:
            return math.inf
        return max(window for _, _, window in past) * (now - began) / (received - before)

    def forget(self) -> None:
        """Begin anew: the network was not the limit."""
        self._past.clear()


class BaseDelay:
    """The smallest delay but one of each of the last minutes (RFC 6817 2.4.2 and 3.1.1)."""

    def __init__(self, now: Seconds, first: Seconds) -> None:
        self._minutes: deque[float] = deque([first], maxlen=BASE_HISTORY)
        self._turned = now
        self._shortest = first
        self._steady_since = now
        self._least = self._most = first
        self._block = (now, math.inf)

    def learn(self, now: Seconds, sample: Seconds) -> None:
        """Take a *sample* into account; the shortest of a minute may be a mistake of timing."""
        if now - self._turned >= _MINUTE and self._minutes[-1] < math.inf:
            self._turned = now
            self._minutes.append(math.inf)
            self._shortest = math.inf
        if sample < self._shortest:
            self._shortest, sample = sample, self._shortest
        self._minutes[-1] = min(self._minutes[-1], sample)

    def settle(self, now: Seconds, sample: Seconds, band: Seconds) -> None:
        """Believe a larger delay that stays within *band*, while the flow itself is small.

        Queues of others rise and fall; a longer route does neither. This spares the flow the
        minutes until the old base is forgotten.
        """
        since, shortest = self._block
        if now - since < _BLOCK:
            self._block = (since, min(shortest, sample))
            return
        self._block = (now, sample)
        if shortest == math.inf:
            return
        self._least, self._most = min(self._least, shortest), max(self._most, shortest)
        if self._most - self._least > band:
            self._least = self._most = shortest
            self._steady_since = now
        elif now - self._steady_since > _STEADY:
            self._minutes.clear()
            self._minutes.append(self._least)

    @property
    def value(self) -> Seconds:
        """The smallest delay that is not forgotten."""
        return min(self._minutes)
