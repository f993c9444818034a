"""What a flow knows of its path: how long a round trip takes, how much of it is queue, and whose.

Its window, and what it does with it, are somebody else's decision.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from transferd.model.units import Seconds
from transferd.transfer.delay import BaseDelay, Ceiling, Look, Rounds, Sample
from transferd.transfer.line import Line, Waiting

#: Bytes that wait to be read for no other reason than that a thread is not always there.
AWHILE = 128 * 1024

#: A round trip that is longer than possible by so much, so often in a row, is none.
_UNLIKELY = 1.3
_DOUBTS = 5
#: Rounds that are measured at once.
_MARKS = 8
#: A flow that has made room believes the shortest round trip of so long: what does not last is no
#: queue, but a radio link, or a processor that was busy. It has seen one of those if they differ
#: all the same, and believes nothing less for so long.
_PATIENCE: Seconds = 0.2
_UNEVEN: Seconds = 30.0
#: So long a loss is remembered.
_LOSSY: Seconds = 60.0
#: What waited for longer than this part of the base delay came in a bunch.
_CROWDED = 1 / 16
#: The part of the target that is as good as no queue…
_LITTLE = 0.2
#: …but no less than what timers and bunches of packets make of an empty one; the longer a round
#: is, the more comes in bunches.
_NOISE: Seconds = 0.0015
_MOST_NOISE: Seconds = 0.002
_NOISE_OF_ROUND = 1 / 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Stance:
    """What a flow does at the moment of a look."""

    #: In bytes: what it advertises, and what it is on the way to.
    advertised: int
    window: float
    #: Background flows of this machine.
    flows: int
    #: Its window is the smallest that there is.
    smallest: bool
    #: Its window is so small that it makes no queue to speak of.
    small: bool
    #: It has made itself small, to see the base delay.
    slowed: bool
    #: It doubles its window, or has just done so.
    surging: bool
    #: Its rate is what its window and its rivals leave it, not what a change of the window makes.
    steady: bool
    #: So is its delay.
    explicable: bool


class Estimate:
    """Learns from looks at one connection."""

    def __init__(
        self,
        *,
        target: Seconds,
        now: Seconds,
        handshake: Seconds,
        received: int,
        advertised: int,
        segment: int,
        proxied: bool,
    ) -> None:
        """Begin with the connection; see Pacing."""
        noise = min(max(_NOISE, handshake * _NOISE_OF_ROUND), _MOST_NOISE)
        #: A queue that is as good as none.
        self.little = max(_LITTLE * target, noise)
        #: What the rate tells of the line.
        self.line = Line(self.little)
        #: Whether a proxy is waited for.
        self.waiting = Waiting()
        #: How long a round trip takes, and how much of that is queue.
        self.rtt = handshake
        self.queue: Seconds = 0.0
        #: Bytes a second, by the window.
        self.rate = 0.0
        #: How long a round trip is at most.
        self.longest: Seconds = 0.0
        self._base = BaseDelay(now, handshake)
        self._proxied = proxied
        self._recent: deque[tuple[Seconds, Seconds]] = deque()
        #: How often in a row the round trip was longer than possible.
        self._doubts = 0
        self._ceiling = Ceiling()
        self._now = now
        self._received = received
        self._disordered = 0
        self._gaps = False
        self._uneven_until = now
        self._lost: Seconds = -math.inf
        self._rounds = Rounds(received, advertised, segment)

    @property
    def base(self) -> Seconds:
        """The delay of the path without a queue, as far as it is known."""
        return self._base.value

    @property
    def doubtful(self) -> bool:
        """Whether the last round trip was longer than possible."""
        return self._doubts > 0

    @property
    def unused(self) -> float:
        """How many times what comes in a round the window is; behind a proxy nobody knows."""
        return 0.0 if self._proxied else self.longest / self.rtt

    @property
    def lossy(self) -> bool:
        """Whether segments were lost of late: there is less room for a queue than for a round."""
        return self._now - self._lost < _LOSSY

    @property
    def crowded(self) -> bool:
        """Whether what comes has waited: in a bunch of its own, or behind the end of the line."""
        if not self._recent:
            return False
        waited = self._recent[-1][1] - self.base
        return waited > max(2 * self.little, _CROWDED * self.base)

    def unexplained(self, window: float) -> Seconds:
        """Return the part of the delay that a flow of that window, alone, would not make."""
        return self.line.unexplained(Sample(self.rtt, int(window)), self.base)

    def advertise(self, window: int) -> None:
        """Take that a window is advertised with the next bytes that are read."""
        self._rounds.advertise(window)

    def saw(self, now: Seconds, look: Look) -> None:
        """Take note of what has come, between two measurements."""
        self._rounds.saw(now, look, self.rtt / _MARKS)

    def skip(self, now: Seconds, look: Look) -> None:
        """Take that something other than the network was the limit until now."""
        self._rounds.interrupt()
        self.line.forget()
        self._ceiling.forget()
        self.waiting.forget()
        self._now, self._received = now, look.received

    def measure(self, now: Seconds, look: Look, unread: int, stance: Stance) -> bool:
        """Learn from the rounds that have ended; False when nothing is known of the delay.

        Of what has come, *unread* bytes were not read yet.
        """
        self.saw(now, look)
        sample = self._sample(look, stance)
        known = self._learn(now, look, sample, stance)
        if known and (sample is not None or not stance.slowed):
            self._judge(now, look, sample, stance)
        if known and self._proxied and not stance.slowed:
            self._wait(now, look.received, unread)
        self._now, self._received = now, look.received
        return known

    def _learn(self, now: Seconds, look: Look, sample: Sample | None, stance: Stance) -> bool:
        """Learn how long a round trip takes."""
        if sample is not None:
            self._recent.append((now, sample.rtt))
            patient = stance.small or now < self._uneven_until
            while self._recent[0][0] < now - max(self.rtt, _PATIENCE if patient else 0.0):
                self._recent.popleft()
            self.rtt = min(least for _, least in self._recent)
            self._base.learn(now, sample.rtt)
            if stance.small and self._uneven:
                self._uneven_until = now + _UNEVEN
            return True
        if stance.slowed:
            return True
        if look.rtt is None and (waiting := self._rounds.waiting(now)) > 1.25 * self.rtt:
            self.rtt = waiting
            return True
        return False

    @property
    def _uneven(self) -> bool:
        """Whether round trips differ where there is no queue."""
        longest = max(rtt for _, rtt in self._recent)
        return self.rtt - self.base <= self.little < longest - self.rtt

    def _judge(self, now: Seconds, look: Look, sample: Sample | None, stance: Stance) -> None:
        """Tell how much of a round trip is queue, and whose."""
        self._mind_gaps(look, stance)
        self.longest = self._ceiling.add(now, look.received, stance.advertised, self.rtt)
        self._doubt()
        if stance.smallest and sample is not None:
            self._base.settle(now, self.rtt, self.little)
        self.rate = stance.window / self.rtt
        self.queue = self.rtt - self.base
        self._look_at_line(now, look.received, sample, stance)

    def _mind_gaps(self, look: Look, stance: Stance) -> None:
        """Compare no rates where segments were lost.

        What waits for one of those counts all at once when that has come again.
        """
        gaps = look.disordered != self._disordered
        if gaps and stance.surging:
            # Else somebody has filled the buffer: that says nothing of how short it is.
            self._lost = self._now
        if gaps or self._gaps:
            self.line.forget()
            self._ceiling.forget()
        self._disordered, self._gaps = look.disordered, gaps

    def _doubt(self) -> None:
        """Believe no round trip that has been longer than possible for a while.

        A server that has nothing to send lets rounds seem long. Then the window comes down to what
        its rate needs, and no further: the rate stays.
        """
        self._doubts = self._doubts + 1 if self.rtt > _UNLIKELY * self.longest else 0
        if self._doubts >= _DOUBTS:
            self.rtt = max(self.longest, self.base)

    def _sample(self, look: Look, stance: Stance) -> Sample | None:
        """Return how long a round took: the kernel's word counts, since it never looks late."""
        sample = self._rounds.take()
        if look.rtt is None or look.received <= self._received:
            return sample
        return Sample(look.rtt, stance.advertised if sample is None else sample.window)

    def _look_at_line(
        self, now: Seconds, received: int, sample: Sample | None, stance: Stance
    ) -> None:
        """Tell whether somebody else is there; flows of one machine count as one."""
        line = self.line
        line.passed(now, (received - self._received) / (now - self._now))
        if not stance.steady:
            line.forget()
            return
        line.compare(now, received, self.queue, self.rtt)
        if stance.flows > 1:
            line.rivals = False
        elif sample is not None and stance.explicable:
            line.explain(sample, self.base)

    def _wait(self, now: Seconds, received: int, unread: int) -> None:
        """Learn whether a proxy is waited for: what it does to others cannot be seen from here."""
        if unread > AWHILE or self.longest < 2 * self.rtt:
            self.waiting.forget()
        elif self.longest - self.rtt > self.little:
            self.waiting.add(now, received)
