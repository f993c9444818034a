"""How a background download leaves the line to others: the window that it advertises.

The receiver alone decides, against any server: LEDBAT's idea (RFC 6817: yield to a queue long
before packets are lost) at the receiver's end (RFC 9840, rLEDBAT), with LEDBAT++'s slow-downs
(draft-irtf-iccrg-ledbat-plus-plus, "Initial and Periodic Slowdown"). Nothing here reads a clock or
touches a socket.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

from transferd.model.job import Priority
from transferd.model.units import Seconds
from transferd.transfer.delay import BaseDelay, Rounds

#: The queueing delay that a class may cause; the foreground is not paced.
TARGETS: dict[Priority, Seconds | None] = {
    Priority.FOREGROUND: None,
    Priority.HIGH: 0.025,
    Priority.NORMAL: 0.010,
    Priority.LOW: 0.005,
}

#: What a flow that makes room still reads in a second: enough that no server gives it up.
TRICKLE = 14_480.0

#: The time from one step to the next.
INTERVAL: Seconds = 0.05

_LONGEST: Seconds = 0.25
_TOLERANCE: Seconds = 0.001
#: Rounds that are measured at once.
_MARKS = 8
_FIRST_SEGMENTS = 10
_FLOOR_SEGMENTS = 2
#: The largest growth of a step while it looks for the target.
_GAIN = 1 / 8
#: Each doubling of the rate lowers the target by this part, so that the slower of two flows at the
#: same queue grows and the faster one shrinks (the idea of Swift's flow scaling, SIGCOMM 2020).
_FAIRNESS = 0.05
_FAIRNESS_RATE = 62_500.0
#: Periods between slow-downs: soon after the start, then so seldom that they cost about 2 %.
_SLOW_DOWNS = (8, 16, 32, 64, 100)
#: A flow that still doubles looks at its base delay after this time.
_FIRST_SLOW_DOWN: Seconds = 3.0
#: The part of the target that a flow leaves as it is while others use the line.
_LITTLE = 0.2
#: Below this part of its best rate, at a queue, a flow is not alone; above the other it is.
_FALLEN = 0.85
_RISEN = 0.93
_BEST_MEMORY: Seconds = 60.0
#: A queue that stayed small for so long lets the window double again.
_CALM: Seconds = 0.3
_REST: Seconds = 0.3
_PROBE: Seconds = 0.1


class Phase(Enum):
    """What the window is doing."""

    #: Doubling until the delay first passes the target.
    STARTING = "starting"
    #: Looking for the target.
    CRUISING = "cruising"
    #: Small for a moment, to see the base delay.
    SLOWED = "slowed"
    #: Doubling towards a window that was good before.
    RISING = "rising"
    #: Even the smallest window is too much: reads are paced.
    RESTING = "resting"
    #: The smallest window for a moment, to see whether the others have gone.
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to advertise from now on."""

    #: In bytes, a multiple of the window scale's unit.
    window: int
    #: Read no more bytes than this in a second; None: as they come.
    rate: float | None = None


