"""Keeps the background jobs of many machines from starting at one moment, such as after a blackout.

Each machine draws one random moment. What somebody waits for starts at once: foreground jobs, and
what is created or resumed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from transferd.model.job import Job, JobId, Priority, Seconds
from transferd.model.states import JobState
from transferd.service.ports import Clock, Runnable

#: More jobs than these that are asked for meanwhile wait with the others.
_MOST = 10_000


class Stagger:
    """The random moment before which no background job starts by itself."""

    def __init__(self, clock: Clock, jitter: Callable[[], float], spread: Seconds) -> None:
        """Take within what time all machines start."""
        self._clock = clock
        self._jitter = jitter
        self._spread = spread
        self._until: Seconds | None = None
        self._called: dict[JobId, Runnable] = {}

    def configure(self, spread: Seconds) -> None:
        """Draw from another time from now on."""
        self._spread = spread

    def moment(self) -> Seconds:
        """Draw a moment."""
        return self._clock.steady() + self._spread * self._jitter()

    def hold(self) -> None:
        """Hold background jobs back until a random moment; a hold that goes on stays as it is."""
        if self.until is None:
            self._until = self.moment()

    @property
    def until(self) -> Seconds | None:
        """Until when they are held back; None: they are not."""
        if self._until is not None and self._clock.steady() >= self._until:
            self._until = None
            self._called.clear()
        return self._until

    def holds(self, job: Job) -> bool:
        """Whether a queued job is held back now."""
        background = job.settings.priority is not Priority.FOREGROUND
        return background and self.until is not None and job.id not in self._called

    def call(self, job: Job, *, asked: bool = False) -> None:
        """Take that a job is queued, or another one; by its owner, unless it has been retried.

        With *asked* it was by its owner in any case.
        """
        if self.until is None:
            return
        self._called.pop(job.id, None)
        asked = asked or (job.state is JobState.QUEUED and job.retry_delay <= 0)
        if asked and len(self._called) < _MOST:
            self._called[job.id] = Runnable(
                job_id=job.id,
                owner=job.owner,
                priority=job.settings.priority,
                cost=job.settings.cost,
            )

    def started(self, job_id: JobId) -> None:
        """Take that a job was given a slot, whether or not it is still there."""
        self._called.pop(job_id, None)

    @property
    def called(self) -> Mapping[Priority, Sequence[Runnable]]:
        """The background jobs that are not held back, in turn."""
        found: dict[Priority, list[Runnable]] = {}
        for claim in self._called.values():
            if claim.priority is not Priority.FOREGROUND:
                found.setdefault(claim.priority, []).append(claim)
        return found
