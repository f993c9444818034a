"""What the rate of a flow tells about the line: whether others use it, and who rules the rate."""

from __future__ import annotations

from transferd.model.units import Seconds
from transferd.transfer.delay import Sample

#: Below this part of its best rate, at a queue, a flow is not alone; above the other it is.
FALLEN = 0.85
RISEN = 0.93

#: The best rate is forgotten in about this time.
_BEST_MEMORY: Seconds = 30.0
#: So long the rate that the line once gave says how far the window may double.
_PEAK_MEMORY: Seconds = 600.0
#: A rate is measured over no less than this time.
_SHORTEST: Seconds = 0.05
_TOLERANCE: Seconds = 0.001
#: The part of a round trip by which a measured rate may be wrong.
_ERROR = 0.03
#: After a slow-down, a rate that is so many times the one before it comes out of a store.
_CATCHING_UP = 1.25
_CATCHING_UP_FOR: Seconds = 1.0
#: A sender that has been waited for so long seems to be slow itself; after the other, it is.
_WAITS: Seconds = 0.3
_WAITED: Seconds = 0.8
#: So many times in a row it is no accident.
_ENOUGH = 3


class Waiting:
    """How long a flow has waited for a sender whom nothing in between keeps from sending.

    The window would allow a queue, and there is none: what limits the flow lies before its sender.
    """

    def __init__(self) -> None:
        self._since: Seconds | None = None
        #: Where its rate is measured from: what comes at first was in store, or is a burst.
        self._begun: tuple[Seconds, int] | None = None
        #: What came in a second, once it has waited for long enough to tell.
        self.rate: float | None = None

    def add(self, now: Seconds, received: int) -> None:
        """Take that it waits now."""
        if self._since is None:
            self._since = now
        if self._begun is None:
            if now - self._since >= _WAITS - _TOLERANCE:
                self._begun = (now, received)
            return
        begun, before = self._begun
        if now - begun >= _WAITED - _TOLERANCE:
            self.rate = (received - before) / (now - begun)

    def forget(self) -> None:
        """Take that it does not."""
        self._since = self._begun = self.rate = None

    @property
    def likely(self) -> bool:
        """Whether it seems to: a larger window would show nothing more."""
        return self._begun is not None


class Line:
    """The best rate of a flow, and how the present one compares.

    A flow that is alone at a queue of its own has the whole rate of the line, whatever its window;
    beside others, its rate falls as theirs grow. A rate says so only while the queue stands:
    without one, it says how large the window is.
    """

    def __init__(self, little: Seconds) -> None:
        self._little = little
        self._full: tuple[Seconds, int] | None = None
        self._told: Seconds | None = None
        self._best = 0.0
        self._sought = 0.0
        self._sought_until: Seconds = 0.0
        self._caught_up = False
        self._count = 0
        #: The rate of the line, as far as it was ever seen.
        self.peak = 0.0
        #: The last rate as a part of the best one.
        self.part = 1.0
        #: Whether somebody else uses the line.
        self.rivals = False
        #: Whether that was found at the queue that stands now.
        self.judged = False

    @property
    def defeated(self) -> bool:
        """Whether what limits the flow lies before its sender, as a proxy with a buffer does.

        A bottleneck keeps nothing for a flow that slows down. A sender that was held back by
        something else goes on to collect, and sends faster afterwards than it ever could before:
        then neither the window nor the delay tells of the queue that matters.
        """
        return self._count >= _ENOUGH

    def trust(self) -> None:
        """Find anew who rules the rate."""
        self._count = 0
        self._sought = 0.0

    def forget(self) -> None:
        """Measure the rate anew: the queue has gone, or the network was not the limit."""
        self._full = None
        self.judged = False

    def compare(self, now: Seconds, received: int, queue: Seconds, rtt: Seconds) -> None:
        """Compare the rate at a queue that stands with the best one."""
        past = now - self._told if self._told is not None else 0.0
        self._told = now
        self._best *= max(0.0, 1 - past / _BEST_MEMORY)
        self.peak *= max(0.0, 1 - past / _PEAK_MEMORY)
        if queue <= self._little:
            self.forget()
            return
        if self._full is None:
            self._full = (now, received)
            return
        since, before = self._full
        if now - since < max(_SHORTEST, rtt) - _TOLERANCE:
            return
        rate = (received - before) / (now - since)
        self._full = (now, received)
        self.judged = True
        self._best = max(self._best, rate)
        self.peak = max(self.peak, rate)
        self.part = rate / self._best if self._best else 1.0
        if self.part > RISEN:
            self.rivals = False
        elif self.part < FALLEN:
            self.rivals = True

    def explain(self, sample: Sample, base: Seconds) -> None:
        """Find rivals by a delay that the flow's own window does not explain."""
        rest = self.unexplained(sample, base)
        if rest > self._little + _ERROR * sample.rtt:
            self.part = (sample.rtt - rest) / sample.rtt
            self.rivals = self.judged = True

    def unexplained(self, sample: Sample, base: Seconds) -> Seconds:
        """Return the part of a delay that a window alone at the line would not make."""
        if not self._best:
            return 0.0
        return sample.rtt - max(sample.window / self._best, base)

    def slowed(self) -> None:
        """Remember the rate at which a slow-down begins."""
        self._sought = self._best * self.part if self.judged else 0.0
        self._sought_until = 0.0

    def rose(self, now: Seconds) -> None:
        """Watch from now for what was kept during the slow-down."""
        self._sought_until = now + _CATCHING_UP_FOR
        self._caught_up = False

    def passed(self, now: Seconds, rate: float) -> None:
        """Look at the *rate* of a step for whether the sender catches up."""
        if not self._sought or not self._sought_until:
            return
        if rate > _CATCHING_UP * self._sought:
            self._caught_up = True
        if now >= self._sought_until:
            self._count = self._count + 1 if self._caught_up else 0
            self._sought = 0.0
