"""Tells everybody concerned how a job fares: listeners, the scheduler, the closing of jobs."""

from __future__ import annotations

import asyncio
import logging

from transferd.model.job import Job, JobId
from transferd.model.states import RUNNING, JobState
from transferd.service.closing import Closing
from transferd.service.meter import Meter
from transferd.service.notifier import Notifier
from transferd.service.ports import Moved
from transferd.service.runs import Runs
from transferd.service.scheduler import Scheduler
from transferd.service.stagger import Stagger

log = logging.getLogger(__name__)

_ARRIVALS = {
    JobState.TRANSFERRED: "job.transferred",
    JobState.ACKNOWLEDGED: "job.completed",
    JobState.CANCELLED: "job.cancelled",
}
#: What changes nothing for those who wait: a run goes on, or its end is told of besides.
_RUN_THEIR_COURSE = RUNNING | {JobState.TRANSFERRED}
_INTERRUPTIONS = {
    JobState.ERROR: "job.failed",
    JobState.TRANSIENT_ERROR: "job.stumbled",
}


class Outcomes:
    """Fits `runs.Outcome` and `closing.Moves`. State first, then signal: all of it is stored."""

    def __init__(
        self,
        notifier: Notifier,
        scheduler: Scheduler,
        stagger: Stagger,
        closing: Closing,
        runs: Runs,
        meter: Meter,
    ) -> None:
        self._meter = meter
        self._notifier = notifier
        self._scheduler = scheduler
        self._stagger = stagger
        self._closing = closing
        self._runs = runs
        #: Set when a job leaves the queue; whoever waits for that clears it.
        self.departed = asyncio.Event()

    def moved(self, moved: Moved) -> None:
        """A job changed its state, with these notices."""
        job = moved.job
        if job.state is not moved.before:
            self._log(job)
            self._count(job)
            self._stagger.call(job, asked=moved.before in RUNNING)
            if job.state.final:
                self.departed.set()
            if job.state not in _RUN_THEIR_COURSE:
                self._scheduler.wake()
            self._closing.consider(job)
        elif job.state is JobState.QUEUED:  # resumed once more: it is to start now
            self._stagger.call(job, asked=True)
            self._scheduler.wake()
        self._notifier.raised(moved.notices)
        self._notifier.modified(job.owner, job.id)

    def changed(self, job: Job) -> None:
        """A job was made, or something about it that is not its state is new."""
        self._stagger.call(job)
        if job.state is not JobState.SUSPENDED:
            self._scheduler.wake()
        self._closing.consider(job)
        self._notifier.modified(job.owner, job.id)

    def taken(self, moved: Moved) -> None:
        """A job has another owner: the first notice is the former one's, the others are his."""
        self.changed(moved.job)
        self._notifier.raised(moved.notices[:1])
        self._notifier.handed_over(moved.notices[1:])

    def progressed(self, job_id: JobId) -> None:
        """Bytes of a job have moved."""
        owner = self._runs.owner(job_id)
        if owner is not None:
            self._notifier.modified(owner, job_id)

    def ended(self, job_id: JobId) -> None:
        """A run gives its slot back, or is over."""
        self._scheduler.wake()

    def _count(self, job: Job) -> None:
        if job.error is None:
            return
        if job.state is JobState.ERROR:
            self._meter.failed(job.error.code)
        elif job.state is JobState.TRANSIENT_ERROR:
            self._meter.stumbled(job.error.code)

    def _log(self, job: Job) -> None:
        whose = {"job": job.id, "owner": job.owner}
        if job.state in _ARRIVALS:
            log.info(_ARRIVALS[job.state], extra={"fields": whose})
        elif job.state in _INTERRUPTIONS and job.error is not None:
            fields = whose | {
                "code": job.error.code,
                "context": job.error.kind.context,
                "http_status": job.error.http_status,
                "file": job.error.file,
                "reason": job.error.message,
            }
            log.info(_INTERRUPTIONS[job.state], extra={"fields": fields})
