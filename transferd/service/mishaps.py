"""What becomes of a job whose run ended badly: tried again, after a while, or left to its owner."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from transferd.model.errors import InvalidTransition, NotFound
from transferd.model.failures import Failure, Remedy
from transferd.model.job import Job, Seconds
from transferd.model.states import JobEvent
from transferd.service.breakers import Breakers, Rest
from transferd.service.ports import Change, Clock, JobStore, Moved, Retry
from transferd.service.retries import RetryTimes
from transferd.service.run import Run
from transferd.transfer.retry import LONGEST_RETRY_AFTER
from transferd.wire import link

#: Failures that do not count as interruptions (BITS.md J11).
_UNCOUNTED = frozenset({"network_unreachable", "disk_full", "worker_lost"})


class Mishaps:
    """Moves jobs into an error, or into one that time may heal."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        times: RetryTimes,
        jitter: Callable[[], float],
        breakers: Breakers,
        tell: Callable[[Moved | None], None],
    ) -> None:
        """Take also who is told of every move; None: its owner was faster."""
        self._store = store
        self._clock = clock
        self._times = times
        self._jitter = jitter
        self._breakers = breakers
        self._tell = tell

    @property
    def soon(self) -> Seconds:
        """How long to wait for what is not the network's or a server's."""
        return self._times.soon

    def configure(self, times: RetryTimes) -> None:
        """Behave otherwise from the next one on."""
        self._times = times

    async def failed(self, run: Run, message: link.Failed, started: Seconds) -> None:
        """Take that the worker has failed; the run began at *started*."""
        if message.failure.kind.transient:
            wait = message.retry_after or 0.0
            here = wait > self._times.cap
            rest = self._breakers.failed(run, message.failure, wait, here=here)
            await self.stumble(run, self._asked(message.failure, wait), wait, started, rest)
        else:
            self._breakers.failed(run, message.failure, 0.0)
            await self.fail(run, message.failure, started)

    async def stumble(
        self,
        run: Run,
        failure: Failure,
        retry_after: Seconds | None,
        started: Seconds,
        rest: Seconds = 0.0,
    ) -> None:
        """Have the job tried again, after a delay of its own; give it up if it was stuck for long.

        *started* is when the run began, *retry_after* what the server asked for, *rest* how long it
        is left alone by all of the owner's jobs.
        """
        try:
            job = await self._store.job(run.claim.job_id)
        except NotFound:
            return  # its owner ended it meanwhile
        spent = self._clock.steady() - started
        stuck = 0.0 if run.moved_bytes else spent
        timers = job.settings.timers
        policy = self._times.policy(timers)
        attempts = 0 if run.moved_bytes else job.attempts
        stuck_for = stuck if run.moved_bytes else job.stuck_seconds + stuck
        delay = policy.delay(
            failure,
            attempts=attempts,
            stuck_for=stuck_for,
            retry_after=retry_after,
            jitter=self._jitter(),
            rest=rest,
        )
        if delay is None:
            await self.fail(run, _no_progress(failure, timers.no_progress_timeout), started)
            return
        change = Change(
            failure=failure,
            counts=failure.code not in _UNCOUNTED,
            retry=Retry(
                at=self._clock.steady() + delay,
                delay=delay,
                here=max(retry_after or 0.0, rest) > self._times.cap,
            ),
            active=spent,
            stuck=stuck + (delay if failure.kind.remedy is not Remedy.SPACE else 0.0),
        )
        self._tell(await self.move(run, JobEvent.STUMBLE, change))

    def _asked(self, failure: Failure, wait: Seconds) -> Failure:
        """Have a failure tell what its server has asked for, as far as that is heeded."""
        if wait <= 0:
            return failure
        more = " or longer" if wait >= LONGEST_RETRY_AFTER else ""
        asked = f"the server asked to be left alone for {math.ceil(wait)} s{more}"
        return replace(failure, message=f"{failure.message}; {asked}")

    async def rest(self, run: Run, job: Job, rest: Rest) -> bool:
        """Have a job wait that has not tried, since its server is left alone.

        Nobody is given up for that: False when the job has no patience left for it.
        """
        left = job.settings.timers.no_progress_timeout - job.stuck_seconds
        delay = min(rest.seconds, left)
        if delay <= 0:
            return False
        change = Change(
            failure=rest.failure,
            counts=False,
            tried=False,
            retry=Retry(at=self._clock.steady() + delay, delay=delay),
            stuck=delay,
        )
        self._tell(await self.move(run, JobEvent.STUMBLE, change))
        return True

    async def fail(self, run: Run, failure: Failure, started: Seconds) -> None:
        """Leave the job to its owner."""
        change = Change(failure=failure, active=self._clock.steady() - started)
        self._tell(await self.move(run, JobEvent.FAIL, change))

    async def move(self, run: Run, event: JobEvent, change: Change) -> Moved | None:
        """Move the job of a run; None: its owner moved it meanwhile."""
        try:
            return await self._store.apply(run.claim.job_id, event, self._clock.now(), change)
        except (InvalidTransition, NotFound):
            return None


def worker_lost(reason: str) -> Failure:
    """Return the failure of a job whose worker is gone, for that reason."""
    return Failure(code="worker_lost", message=f"cannot go on at once: {reason}")


def _no_progress(failure: Failure, patience: Seconds) -> Failure:
    return Failure(
        code="no_progress",
        message=f"gave up: no byte came for {patience:.0f} s; last: {failure.message}",
        http_status=failure.http_status,
        file=failure.file,
    )
