"""Limits on the bytes of a second: of a job, within those of its priority, within all of a worker.

Threads and the loop take from the same buckets: whatever is taken is taken under one lock.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from time import monotonic

from transferd.model.job import Priority, Seconds
from transferd.model.rates import Rates
from transferd.transfer.bucket import Bucket

#: Whoever waits looks again so soon: a limit may be another by then.
_LOOK: Seconds = 0.1
#: Nobody's turn is later, since limits change, unless a round takes longer.
_LATEST: Seconds = 1.0


class Caps:
    """All limits of a worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._total = Bucket()
        self._by_priority = {priority: Bucket() for priority in Priority}

    def limit(self, rates: Rates, now: Seconds) -> None:
        """Let these hold from now on. What is 0 limits nothing: others see to that."""
        with self.lock:
            self._total.change(rates.total or None, now)
            for priority, bucket in self._by_priority.items():
                bucket.change(rates.by_priority.get(priority) or None, now)

    def above(self, priority: Priority) -> tuple[Bucket, Bucket]:
        """Return what holds for jobs of a priority, beside their own limits."""
        return self._by_priority[priority], self._total


class RunCaps:
    """The limits that hold for one run."""

    def __init__(self, caps: Caps, priority: Priority, max_rate: int | None) -> None:
        self._caps = caps
        self._own = Bucket(max_rate, monotonic())
        self._buckets = (self._own, *caps.above(priority))
        self._bodies: set[Capped] = set()
        #: How much a small file had that came last: the next one may be like it.
        self.guess = 0

    def retune(self, priority: Priority, max_rate: int | None, now: Seconds) -> None:
        """Let other limits hold, at once, also for bodies that are on their way."""
        with self._caps.lock:
            self._own.change(max_rate, now)
            self._buckets = (self._own, *self._caps.above(priority))
            for body in self._bodies:
                body.move(self._buckets, now)

    def body(self) -> Capped:
        """Return the limits of one body, to be closed after it."""
        with self._caps.lock:
            body = Capped(self._caps.lock, self._buckets, self._bodies)
            self._bodies.add(body)
        return body

    @contextlib.contextmanager
    def small(self) -> Iterator[Small]:
        """Return what counts a file that may be small, and come as a whole when it is asked for."""
        body = self.body()
        try:
            yield Small(self, body)
        finally:
            body.close()


class Capped:
    """The limits of one body. One thread at a time asks. Fits `pace.Pace` but for what it asks."""

    def __init__(
        self, lock: threading.Lock, buckets: tuple[Bucket, ...], bodies: set[Capped]
    ) -> None:
        """Begin, under the lock, as one of *bodies*."""
        self._lock = lock
        self._bodies = bodies
        self._buckets: tuple[Bucket, ...] = ()
        #: What was taken beforehand, and from which buckets; None: nobody has asked.
        self._granted: int | None = None
        self._charged: tuple[Bucket, ...] = ()
        #: When it may take again what others want, too.
        self._turn: Seconds = 0.0
        self.move(buckets, 0.0)

    def move(self, buckets: tuple[Bucket, ...], now: Seconds) -> None:
        """Take from other buckets, under the lock."""
        for bucket in self._buckets:
            bucket.sharers -= 1
        for bucket in self._charged:
            bucket.take(now, -(self._granted or 0))
        self._charged, self._turn = (), 0.0
        self._buckets = buckets
        for bucket in buckets:
            bucket.sharers += 1

    def room(self, now: Seconds, most: int) -> tuple[int, Seconds]:
        """Return how many bytes, of *most*, may be read now, and how soon to ask again.

        They count as read until `took` tells how many were, or somebody asks anew.
        """
        with self._lock:
            self._settle(now, 0)
            limited = self._limited()
            room, wait = self._room(limited, now)
            if room <= 0:
                return 0, wait
            self._grant(limited, now, int(min(room, most)))
            return self._granted or 0, math.inf

    def claim(self, now: Seconds, count: int) -> Seconds:
        """Take *count* beforehand, however little there is; else return how soon to ask again."""
        with self._lock:
            self._settle(now, 0)
            limited = self._limited()
            room, wait = self._room(limited, now)
            if room <= 0:
                return wait
            self._grant(limited, now, count)
            return 0.0

    def took(self, now: Seconds, count: int) -> None:
        """Take that *count* bytes were read."""
        with self._lock:
            self._settle(now, count)

    def close(self) -> None:
        """Take no more."""
        with self._lock:
            self._settle(monotonic(), 0)
            for bucket in self._buckets:
                bucket.sharers -= 1
            self._buckets = ()
            self._bodies.discard(self)

    def _limited(self) -> tuple[Bucket, ...]:
        return tuple(bucket for bucket in self._buckets if bucket.rate is not None)

    def _room(self, limited: tuple[Bucket, ...], now: Seconds) -> tuple[float, Seconds]:
        patient = now < self._turn
        room = min((b.room(now, patient=patient) for b in limited), default=math.inf)
        if room > 0:
            return room, 0.0
        wait = max(b.wait(now, patient=patient) for b in limited)
        if patient:
            wait = min(wait, max(self._turn - now, max(b.wait(now) for b in limited)))
        return 0, min(wait, _LOOK)

    def _grant(self, limited: tuple[Bucket, ...], now: Seconds, count: int) -> None:
        self._granted, self._charged = count, limited
        for bucket in limited:
            bucket.take(now, count)

    def _settle(self, now: Seconds, count: int) -> None:
        """Take as much as was read: what was granted is taken already, or was free then."""
        granted, charged = self._granted, self._charged
        self._granted, self._charged = None, ()
        if granted is None and not count:
            return
        owing = charged if granted is not None else self._limited()
        if not owing:
            return
        for bucket in owing:
            bucket.take(now, count - (granted or 0))
        if count:
            pause = max(bucket.turn(count) for bucket in owing)
            latest = max(_LATEST, *(bucket.round() for bucket in owing))
            self._turn = min(max(self._turn, now) + pause, now + latest)


class Small:
    """A file that may be small, and how it counts."""

    def __init__(self, caps: RunCaps, capped: Capped) -> None:
        self._caps = caps
        self._capped = capped

    def wait(self) -> Seconds:
        """Return how long to wait before asking again whether it may begin; 0: it may."""
        return self._capped.claim(monotonic(), self._caps.guess)

    def count(self, size: int) -> None:
        """Take that so much of it has come; without this, nothing has."""
        self._caps.guess = size
        self._capped.took(monotonic(), size)
