"""Keeps the background jobs of many machines from starting at one moment, such as after a blackout.

Each machine draws one random moment. What somebody waits for starts at once: foreground jobs, and
what is created or resumed meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from transferd.model.job import Job, JobId, Priority, Seconds
from transferd.model.states import JobState
from transferd.service.ports import Clock, Runnable
from transferd.service.turns import BACKGROUND

#: More jobs than these that are asked for meanwhile, of one owner or of all, wait with the others.
_MOST_EACH, _MOST = 1_000, 10_000
#: The part of a window within which all machines start, however short it is.
_BEGINNING = 0.25
_UNBOUNDED: Mapping[Priority, Seconds | None] = MappingProxyType(dict.fromkeys(BACKGROUND))


@dataclass(frozen=True, slots=True)
class _Hold:
    """Since when jobs are held back, and for which part of the time within which all start."""

    began: Seconds
    part: float
    #: That time, where it is shorter than the configuration's.
    most: Seconds

    def until(self, spread: Seconds) -> Seconds:
        """Return when it ends."""
        return self.began + min(spread, self.most) * self.part


class Stagger:
    """The random moments before which no background job of a priority starts by itself."""

    def __init__(self, clock: Clock, jitter: Callable[[], float], spread: Seconds) -> None:
        """Take within what time all machines start."""
        self._clock = clock
        self._jitter = jitter
        self._spread = spread
        self._holds: dict[Priority, _Hold] = {}
        self._called: dict[JobId, Runnable] = {}
        #: How many of these each owner has.
        self._owned: Counter[int] = Counter()

    def configure(self, spread: Seconds) -> None:
        """Let all machines start within another time, what is held back now included."""
        self._spread = spread

    def moment(self) -> Seconds:
        """Draw a moment."""
        return self._clock.steady() + self._spread * self._jitter()

    def hold(self, windows: Mapping[Priority, Seconds | None] = _UNBOUNDED) -> None:
        """Hold jobs of priorities back until a random moment; a hold that goes on stays as it is.

        But none goes on beyond the beginning of a *window*, the time for which they may run; None:
        it has no end. What was asked for before this is held back, too.
        """
        now, part = self._clock.steady(), self._jitter()
        for priority, window in windows.items():
            most = inf if window is None else window * _BEGINNING
            until = self.until(priority)
            if until is None or until > now + most:
                self._holds[priority] = _Hold(now, part, most)
            self._forget(priority)

    def until(self, priority: Priority) -> Seconds | None:
        """Until when jobs of a priority are held back; None: they are not."""
        hold = self._holds.get(priority)
        if hold is None:
            return None
        until = hold.until(self._spread)
        if self._clock.steady() < until:
            return until
        del self._holds[priority]
        self._forget(priority)
        return None

    @property
    def held(self) -> Mapping[Priority, Seconds]:
        """The priorities whose jobs are held back, and until when."""
        moments = {priority: self.until(priority) for priority in tuple(self._holds)}
        return {priority: until for priority, until in moments.items() if until is not None}

    def holds(self, job: Job) -> Seconds | None:
        """Until when a queued job is held back; None: it is not."""
        return None if job.id in self._called else self.until(job.settings.priority)

    def call(self, job: Job, *, asked: bool = False) -> None:
        """Take that a job is queued, or another one; by its owner, unless it has been retried.

        With *asked* it is not held back in any case.
        """
        known = self._drop(job.id)
        if job.state is not JobState.QUEUED or self.until(job.settings.priority) is None:
            return
        asked = asked or known is not None or job.retry_delay <= 0
        if asked and self._owned[job.owner] < _MOST_EACH and len(self._called) < _MOST:
            self._owned[job.owner] += 1
            self._called[job.id] = Runnable(
                job_id=job.id,
                owner=job.owner,
                priority=job.settings.priority,
                cost=job.settings.cost,
            )

    def started(self, job_id: JobId) -> None:
        """Take that a job was given a slot, whether or not it is still there."""
        self._drop(job_id)

    @property
    def called(self) -> Mapping[Priority, Sequence[Runnable]]:
        """The jobs of priorities that are held back which are not, in turn."""
        found: dict[Priority, list[Runnable]] = {}
        for claim in self._called.values():
            found.setdefault(claim.priority, []).append(claim)
        return found

    def _forget(self, priority: Priority) -> None:
        called = self._called.items()
        self._called = {job: claim for job, claim in called if claim.priority is not priority}
        self._owned = Counter(claim.owner for claim in self._called.values())

    def _drop(self, job_id: JobId) -> Runnable | None:
        claim = self._called.pop(job_id, None)
        if claim is not None:
            self._owned[claim.owner] -= 1
            if not self._owned[claim.owner]:
                del self._owned[claim.owner]
        return claim