class Pacing:
    """The window of one connection."""

    def __init__(
        self,
        *,
        target: Seconds,
        now: Seconds,
        handshake: Seconds,
        received: int = 0,
        segment: int = 1448,
        scale: int = 7,
        spread: float = 0.5,
    ) -> None:
        """Begin with the connection.

        Args:
            target: see TARGETS.
            now: any monotonic clock.
            handshake: the RTT of the connection's handshake.
            received: bytes received so far.
            segment: the path's maximum segment size.
            scale: the window scale that this end announced (RFC 7323 2.3).
            spread: a random number, at least 0 and less than 1, that keeps the slow-downs of
                several flows apart.
        """
        self._target = target
        self._segment = segment
        self._unit = 1 << scale
        self._spread = spread
        self._base = BaseDelay(now, handshake)
        self._floor = float(_FLOOR_SEGMENTS * segment)
        self._window = float(_FIRST_SEGMENTS * segment)
        self._phase = Phase.STARTING
        self._since = now
        self._slow_downs = 0
        self._next_slow = now + _FIRST_SLOW_DOWN
        self._next_shrink = now
        self._grown = now
        self._again = Phase.STARTING
        self._part = 1.0
        self._recent: deque[tuple[Seconds, Seconds]] = deque()
        self._flows = 1
        self._best = 0.0
        self._judged = False
        self._full: tuple[Seconds, int] | None = None
        self._calm_since = now
        self._rivals = False
        self._rtt = handshake
        self._queue: Seconds = 0.0
        self._now = now
        self._received = received
        self._rate = 0.0
        self._rounds = Rounds(received, self.advice.window)

    @property
    def advice(self) -> Advice:
        """What holds until the next step."""
        window = max(self._window, self._floor)
        units = math.ceil(window / self._unit)
        resting = self._phase is Phase.RESTING
        return Advice(window=units * self._unit, rate=TRICKLE if resting else None)

    @property
    def phase(self) -> Phase:
        """What the window is doing."""
        return self._phase

    @property
    def base(self) -> Seconds:
        """The delay of the path without a queue, as far as it is known."""
        return self._base.value

    @property
    def queue(self) -> Seconds:
        """The queueing delay that was measured last."""
        return self._queue

    def due(self, now: Seconds) -> bool:
        """Tell whether it is time for a step."""
        return now - self._now >= INTERVAL - _TOLERANCE

    def saw(self, now: Seconds, received: int) -> None:
        """Take note of *received* bytes in all; to be called after every read."""
        if self._phase is not Phase.RESTING:
            self._rounds.saw(now, received, self._rtt / _MARKS)

    def step(
        self,
        now: Seconds,
        received: int,
        *,
        limited: bool = False,
        flows: int = 1,
        rtt: Seconds | None = None,
    ) -> Advice:
        """Decide anew.

        Args:
            now: the time.
            received: bytes received in all.
            limited: whether since the last step something other than the network held the flow
                back: it was idle, the disk was slow, a cap was reached.
            flows: background flows that share the path, this one included.
            rtt: the kernel's own sample of the round trip, if it has one.
        """
        if rtt is not None:
            self._base.learn(now, rtt)
        limited = limited or self._phase is Phase.RESTING
        measured = self._measure(now, received, limited)
        self._now, self._received = now, received
        if measured or self._phase is Phase.RESTING:
            self._decide(max(flows, 1))
        self._rounds.advertise(self.advice.window)
        self._rounds.saw(now, received, self._rtt / _MARKS)
        return self.advice

    def _measure(self, now: Seconds, received: int, limited: bool) -> bool:
        """Learn the delay from the rounds that have ended; False when nothing is known of it."""
        if limited:
            self._rounds.interrupt()
            return False
        self._rounds.saw(now, received, self._rtt / _MARKS)
        sample = self._rounds.take()
        if sample is not None:
            self._recent.append((now, sample))
            while self._recent[0][0] < now - self._rtt:
                self._recent.popleft()
            self._rtt = min(least for _, least in self._recent)
            self._base.learn(now, sample)
        elif self._phase is Phase.SLOWED:
            return True
        elif (waiting := self._rounds.waiting(now)) > 1.25 * self._rtt:
            self._rtt = waiting
        else:
            return False
        self._rate = self._window / self._rtt
        self._queue = self._rtt - self._base.value
        self._compare(now, received)
        return True

    def _compare(self, now: Seconds, received: int) -> None:
        """Tell from the rate whether somebody else is there.

        Alone at a queue of its own, a flow has the whole rate of the line, whatever its window.
        """
        slow = self._phase in (Phase.SLOWED, Phase.PROBING)
        if slow or self._queue <= _LITTLE * self._target:
            self._full = None
            self._judged = False
            return
        if self._full is None:
            self._full = (now, received)
            return
        since, before = self._full
        if now - since < max(INTERVAL, self._rtt) - _TOLERANCE:
            return
        rate = (received - before) / (now - since)
        self._full = (now, received)
        self._judged = True
        self._best = max(self._best * (1 - (now - since) / _BEST_MEMORY), rate)
        self._part = rate / self._best
        if self._part < _FALLEN:
            self._rivals = True
        elif self._part > _RISEN:
            self._rivals = False

    @property
    def _period(self) -> Seconds:
        """The time in which a change of the window shows."""
        return min(max(INTERVAL, 2 * self._base.value), _LONGEST)

    def _decide(self, flows: int) -> None:
        """Take the step of this phase."""
        past = self._now - self._since
        if self._phase is Phase.SLOWED:
            if past >= self._period + INTERVAL - _TOLERANCE:
                self._enter(self._again)
                self._grown = self._now
            return
        if self._phase is Phase.RESTING:
            if past >= _REST:
                self._enter(Phase.PROBING)
            return
        if self._phase is Phase.PROBING and past < max(_PROBE, self._rtt):
            return
        target = self._share_of_target()
        if self._queue > target:
            self._calm_since = self._now
            if self._now >= self._next_shrink:
                self._shrink(target)
            return
        if self._now >= self._next_slow and self._slow_down():
            return
        self._grow(target, flows)

    def _shrink(self, target: Seconds) -> None:
        """Make room: first as much as it takes when nobody else is there, then by halves."""
        if self._phase is Phase.STARTING:
            self._next_slow = self._now + self._space()
        before = self._window
        wanted = 0.0
        if self._part > _RISEN:
            wanted = before * (self._base.value + target) / self._rtt
        self._window = max(self._floor, before / 2, wanted)
        # Nothing that begins before the edge moves again tells of the new window.
        self._next_shrink = self._now + self._rtt * (2 - self._window / before) - _TOLERANCE
        self._grown = self._now
        if self._window <= self._floor and self._floor / self._rtt > 4 * TRICKLE:
            self._enter(Phase.RESTING)
        else:
            self._enter(Phase.CRUISING)

    def _grow(self, target: Seconds, flows: int) -> None:
        """Take more, in proportion to the distance from the target."""
        if self._phase is Phase.PROBING:
            self._enter(Phase.RISING)
        if self._rivals:
            target *= _LITTLE
        distance = max(0.0, 1 - self._queue / target)
        if distance < 0.5:
            self._calm_since = self._now
        calm = self._now - self._calm_since
        known = self._best * self._base.value
        if (
            self._phase is Phase.CRUISING
            and self._window < known / 2
            and calm > max(_CALM, self._period)
        ):
            self._enter(Phase.RISING)
        doubling = self._phase in (Phase.STARTING, Phase.RISING)
        gain = (1.0 if doubling else _GAIN * distance) / flows
        past = min((self._now - self._grown) / self._period, 1.0)
        self._window *= (1 + gain) ** past
        self._grown = self._now
        if self._phase is Phase.RISING and self._window >= 0.75 * known:
            self._enter(Phase.CRUISING)

    def _slow_down(self) -> bool:
        """Begin a slow-down, if there is something to slow down."""
        small = max(self._floor, min(self._window, self._rate * self._base.value) / 2)
        if small > self._window / 2:
            return False
        self._slow_downs += 1
        self._next_slow = self._now + self._space()
        if self._phase is Phase.STARTING:
            self._again = Phase.STARTING
        else:
            self._again = Phase.RISING
        self._window = small
        self._enter(Phase.SLOWED)
        return True

    def _space(self) -> Seconds:
        periods = _SLOW_DOWNS[min(self._slow_downs, len(_SLOW_DOWNS) - 1)]
        return periods * self._period * (0.75 + self._spread / 2)

    def _share_of_target(self) -> Seconds:
        """Return this flow's target: a little lower for a fast one."""
        if self._rivals and self._judged:
            return self._target * _LITTLE
        doublings = math.log2(max(self._rate / _FAIRNESS_RATE, 1.0))
        return self._target * max(0.3, 1 - _FAIRNESS * doublings)

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._since = self._now
