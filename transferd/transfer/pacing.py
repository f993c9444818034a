"""How a background download leaves the line to others: the window that it advertises.

The caller makes a Pacing when a connection is made, calls `saw` after every read and `step` when
each INTERVAL, and does as the Advice says: TCP_WINDOW_CLAMP, and a pause before the next read.

The receiver alone decides, against any server: LEDBAT's idea (RFC 6817: yield to a queue long
before packets are lost) at the receiver's end (RFC 9840, rLEDBAT), with LEDBAT++'s slow-downs
(draft-irtf-iccrg-ledbat-plus-plus, "Initial and Periodic Slowdown"). Nothing here reads a clock or
touches a socket.
"""

from __future__ import annotations

import math

from transferd.model.units import Seconds
from transferd.transfer.advice import Advice, Phase
from transferd.transfer.delay import Look
from transferd.transfer.estimate import Estimate, Stance
from transferd.transfer.growth import INTERVAL, Course, back, crept, period, risen, sought, started
from transferd.transfer.line import RISEN
from transferd.transfer.reads import Reads
from transferd.transfer.slowdown import SlowDowns

#: What a flow that makes room still reads in a second: enough that no server gives it up.
TRICKLE = 14_480.0

#: No window is larger: 100 ms of 2.6 Gbit/s. A larger one would be advertised in units of more than
#: an ACK's worth, and rounded up with each: it would never shrink. And where the server is the
#: limit, no queue ever ends the doubling.
LARGEST = 32 * 1024 * 1024

