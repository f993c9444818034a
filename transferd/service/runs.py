"""Jobs in the hands of workers: which ones, how far, and how to end them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from transferd.model.errors import LinkBroken, StoreDamaged
from transferd.model.job import Job, JobId, Seconds, Settings
from transferd.service.carrier import STOP_PATIENCE, Carrier, Outcome
from transferd.service.chronicle import Chronicle
from transferd.service.inbox import Lost
from transferd.service.ports import Dispatched, Runnable
from transferd.service.run import Run
from transferd.service.sharing import Sharing
from transferd.service.testimony import Heed, RunMessage
from transferd.service.turns import Occupant
from transferd.service.worker import Worker
from transferd.wire import link

log = logging.getLogger(__name__)

#: When the daemon goes down, all runs together get this long.
CLOSE_PATIENCE: Seconds = 2.0


class Runs:
    """All runs of the daemon. Fits `workers.Listener`."""

    def __init__(
        self, carrier: Carrier, chronicle: Callable[[Runnable], Chronicle], sharing: Sharing
    ) -> None:
        self._carrier = carrier
        self._sharing = sharing
        self._chronicle = chronicle
        #: The number of the latest run.
        self._latest = 0
        self._runs: dict[JobId, Run] = {}
        self._barred: set[JobId] = set()
        self._outcome: Outcome | None = None

    def report_to(self, outcome: Outcome) -> None:
        """Say who hears how jobs fare; before the first start."""
        self._outcome = outcome
        self._carrier.report_to(outcome)

    @property
    def running(self) -> tuple[Runnable, ...]:
        """The claims of all runs that hold a slot: their workers have something to do."""
        return tuple(run.claim for run in self._runs.values() if not run.finishing)

    @property
    def occupants(self) -> Iterator[Occupant]:
        """The same, for people."""
        for run in self._runs.values():
            if not run.finishing:
                claim = run.claim
                yield Occupant(
                    job_id=claim.job_id, name=run.name, owner=claim.owner, priority=claim.priority
                )

    @property
    def hidden(self) -> int:
        """How many jobs may be queued, and not start now."""
        return len(self._barred) + sum(run.stopping for run in self._runs.values())

    def holds(self, job_id: JobId) -> bool:
        """Whether a run of the job is not over yet, or none may begin now."""
        return job_id in self._runs or job_id in self._barred

    @contextmanager
    def barring(self, job_id: JobId) -> Iterator[None]:
        """Let no run of the job begin in the block; one that goes on may end."""
        self._barred.add(job_id)
        try:
            yield
        finally:
            self._barred.discard(job_id)
            self._tell_ended(job_id)

    def barred_until(self, owner: int) -> Seconds | None:
        """Return until when no job of the owner's can run, since his workers fell; None: now."""
        return self._carrier.barred_until(owner)

    def owner(self, job_id: JobId) -> int | None:
        """Return whose job it is, while a run holds it."""
        run = self._runs.get(job_id)
        return run.claim.owner if run is not None else None

    def view(self, job: Job) -> Job:
        """Return *job* with the live progress of its run."""
        run = self._runs.get(job.id)
        return run.progress.view(job) if run is not None else job

    def held(self, job_id: JobId) -> bool:
        """Whether reads of a job's bodies are held to a rate, since no window rules what comes."""
        run = self._runs.get(job_id)
        return run is not None and run.held

    def retune(self, job_id: JobId, settings: Settings) -> None:
        """Let a running job go on as its new settings say, as far as that is done at once.

        The next scheduling decision sees its new priority and cost (BITS.md P10, B8).
        """
        run = self._runs.get(job_id)
        if run is not None:
            run.retune(settings)
            self._carrier.retune(run)
            self._sharing.changed(run)

    async def start(self, claims: Sequence[Runnable]) -> None:
        """Dispatch queued jobs.

        Raises:
            StoreError: none of them; they are still queued.
        """
        runs = [self._new(claim) for claim in claims if claim.job_id not in self._barred]
        try:
            taken = await self._carrier.dispatch(runs)
        except BaseException:
            for run in runs:
                self._over(run)
            raise
        for run, found in zip(runs, taken, strict=True):
            match found:
                case Dispatched(files=(_, *_)):
                    run.adopt(found.moved.job.settings)
                    self._pursue(run, self._carrier.carry(run, found))
                case StoreDamaged():
                    self._pursue(run, self._carrier.put_off(run, found))
                case _:
                    self._over(run)

    def _new(self, claim: Runnable) -> Run:
        self._latest += 1
        run = Run(self._latest, claim, self._chronicle(claim))
        self._runs[claim.job_id] = run
        return run

    def _pursue(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        run.task = asyncio.create_task(work, name=f"run {run.number} {run.claim.job_id}")
        run.task.add_done_callback(lambda _: self._over(run))

    async def stop(self, job_id: JobId) -> None:
        """End the run of a job, if there is one, after its last durable offset is recorded.

        The job's state is the caller's to move, before this.
        """
        run = self._runs.get(job_id)
        if run is None:
            return
        run.stopping = True
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                await self._end(run)
        except TimeoutError:
            self._give_up(run)
            await run.over.wait()

    async def close(self, patience: Seconds = CLOSE_PATIENCE) -> None:
        """End all runs, those that do not end in time by force.

        Their jobs keep their state and come back as queued at the next start.
        """
        runs = list(self._runs.values())
        for run in runs:
            run.stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
                for run in runs:
                    group.create_task(self._end(run))
        for run in runs:
            if not run.over.is_set():
                self._give_up(run)
                if run.task is not None:  # it may wait for the queue file, not for the worker
                    run.task.cancel()
        for run in runs:
            await run.over.wait()

    async def _end(self, run: Run) -> None:
        if run.waiting and run.task is not None:
            # No worker knows of it yet; that one may take long to start, or never does.
            run.task.cancel()
        await self._carrier.halt(run)
        await run.over.wait()

    def _give_up(self, run: Run) -> None:
        log.warning("run.unresponsive", extra={"fields": {"job": run.claim.job_id}})
        if run.worker is not None:
            run.worker.cut_off("it did not leave a job when it was told to")

    def heard(self, worker: Worker, message: RunMessage) -> Heed:
        """Take what a worker says of a run; of one that is over it may still say something.

        Raises:
            LinkBroken: it cannot be true, or it is somebody else's run.
        """
        run = self._runs.get(message.job)
        if run is None or run.number != message.run:
            if message.run > self._latest:
                raise LinkBroken("it speaks of a run that there never was")
            return Heed.NOTHING
        if run.worker is not worker:
            raise LinkBroken("it speaks of a job that it was not given")
        heed = run.record.hear(message)
        if heed is Heed.NOTHING:
            return heed
        if isinstance(message, link.Paced):
            run.held = message.held
            return heed
        if isinstance(message, link.FileDone):
            self._sharing.moved(run, run.progress.gained(message.file, message.size))
        if isinstance(message, link.Progress):
            self._sharing.moved(run, run.progress.gained(message.file, message.received))
            run.progress.received(message.file, message.received, message.total)
            self._tell_progress(run)
        else:
            run.inbox.put(message)
        if isinstance(message, link.Drained) and run.complete:
            # The next job is dispatched while this one's end is written down.
            run.finishing = True
            self._tell_ended(message.job)
        return heed

    async def caught_up(self, worker: Worker) -> None:
        """Wait until no run of the worker's is far behind what it said."""
        for run in tuple(self._runs.values()):
            if run.worker is worker:
                await run.inbox.room()

    def lost(self, worker: Worker, reason: str) -> None:
        """Take that a worker is gone."""
        for run in self._runs.values():
            if run.worker is worker:
                run.inbox.put(Lost(reason))

    def _over(self, run: Run) -> None:
        """Free the slot, however the run's task ended, and even if it never began."""
        job_id = run.claim.job_id
        if self._runs.get(job_id) is run:
            del self._runs[job_id]
        self._sharing.end(run)
        run.inbox.close()
        run.over.set()
        error = None if run.task is None or run.task.cancelled() else run.task.exception()
        if error is not None:
            log.error("run.broken", extra={"fields": {"job": job_id}}, exc_info=error)
        self._tell_ended(job_id)

    def _tell_ended(self, job_id: JobId) -> None:
        if self._outcome is not None:
            self._outcome.ended(job_id)

    def _tell_progress(self, run: Run) -> None:
        if self._outcome is not None:
            self._outcome.progressed(run.claim.job_id)
