"""How a background download leaves the line to others: the window that it advertises.

The caller makes a Pacing when a connection is made, calls `saw` after every read and `step` when
it is `due`, and does as the Advice says: TCP_WINDOW_CLAMP, and a pause before the next read.

The receiver alone decides, against any server: LEDBAT's idea (RFC 6817: yield to a queue long
before packets are lost) at the receiver's end (RFC 9840, rLEDBAT), with LEDBAT++'s slow-downs
(draft-irtf-iccrg-ledbat-plus-plus, "Initial and Periodic Slowdown"). Nothing here reads a clock or
touches a socket.
"""

from __future__ import annotations

import math
from collections import deque

from transferd.model.units import Seconds
from transferd.transfer.advice import Advice, Phase
from transferd.transfer.delay import BaseDelay, Ceiling, Look, Rounds, Sample
from transferd.transfer.line import RISEN, Line, Waiting
from transferd.transfer.reads import Reads

#: What a flow that makes room still reads in a second: enough that no server gives it up.
TRICKLE = 14_480.0

#: Bytes that wait to be read for no other reason than that a thread is not always there.
AWHILE = 128 * 1024

#: The time from one step to the next.
INTERVAL: Seconds = 0.05

#: What a window does shows after two base delays; a base that was measured over a queue is not to
#: make that longer than this.
_LONGEST: Seconds = 0.25
_TOLERANCE: Seconds = 0.001
#: A round trip that is longer than possible by so much, so often in a row, is none.
_UNLIKELY = 1.3
_DOUBTS = 5
#: Rounds that are measured at once.
_MARKS = 8
_FIRST_SEGMENTS = 10
_FLOOR_SEGMENTS = 2
#: Below so many of the smallest windows a flow is no queue of its own to look behind.
_SMALL = 4
#: No window is larger: 100 ms of 2.6 Gbit/s. A larger one would be advertised in units of more than
#: an ACK's worth, and rounded up with each: it would never shrink. And where the server is the
#: limit, no queue ever ends the doubling.
LARGEST = 32 * 1024 * 1024
#: The largest growth in such a time while it looks for the target.
_GAIN = 1 / 8
_GAIN_AMONG_RIVALS = 1 / 16
#: Each doubling of the rate lowers the target by this part, so that the slower of two flows at the
#: same queue grows and the faster one shrinks (the idea of Swift's flow scaling, SIGCOMM 2020).
_FAIRNESS = 0.1
_FAIRNESS_RATE = 62_500.0
#: Periods between slow-downs: soon after the start, then so seldom that they cost about 2 %.
_SLOW_DOWNS = (8, 32, 100)
#: The flows of one machine do it together, at multiples of this.
_TOGETHER: Seconds = 5.0
#: A flow that still doubles looks at its base delay after this time.
_FIRST_SLOW_DOWN: Seconds = 3.0
#: The part of the target that a flow leaves as it is while others use the line.
_LITTLE = 0.2
#: No less than what timers and bunches of packets make of an empty queue.
_NOISE: Seconds = 0.002
#: A queue that stayed small for so long lets the window double again.
_CALM: Seconds = 0.3
_CALM_AMONG_RIVALS: Seconds = 0.5
#: A flow at rest looks from time to time, long enough for a round, whether the queue has gone.
_REST: Seconds = 0.3
_PROBE: Seconds = 0.1


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
        proxied: bool = False,
    ) -> None:
        """Begin with the connection.

        Args:
            target: the queueing delay that it may cause.
            now: any monotonic clock.
            handshake: the RTT of the connection's handshake.
            received: bytes received so far.
            segment: the path's maximum segment size.
            scale: the window scale that this end announced (RFC 7323 2.3).
            spread: a random number, at least 0 and less than 1, that keeps the slow-downs of
                several flows apart.
            proxied: whether a proxy sends, or stands in between.
        """
        self._target = target
        self._little = max(_LITTLE * target, _NOISE)
        self._unit = 1 << scale
        self._spread = spread
        self._base = BaseDelay(now, handshake)
        self._floor = float(_FLOOR_SEGMENTS * segment)
        self._window = float(_FIRST_SEGMENTS * segment)
        self._current = self._start = self._window
        self._aimed, self._span = received, self._window
        self._phase = Phase.STARTING
        self._since = now
        self._slow_downs = 0
        self._next_slow = now + _FIRST_SLOW_DOWN
        self._next_shrink = now
        self._grown = now
        self._again = Phase.STARTING
        self._line = Line(self._little)
        self._over = 0
        self._recent: deque[tuple[Seconds, Seconds]] = deque()
        #: How often in a row the round trip was longer than possible.
        self._doubts = 0
        self._ceiling = Ceiling()
        #: How long a round trip is at most.
        self._longest = 0.0
        self._proxied = proxied
        self._waiting = Waiting()
        #: Where the window does not rule the rate.
        self._reads = Reads(TRICKLE)
        self._flows = 1
        self._before = math.inf
        self._calm_since = now
        self._rtt = handshake
        self._queue: Seconds = 0.0
        self._now = now
        self._received = received
        self._rate = 0.0
        self._rounds = Rounds(received, self.advice.window, segment)

    @property
    def advice(self) -> Advice:
        """What to advertise now."""
        units = math.ceil(max(self._current, self._floor) / self._unit)
        rate = self._reads.rate
        if rate is None and self._phase is Phase.RESTING:
            rate = TRICKLE
        return Advice(window=units * self._unit, rate=rate)

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

    @property
    def defeated(self) -> bool:
        """Whether the window does not rule the rate, and reads are paced for a while instead.

        See Waiting, and Line.defeated, which is found only where the target is no less than a
        third of the base delay.
        """
        return self._reads.needed

    def due(self, now: Seconds) -> bool:
        """Tell whether it is time for a step."""
        return now - self._now >= INTERVAL - _TOLERANCE

    def saw(self, now: Seconds, look: Look) -> Advice:
        """Take note of what has come; to be called after every read.

        The window moves little by little, as bytes arrive, so that the sender neither sends much
        more than what has just left the queue nor leaves a gap (as in RFC 6937, proportional rate
        reduction).
        """
        received = look.received
        if self._phase is not Phase.RESTING and self._reads.rate is None:
            if self._current != self._window:
                part = min(1.0, (received - self._aimed) / self._span)
                self._current = self._start + (self._window - self._start) * part
                self._rounds.advertise(self.advice.window)
            self._rounds.saw(now, look, self._rtt / _MARKS)
        return self.advice

    def step(
        self,
        now: Seconds,
        look: Look,
        *,
        limited: bool = False,
        unread: int = 0,
        flows: int = 1,
    ) -> Advice:
        """Decide anew.

        Args:
            now: the time.
            look: what has come.
            limited: whether since the last step something other than the network held the flow
                back: it was idle, the disk was slow, a cap was reached.
            unread: bytes that have come and were not read yet.
            flows: background flows that share the path, this one included.
        """
        flows = max(flows, 1)
        if flows != self._flows:
            self._flows = flows
            # All of them look at the path anew, at the same full second.
            self._next_slow = math.floor(now) + 2.0
        limited = limited or self._phase is Phase.RESTING or self._reads.rate is not None
        received = look.received
        measured = self._measure(now, look, limited)
        self._now, self._received = now, received
        if measured:
            self._wait(received, unread)
        sought = self._reads.needed or self._waiting.likely
        if self._hold() or (sought and self._phase is not Phase.SLOWED):
            return self.advice
        if measured or self._phase is Phase.RESTING:
            before = self._window
            self._decide(self._flows)
            if self._window != before:
                self._aim(received)
        self._rounds.advertise(self.advice.window)
        self._rounds.saw(now, look, self._rtt / _MARKS)
        return self.advice

    def _wait(self, received: int, unread: int) -> None:
        """Learn whether a proxy is waited for: what it does to others cannot be seen from here."""
        if not self._proxied or self._phase is Phase.SLOWED:
            return
        if unread > AWHILE or self._longest < 2 * self._rtt:
            self._waiting.forget()
        elif self._longest - self._rtt > self._little:
            self._waiting.add(self._now, received)

    def _hold(self) -> bool:
        """Pace reads where the window is no use: somebody in between goes on to fill a queue."""
        reads, before = self._reads, self._reads.rate
        reads.step(self._now)
        if before is None:
            best = self._line.peak if self._line.defeated else self._waiting.rate
            if best is not None:
                reads.tried(self._now, best, self._flows)
                self._line.trust()
        if reads.rate != before:
            # A little more than is read at a time; in a trial, room for more than comes.
            window = (
                reads.best * (self._target + self._base.value)
                if reads.rate is None
                else reads.rate * (INTERVAL + self._base.value)
            )
            self._window = self._current = max(self._floor, min(window, LARGEST))
        return reads.rate is not None

    def _aim(self, received: int) -> None:
        """Begin to move to the new window."""
        self._start, self._aimed = self._current, received
        if self._window > self._start:
            self._span = self._start * min(1.0, INTERVAL / self._rtt)
        else:
            self._span = 2 * (self._start - self._window) + 1

    def _measure(self, now: Seconds, look: Look, limited: bool) -> bool:
        """Learn the delay from the rounds that have ended; False when nothing is known of it."""
        if limited or now <= self._now:
            self._rounds.interrupt()
            self._line.forget()
            self._ceiling.forget()
            self._waiting.forget()
            return False
        self._rounds.saw(now, look, self._rtt / _MARKS)
        sample = self._sample(look)
        if sample is not None:
            self._recent.append((now, sample.rtt))
            while self._recent[0][0] < now - self._rtt:
                self._recent.popleft()
            self._rtt = min(least for _, least in self._recent)
            self._base.learn(now, sample.rtt)
        elif self._phase is Phase.SLOWED:
            return True
        elif look.rtt is None and (waiting := self._rounds.waiting(now)) > 1.25 * self._rtt:
            self._rtt = waiting
        else:
            return False
        self._longest = self._ceiling.add(now, look.received, self.advice.window, self._rtt)
        self._doubt(self._longest)
        if self._window <= self._floor and sample is not None:
            self._base.settle(now, self._rtt, self._little)
        self._rate = self._window / self._rtt
        self._queue = self._rtt - self._base.value
        self._look_at_line(now, look.received, sample)
        return True

    def _doubt(self, longest: Seconds) -> None:
        """Believe no round trip that has been longer than possible for a while.

        A server that has nothing to send lets rounds seem long. Then the window comes down to what
        its rate needs, and no further: the rate stays.
        """
        self._doubts = self._doubts + 1 if self._rtt > _UNLIKELY * longest else 0
        if self._doubts >= _DOUBTS:
            self._rtt = max(longest, self._base.value)

    def _sample(self, look: Look) -> Sample | None:
        """Return how long a round took: the kernel's word counts, since it never looks late."""
        sample = self._rounds.take()
        if look.rtt is None or look.received <= self._received:
            return sample
        return Sample(look.rtt, self.advice.window if sample is None else sample.window)

    def _look_at_line(self, now: Seconds, received: int, sample: Sample | None) -> None:
        """Tell whether somebody else is there; flows of one machine count as one."""
        line = self._line
        line.passed(now, (received - self._received) / (now - self._now))
        if self._phase in (Phase.SLOWED, Phase.PROBING):
            line.forget()
            return
        line.compare(now, received, self._queue, self._rtt)
        if self._flows > 1:
            line.rivals = False
        elif sample is not None and self._phase is not Phase.STARTING:
            line.explain(sample, self._base.value)

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
                self._line.rose(self._now)
            return
        if self._phase is Phase.RESTING:
            if past >= _REST:
                self._enter(Phase.PROBING)
            return
        if self._phase is Phase.PROBING and past < max(_PROBE, self._rtt):
            return
        if self._now >= self._next_slow and self._slow_down():
            return
        target = self._share_of_target()
        if self._queue > target:
            self._calm_since = self._now
            if self._now >= self._next_shrink:
                self._shrink(target)
            return
        self._over = 0
        self._grow(target, flows)

    def _shrink(self, target: Seconds) -> None:
        """Make room: first as much as it takes when nobody else is there, then by halves."""
        if self._phase is Phase.STARTING:
            self._plan_slow_down()
        before = self._window
        wanted = 0.0
        self._over += 1
        if self._flows == 1:
            halve = self._line.part < RISEN
        else:
            halve = self._over > 2 and self._queue > 1.2 * target
        if not halve or self._doubts:
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
            self._enter(Phase.CRUISING)
        if self._line.rivals:
            target = self._little
        distance = max(0.0, 1 - self._queue / target)
        if distance < 0.5:
            self._calm_since = self._now
        calm = self._now - self._calm_since > (_CALM_AMONG_RIVALS if self._line.rivals else _CALM)
        known = self._line.peak * self._base.value
        rise = (0.75 if self._line.rivals else 0.9) * known / flows
        if self._phase is Phase.CRUISING and calm and self._window < rise / 2:
            self._before = math.inf
            self._enter(Phase.RISING)
        doubling = self._phase in (Phase.STARTING, Phase.RISING)
        fine = 1.0
        if flows == 1 and self._window >= 0.9 * known:
            fine = target / (2 * (self._base.value + target))
        slow = self._line.rivals and not calm
        gain = _GAIN_AMONG_RIVALS if slow else min(_GAIN, fine)
        gain = (1.0 if doubling else gain * distance) / flows
        tempo = max(INTERVAL, self._base.value) if self._phase is Phase.RISING else self._period
        past = min((self._now - self._grown) / tempo, 1.0)
        self._window = min(self._window * (1 + gain) ** past, LARGEST)
        self._grown = self._now
        if self._phase is Phase.RISING and self._window >= min(rise, 0.9 * self._before):
            self._enter(Phase.CRUISING)

    def _slow_down(self) -> bool:
        """Begin a slow-down, if there is something to slow down."""
        depth = 2 if self._flows == 1 else 4
        small = max(self._floor, min(self._window, self._rate * self._base.value) / depth)
        if small > self._window / 2 or self._window < _SMALL * self._floor:
            return False
        self._slow_downs += 1
        self._plan_slow_down()
        if self._phase is Phase.STARTING:
            self._again = Phase.STARTING
        else:
            self._again = Phase.RISING
            self._before = self._window
        self._line.slowed()
        self._window = small
        self._enter(Phase.SLOWED)
        return True

    def _plan_slow_down(self) -> None:
        """Choose the time of the next one.

        Flows of one machine slow down together, at whole multiples of the clock that they share:
        then none of them takes the queue of another for the base delay.
        """
        if self._flows > 1:
            space = _TOGETHER if self._period <= 2 * INTERVAL else 2 * _TOGETHER
            self._next_slow = (math.floor(self._now / space) + 1) * space
            return
        periods = _SLOW_DOWNS[min(self._slow_downs, len(_SLOW_DOWNS) - 1)]
        self._next_slow = self._now + periods * self._period * (0.75 + self._spread / 2)

    def _share_of_target(self) -> Seconds:
        """Return this flow's target: a little lower for a fast one."""
        if self._line.rivals and self._line.judged:
            return self._little
        doublings = math.log2(max(self._rate / _FAIRNESS_RATE, 1.0))
        # Not so low that the queue it stands at could be taken for none.
        return max(self._target / (1 + _FAIRNESS * doublings), 1.5 * self._little)

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._since = self._now