_TOLERANCE: Seconds = 0.001
_FIRST_SEGMENTS = 10
_FLOOR_SEGMENTS = 2
#: No queue that it stands at is so short that it could be taken for none.
_STANDING = 1.25
#: Below so many of the smallest windows a flow is no queue of its own to look behind.
_SMALL = 4
#: A queue that stayed small for so long lets the window double again.
_CALM: Seconds = 0.3
_CALM_AMONG_RIVALS: Seconds = 0.4
#: One that stayed small for so long at the best rate that was ever seen shows a better one.
_LONG_CALM: Seconds = 1.5
#: What a queue must have grown by for somebody to be growing.
_GROWN: Seconds = 0.001
#: Then all but such a part of the window is left to him,…
_ROOM = 16
#: …for so many rounds: one who doubles with each takes what is there. As many rounds are in bunches
#: after the window itself has doubled.
_ROUNDS = 5
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
        self._unit = 1 << scale
        self._floor = float(_FLOOR_SEGMENTS * segment)
        #: Where it is on the way to, from where, and where it is.
        self._window = self._start = self._current = float(_FIRST_SEGMENTS * segment)
        self._aimed, self._span = received, self._window
        self._phase = Phase.STARTING
        self._since = now
        #: Whether the line has seemed full once when it was not.
        self._warned = False
        self._slow_downs = SlowDowns(now, spread)
        #: What follows a slow-down, and the window before it.
        self._again = Phase.STARTING
        self._before = math.inf
        self._next_shrink = now
        #: How often in a row it shrank; the queue and the window before the last time.
        self._shrinks = 0
        self._shrunk: tuple[Seconds, float] = (0.0, 0.0)
        #: Until when all that there is belongs to one who starts.
        self._left_until = now
        #: From when on what comes is no longer in bunches.
        self._settled = now
        self._grown = now
        self._calm_since = now
        self._flows = 1
        #: Where the window does not rule the rate.
        self._reads = Reads(TRICKLE)
        self._now = now
        self._path = Estimate(
            target=target,
            now=now,
            handshake=handshake,
            received=received,
            advertised=self.advice.window,
            segment=segment,
            proxied=proxied,
        )

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
        return self._path.base

    @property
    def queue(self) -> Seconds:
        """The queueing delay that was measured last."""
        return self._path.queue

    @property
    def defeated(self) -> bool:
        """Whether the window does not rule the rate, and reads are paced for a while instead.

        See Waiting, and Line.defeated, which is found only where the target is no less than a
        third of the base delay.
        """
        return self._reads.needed

    def saw(self, now: Seconds, look: Look) -> Advice:
        """Take note of what has come; to be called after every read.

        The window moves little by little, as bytes arrive, so that the sender neither sends much
        more than what has just left the queue nor leaves a gap (as in RFC 6937, proportional rate
        reduction).
        """
        if self._phase is not Phase.RESTING and self._reads.rate is None:
            if self._current != self._window:
                part = min(1.0, (look.received - self._aimed) / self._span)
                self._current = self._start + (self._window - self._start) * part
                self._path.advertise(self.advice.window)
            self._path.saw(now, look)
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
            self._slow_downs.meet(now)
        limited = limited or self._phase is Phase.RESTING or self._reads.rate is not None
        measured = self._measure(now, look, unread, limited=limited)
        sought = self._reads.needed or self._path.waiting.likely
        if self._hold() or (sought and self._phase is not Phase.SLOWED):
            return self.advice
        if measured or self._phase is Phase.RESTING:
            before = self._window
            self._decide()
            if self._window != before:
                self._aim(look.received)
        self._path.advertise(self.advice.window)
        self._path.saw(now, look)
        return self.advice

    def _measure(self, now: Seconds, look: Look, unread: int, *, limited: bool) -> bool:
        """Learn what there is to learn; False when nothing is known of the delay."""
        before, self._now = self._now, now
        if limited or now <= before:
            self._path.skip(now, look)
            return False
        phase, settled = self._phase, now >= self._settled
        stance = Stance(
            advertised=self.advice.window,
            window=self._window,
            flows=self._flows,
            smallest=self._window <= self._floor,
            small=self._window <= _SMALL * self._floor,
            slowed=phase is Phase.SLOWED,
            surging=phase in (Phase.STARTING, Phase.RISING) or not settled,
            steady=phase not in (Phase.SLOWED, Phase.PROBING) and settled,
            # What comes until then tells of a larger window.
            explicable=phase is not Phase.STARTING and now >= self._next_shrink,
        )
        return self._path.measure(now, look, unread, stance)

    def _hold(self) -> bool:
        """Pace reads where the window is no use: somebody in between goes on to fill a queue."""
        reads, before = self._reads, self._reads.rate
        reads.step(self._now)
        if before is None:
            line = self._path.line
            best = line.peak if line.defeated else self._path.waiting.rate
            if best is not None:
                reads.tried(self._now, best, self._flows)
                line.trust()
        if reads.rate != before:
            # A little more than is read at a time; in a trial, room for more than comes.
            window = (
                reads.best * (self._target + self.base)
                if reads.rate is None
                else reads.rate * (INTERVAL + self.base)
            )
            self._window = self._current = max(self._floor, min(window, LARGEST))
        return reads.rate is not None

    def _aim(self, received: int) -> None:
        """Begin to move to the new window."""
        self._start, self._aimed = self._current, received
        if self._window > self._start:
            self._span = self._start * min(1.0, INTERVAL / self._path.rtt)
        else:
            self._span = 2 * (self._start - self._window) + 1

    def _decide(self) -> None:
        """Take the step of this phase."""
        past = self._now - self._since
        if self._phase is Phase.SLOWED:
            if past >= period(self.base) + INTERVAL - _TOLERANCE:
                self._enter(self._again)
                self._grown = self._now
                self._path.line.rose(self._now)
            return
        if self._phase is Phase.RESTING:
            if past >= _REST:
                self._enter(Phase.PROBING)
            return
        if self._phase is Phase.PROBING and past < max(_PROBE, self._path.rtt):
            return
        busy = self._phase is Phase.RISING and self._flows == 1
        if not busy and self._slow_downs.due(self._now) and self._slow_down():
            return
        target = self._share_of_target()
        if self.queue <= target:
            self._shrinks = 0
            self._grow(target)
            return
        self._disturb()
        grows = self._somebody_grows()
        if grows or self._now >= self._next_shrink:
            self._shrink(target, grows=grows)

    def _shrink(self, target: Seconds, *, grows: bool) -> None:
        """Make room.

        As much as it takes when nobody else is there, else half; all when somebody *grows*.
        """
        if self._phase is Phase.STARTING:
            self._slow_downs.plan(self._now, self.base, self._flows)
        before, least = self._window, self._window / 2
        shares = grows or self._shares(target)
        wanted = 0.0 if shares else before * (self.base + target) / self._path.rtt
        self._shrunk = (self.queue, before)
        if grows:
            least = before / _ROOM
            # What has been allowed already makes the queue grow for one round more.
            self._shrunk = (math.inf, before)
            self._left_until = self._now + _ROUNDS * self.base
        self._shrinks += 1
        self._window = max(self._floor, least, wanted)
        # Nothing that begins before the edge moves again tells of the new window.
        rounds = 2 - self._window / before
        self._next_shrink = self._now + self._path.rtt * rounds - _TOLERANCE
        self._grown = self._now
        rests = self._window <= self._floor and self._floor / self._path.rtt > 4 * TRICKLE
        self._enter(Phase.RESTING if rests else Phase.CRUISING)

    def _shares(self, target: Seconds) -> bool:
        """Whether others are at the queue that stands, so that the flow's own share is unknown."""
        if self._path.doubtful:
            return False
        if self._flows > 1:
            return self._shrinks > 1 and self.queue > 1.2 * target
        line = self._path.line
        return line.judged and line.part < RISEN and self._now >= self._settled

    def _somebody_grows(self) -> bool:
        """Whether the queue has grown all the same since this flow shrank.

        Then there is one who starts, and who would take its first losses or delays for the end of
        the line: all that is there is his.
        """
        if self._flows > 1 or not self._shrinks or self._path.doubtful:
            return False
        queue, window = self._shrunk
        if self._now < self._settled or self.queue < queue + _GROWN:
            return False
        return self._path.unexplained(window) > self._path.little

    def _grow(self, target: Seconds) -> None:
        """Take more."""
        if self._phase is Phase.PROBING:
            self._enter(Phase.CRUISING)
        if self._now < self._left_until:
            self._calm_since = self._grown = self._now
            return
        if self.queue > self._path.little:
            self._disturb()
        course = self._course(target)
        self._restart(course)
        if self._phase is Phase.STARTING:
            window = started(course, warned=self._warned or self._path.crowded)
        elif self._phase is Phase.RISING:
            window = self._rise(course)
        else:
            window = crept(course)
        self._window, self._grown = min(window, LARGEST), self._now

    def _course(self, target: Seconds) -> Course:
        path, rivals = self._path, self._path.line.rivals
        calm = self._now - self._calm_since > (_CALM_AMONG_RIVALS if rivals else _CALM)
        return Course(
            window=self._window,
            past=self._now - self._grown,
            base=self.base,
            queue=self.queue,
            target=path.little if rivals else target,
            flows=self._flows,
            known=path.line.peak * self.base / self._flows,
            rivals=rivals,
            calm=calm,
            unused=path.unused,
            lossy=path.lossy,
        )

    def _restart(self, course: Course) -> None:
        """Double again where there has been no queue for a while, and much is left."""
        if self._phase is not Phase.CRUISING:
            return
        if course.far:
            self._before = math.inf
            if self._flows == 1:
                # The base delay is what there has been since it became calm.
                self._slow_downs.plan(self._now, self.base, self._flows)
            self._enter(Phase.RISING)
            return
        quiet = self._now - max(self._calm_since, self._since) > _LONG_CALM
        if self._flows == 1 and ((quiet and course.near) or (course.calm and not course.known)):
            self._warned = True
            self._enter(Phase.STARTING)

    def _rise(self, course: Course) -> float:
        """Return the next window on the way back to one that was good before."""
        goal = min(course.goal or math.inf, back(self._before))
        window = risen(course, goal)
        if window >= goal:
            self._enter(Phase.CRUISING)
            if self._flows == 1:
                self._next_shrink = self._now + 2 * self.base
                self._settled = self._now + _ROUNDS * self.base
        return window

    def _disturb(self) -> None:
        """Take that there is a queue, unless it is of this flow's own bunches."""
        if self._now >= self._settled:
            self._calm_since = self._now

    def _slow_down(self) -> bool:
        """Begin a slow-down, if there is something to slow down."""
        needed = self._path.rate * self.base
        small = self._slow_downs.small(self._window, needed, self._flows)
        if small is None or self._window < _SMALL * self._floor:
            return False
        self._slow_downs.begun(self._now, self.base, self._flows)
        if self._phase is Phase.STARTING:
            self._again = Phase.STARTING
        else:
            self._again = Phase.RISING
            self._before = self._window
        self._path.line.slowed()
        self._window = max(self._floor, small)
        self._enter(Phase.SLOWED)
        return True

    def _share_of_target(self) -> Seconds:
        """Return this flow's target: lower for a fast one, and none where others are seen."""
        path = self._path
        if path.line.rivals and path.line.judged:
            return path.little
        return max(sought(self._target, path.rate, self._flows), _STANDING * path.little)

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._since = self._now
