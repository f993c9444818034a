"""Carries dispatched jobs through a worker each, from DISPATCH to the worker's last message.

The carrier moves the job by events only. When the owner moved the job meanwhile the table refuses
the event: the store wins, and the run just ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from transferd.model.credentials import PassportOptions
from transferd.model.errors import (
    InvalidTransition,
    NotFound,
    StoreDamaged,
    StoreError,
    TransferFailed,
    VaultError,
)
from transferd.model.failures import Failure
from transferd.model.job import File, Job, JobId, Seconds
from transferd.service.bookkeeper import Bookkeeper
from transferd.service.breakers import Breakers
from transferd.service.inbox import Batch, Lost
from transferd.service.mishaps import Mishaps, worker_lost
from transferd.service.ports import Clock, Dispatched, JobStore, Moved, Secrets
from transferd.service.quotas import Quotas
from transferd.service.retries import RetryTimes
from transferd.service.run import Run, start_message
from transferd.service.sharing import Sharing
from transferd.service.workers import WorkerGone, WorkerRefused, Workers
from transferd.wire import link
from transferd.wire.message import Message

log = logging.getLogger(__name__)

#: Files that a worker is told of at a time.
BATCH = 1000
#: A worker that does not answer Stop within this time is given up.
STOP_PATIENCE: Seconds = 5.0
#: What a run that is to stop does not begin any more.
_BEGINNINGS = (link.Connected, link.Sized)


class Outcome(Protocol):
    """Who hears how jobs fare."""

    def moved(self, moved: Moved) -> None:
        """A job changed its state, with these notices."""
        ...

    def progressed(self, job_id: JobId) -> None:
        """Bytes of a job have moved."""
        ...

    def ended(self, job_id: JobId) -> None:
        """A run gives its slot back, or is over."""
        ...


class Carrier:
    """Talks with workers about runs, and keeps what they say."""

    def __init__(
        self,
        store: JobStore,
        workers: Workers,
        clock: Clock,
        times: RetryTimes,
        jitter: Callable[[], float],
        breakers: Breakers,
        passport: PassportOptions,
        quotas: Quotas,
        sharing: Sharing,
    ) -> None:
        """Take the *passport* options of jobs that say nothing, beside whom to talk to."""
        self._store = store
        self._workers = workers
        self._clock = clock
        self._mishaps = Mishaps(store, clock, times, jitter, breakers, self._tell)
        self._breakers = breakers
        self._passport = passport
        self._quotas = quotas
        self._sharing = sharing
        self._bookkeeper = Bookkeeper(
            store, workers, clock, breakers, self._tell, self._tell_progress
        )
        self._outcome: Outcome | None = None

    def report_to(self, outcome: Outcome) -> None:
        """Say who hears how jobs fare; before the first run."""
        self._outcome = outcome

    def configure(self, times: RetryTimes, passport: PassportOptions) -> None:
        """Behave otherwise from the next failure and the next run on."""
        self._mishaps.configure(times)
        self._passport = passport

    def barred_until(self, owner: int) -> Seconds | None:
        """Return until when the owner gets no worker; None: now."""
        return self._workers.barred_until(owner)

    async def dispatch(self, runs: Sequence[Run]) -> Sequence[Dispatched | StoreDamaged | None]:
        """Take the queued jobs of runs; None where somebody was faster.

        Raises:
            StoreError: none was taken.
        """
        claims = [run.claim for run in runs]
        taken = await self._store.dispatch(claims, self._clock.now(), files=BATCH)
        for found in taken:
            if isinstance(found, Dispatched):
                self._tell(found.moved)
        return taken

    async def put_off(self, run: Run, damaged: StoreDamaged) -> None:
        """Hold on to a job that could not be read, for a while: it is dispatched again then."""
        fields = {"job": run.claim.job_id, "reason": str(damaged)}
        log.error("store.failed", extra={"fields": fields})
        await self._clock.sleep(self._mishaps.soon)

    async def carry(self, run: Run, dispatched: Dispatched) -> None:
        """See a dispatched job through."""
        started = self._clock.steady()
        run.files = dispatched.files
        try:
            if not await self._rest(run, dispatched.moved.job):
                await self._see_through(run, dispatched, started)
        except StoreError as error:
            await self._give_back(run, str(error), started)
        finally:
            self._breakers.ended(run)
            run.chronicle.close("stopped")
            if run.worker is not None:
                self._workers.release(run.worker, run.number)

    async def _rest(self, run: Run, job: Job) -> bool:
        """Put a job off whose next server is left alone; whether it is."""
        rest = self._breakers.admit(run, job)
        return rest is not None and await self._mishaps.rest(run, job, rest)

    async def _see_through(self, run: Run, dispatched: Dispatched, started: Seconds) -> None:
        """Serve a run, and note how it ended.

        Raises:
            StoreError: the queue file could not be written; the job still seems to run in it.
        """
        try:
            await self._serve(run, dispatched, started)
        except (InvalidTransition, NotFound) as error:
            log.debug(
                "run.overtaken", extra={"fields": {"job": run.claim.job_id, "reason": str(error)}}
            )
            await self.halt(run)
            await self._drain(run)
        except WorkerRefused as refusal:
            failure = Failure(code="owner_refused", message=f"cannot run the job: {refusal}")
            await self._mishaps.fail(run, failure, started)
        except WorkerGone as error:
            await self._mishaps.stumble(run, worker_lost(str(error)), None, started)
        except TransferFailed as failed:
            await self.halt(run)
            await self._drain(run)
            await self._mishaps.fail(run, failed.failure, started)
        except StoreError:
            raise
        except Exception as error:
            # A job fails alone, even by a fault of ours: left as it is, it would seem to run.
            log.exception("run.broken", extra={"fields": {"job": run.claim.job_id}})
            await self._halt_and_fail(run, error, started)

    async def _serve(self, run: Run, dispatched: Dispatched, started: Seconds) -> None:
        job = dispatched.moved.job
        limit = job.settings.timers.max_download_time
        left = limit - job.active_seconds if limit else None
        try:
            async with asyncio.timeout(left):
                await self._converse(run, dispatched, started)
        except TimeoutError:
            await self.halt(run)
            await self._drain(run)
            failure = Failure(
                code="time_limit",
                message=f"cannot go on: the job was active for {limit:.0f} s, which is its limit",
            )
            await self._mishaps.fail(run, failure, started)

    async def _converse(self, run: Run, dispatched: Dispatched, started: Seconds) -> None:
        if not await self._begin(run, dispatched, started):
            return
        over = False
        while not over:
            batch = await self._next(run)
            match batch.end:
                case None:
                    await self._bookkeeper.keep(run, batch.said)
                case link.Drained():
                    files = await self._bookkeeper.keep(run, batch.said, extend=BATCH)
                    over = await self._extend_or_finish(run, files)
                case end:
                    await self._bookkeeper.keep(run, batch.said)
                    run.chronicle.hear(end)
                    await self._end(run, end, started)
                    over = True

    async def _next(self, run: Run) -> Batch:
        batch = await run.inbox.take()
        if isinstance(batch.end, Lost | link.Failed | link.Stopped):
            run.live = False
        return batch

    async def _end(
        self, run: Run, end: link.Failed | link.Stopped | Lost, started: Seconds
    ) -> None:
        match end:
            case link.Failed():
                await self._mishaps.failed(run, end, started)
            case Lost() if not run.stopping:
                await self._mishaps.stumble(run, worker_lost(end.reason), None, started)
            case _:
                pass

    async def _begin(self, run: Run, dispatched: Dispatched, started: Seconds) -> bool:
        """Hand the job to a worker; False when there was nothing to hand over."""
        job = dispatched.moved.job
        if run.stopping:
            return False  # stop() came while it was dispatched
        await self._hold_worker(run)
        try:
            secrets = await self._secrets(dispatched)
        except VaultError as error:
            failure = Failure(
                code="secrets_unreadable", message=f"cannot open the job's credentials: {error}"
            )
            await self._mishaps.fail(run, failure, started)
            return False
        try:
            start = start_message(run, job, dispatched.files, secrets, self._passport)
            await self._hand_over(run, start)
        finally:
            secrets.wipe()
        if run.stopping:  # stop() came before there was a worker to tell
            await self.halt(run)
        return True

    async def _secrets(self, dispatched: Dispatched) -> Secrets:
        if not dispatched.secret:
            return Secrets(credentials=(), headers=())
        return await self._store.secrets(dispatched.moved.job.id, self._clock.now())

    async def _hold_worker(self, run: Run) -> None:
        run.waiting = True
        try:
            run.quota = await self._quotas.of_owner(run.claim.owner)
            run.worker = await self._workers.hold(run.claim.owner, run.number)
        finally:
            run.waiting = False

    async def _hand_over(self, run: Run, start: link.Start) -> None:
        run.chronicle.take(start.files)
        for file in start.files:
            run.progress.kept(file.index, file.bytes_covered)
        self._give(run, start.files)
        run.live = True
        self._sharing.begin(run)
        await self._reply(run, start)
        run.started = True
        self.retune(run)

    def retune(self, run: Run) -> None:
        """Tell the worker how a run is to go on, if that is another way than it knows."""
        tuning = run.tuning
        if tuning is not None and run.started and run.worker is not None and tuning != run.told:
            run.told = tuning
            run.worker.channel.post(
                link.Retune(
                    run.claim.job_id,
                    run.number,
                    priority=tuning.priority,
                    max_rate=tuning.max_rate,
                    streams=tuning.streams,
                )
            )

    async def _extend_or_finish(self, run: Run, files: tuple[File, ...]) -> bool:
        """Answer Drained: more files where there are some, else the end of the job."""
        job_id = run.claim.job_id
        if not files:
            run.live = False
            await self._reply(run, link.Finish(job_id, run.number))
            return True
        run.files = files
        run.chronicle.take(files)
        self._give(run, files)
        await self._reply(run, link.Extend(job_id, run.number, files))
        return False

    def _give(self, run: Run, files: Sequence[File]) -> None:
        run.record.give(files)
        run.complete, run.finishing = len(files) < BATCH, False

    async def _halt_and_fail(self, run: Run, error: Exception, started: Seconds) -> None:
        await self.halt(run)
        kind = type(error).__name__
        message = f"cannot go on: the daemon has a fault of its own ({kind}); its log tells more"
        await self._mishaps.fail(run, Failure(code="worker_fault", message=message), started)

    async def _give_back(self, run: Run, reason: str, started: Seconds) -> None:
        """Let go of a job whose queue file could not be written, once it can be again."""
        log.error("store.failed", extra={"fields": {"job": run.claim.job_id, "reason": reason}})
        await self.halt(run)
        while True:
            await self._clock.sleep(self._mishaps.soon)
            with suppress(StoreError):
                await self._drain(run)
                await self._mishaps.stumble(run, worker_lost(reason), None, started)
                return

    # ── the worker's end of the run ──────────────────────────────────────────────────────

    async def halt(self, run: Run) -> None:
        """Tell the worker, if it still works on the run, to leave it."""
        if run.worker is not None and run.live:
            run.record.stopped = True
            with suppress(WorkerGone):
                stop = link.Stop(run.claim.job_id, run.number)
                await self._workers.send(run.worker, stop)

    async def _drain(self, run: Run) -> None:
        """Take what a stopped run still says, until it says that it is over."""
        with suppress(TimeoutError, WorkerGone):
            async with asyncio.timeout(STOP_PATIENCE):
                while run.live or len(run.inbox):
                    batch = await self._next(run)
                    last = [m for m in batch.said if not isinstance(m, _BEGINNINGS)]
                    with suppress(NotFound):
                        await self._bookkeeper.keep(run, last)
                    if batch.end is not None:
                        run.chronicle.hear(batch.end)

    async def _reply(self, run: Run, message: Message) -> None:
        if run.worker is not None:
            await self._workers.send(run.worker, message)

    def _tell(self, moved: Moved | None) -> None:
        if moved is not None and self._outcome is not None:
            self._outcome.moved(moved)

    def _tell_progress(self, job_id: JobId) -> None:
        if self._outcome is not None:
            self._outcome.progressed(job_id)
