"""How jobs leave the queue: files get their names, partial data goes, the row is removed.

Complete is idempotent up to its last step: a crash or a refusal in between leaves a job that can be
completed again (BITS.md K4). Temporaries that nobody wants are remembered as strays until a worker
has removed them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from transferd.model.errors import (
    Conflict,
    InvalidTransition,
    NotFound,
    StoreError,
    Unavailable,
)
from transferd.model.failures import Failure
from transferd.model.job import File, Job, JobId, OnError, Seconds
from transferd.model.paths import temporary_path
from transferd.model.states import JobEvent, JobState
from transferd.service.locks import JobLocks
from transferd.service.ports import Change, Clock, JobStore, Moved, Moves, Stray
from transferd.service.runs import Runs
from transferd.service.workers import WorkerGone, Workers
from transferd.wire import link

log = logging.getLogger(__name__)

_BATCH = 1000
_PAGE = 100
#: Jobs that are closed at once.
_HANDS = 8


#: Looks at a job before it is closed for somebody, and raises CallerError to refuse.
Judge = Callable[[Job], None]


class Closing:
    """Completes and cancels jobs, for their owners and by itself."""

    def __init__(
        self, store: JobStore, runs: Runs, workers: Workers, locks: JobLocks, clock: Clock
    ) -> None:
        self._store = store
        self._runs = runs
        self._workers = workers
        self._locks = locks
        self._clock = clock
        self._moves: Moves | None = None
        self._automatic: asyncio.Queue[JobId] = asyncio.Queue()
        self._swept = 0

    def report_to(self, moves: Moves) -> None:
        """Say who hears that a job has moved; before the first job closes."""
        self._moves = moves

    async def complete(self, job_id: JobId, judge: Judge) -> Job:
        """Publish what is whole, discard the rest, remove the job; returns its last view.

        *judge* is shown the job once nobody else can change it, and refuses by raising.

        Raises:
            Conflict: a file could not get its name; the code is that of the failure. The job
                stays, suspended when it was not transferred yet; complete it again.
            Unavailable: `worker_lost`, try again.
        """
        async with self._locks.hold(job_id):
            judge(await self._store.job(job_id))
            job = await self._complete(job_id, None)
        await self.sweep()
        return job

    async def cancel(self, job_id: JobId, judge: Judge) -> Job:
        """Remove the job and its partial data; returns its last view. *judge* as for complete."""
        async with self._locks.hold(job_id):
            judge(await self._store.job(job_id))
            job = await self._cancel(job_id, None)
        await self.sweep()
        return job

    async def expire(self, job_id: JobId) -> None:
        """Cancel a job that nobody cares for; its notices stay, unlike where its owner cancels."""
        async with self._locks.hold(job_id):
            await self._cancel(job_id, Change())
        await self.sweep()

    async def _complete(self, job_id: JobId, change: Change | None) -> Job:
        # Nothing may move while files get their names.
        self._tell(await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now()))
        await self._runs.stop(job_id)
        job = await self._store.job(job_id)
        await self._publish(job)
        moved = await self._store.apply(job_id, JobEvent.COMPLETE, self._clock.now(), change)
        self._tell(moved)
        return moved.job

    async def _cancel(self, job_id: JobId, change: Change | None) -> Job:
        if self._runs.holds(job_id):
            # A run that still writes could leave a temporary that nobody knows of.
            self._tell(await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now()))
            await self._runs.stop(job_id)
        moved = await self._store.apply(job_id, JobEvent.CANCEL, self._clock.now(), change)
        self._tell(moved)
        await self._runs.stop(job_id)
        return moved.job

    def consider(self, job: Job) -> None:
        """Close a job by itself, soon, where its owner asked for that."""
        if _completes_itself(job) or _cancels_itself(job):
            self._automatic.put_nowait(job.id)

    async def run(self) -> None:
        """Close what is to close by itself until cancelled; first what a crash left over."""
        await self._remember()
        await self.sweep()
        async with asyncio.TaskGroup() as group:
            for number in range(_HANDS):
                group.create_task(self._close_all(), name=f"closing {number}")

    async def _close_all(self) -> None:
        while True:
            job_id = await self._automatic.get()
            with suppress(NotFound, InvalidTransition):
                await self._close(job_id)

    async def _remember(self) -> None:
        after: int | None = 0
        states = frozenset({JobState.TRANSFERRED, JobState.ERROR})
        while after is not None:
            page = await self._store.jobs(owner=None, states=states, after=after, limit=_PAGE)
            for job in page.jobs:
                self.consider(job)
            after = page.next

    async def _close(self, job_id: JobId) -> None:
        try:
            async with self._locks.hold(job_id):
                await self._close_held(job_id)
            await self.sweep()
        except (Unavailable, StoreError) as error:
            fields = {"job": job_id, "reason": str(error)}
            log.warning("job.close_delayed", extra={"fields": fields})
            await self._clock.sleep(_PATIENCE)
            self._automatic.put_nowait(job_id)

    async def _close_held(self, job_id: JobId) -> None:
        """Close a job whose lock is held: only now nobody changes what its owner wants."""
        job = await self._store.job(job_id)
        try:
            if _completes_itself(job):
                await self._complete(job_id, Change())
            elif _cancels_itself(job):
                await self._cancel(job_id, Change())
        except Conflict as refusal:
            failure = Failure(code=refusal.code, message=refusal.detail)
            change = Change(failure=failure)
            self._tell(await self._store.apply(job_id, JobEvent.FAIL, self._clock.now(), change))

    async def _publish(self, job: Job) -> None:
        files = await self._store.publishable(job.id)
        refused: list[link.Refusal] = []
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            answer = await self._ask_publish(job, batch)
            bad = {refusal.number for refusal in answer.refusals}
            good = [file.index for file in batch if file.index not in bad]
            await self._store.mark_published(job.id, good)
            refused += answer.refusals
        if refused:
            more = f" (and {len(refused) - 1} more files)" if len(refused) > 1 else ""
            raise Conflict(refused[0].code, refused[0].message + more)

    async def _ask_publish(self, job: Job, batch: Sequence[File]) -> link.Published:
        publications = tuple(
            link.Publication(
                index=file.index,
                local=file.spec.local,
                temporary=temporary_path(file.spec.local, job.id),
                inode=file.inode,
            )
            for file in batch
            if file.inode is not None
        )
        try:
            return await self._workers.ask(
                job.owner,
                lambda request: link.Publish(request, publications, job.settings.overwrite),
                link.Published,
            )
        except WorkerGone as error:
            raise Unavailable(
                "worker_lost", f"cannot complete the job now: {error}; complete it again"
            ) from error

    async def sweep(self) -> None:
        """Remove temporaries of jobs that are gone; what cannot be removed waits for a restart."""
        try:
            await self._sweep()
        except StoreError as error:
            # Their jobs have left the queue all the same.
            log.warning("stray.kept", extra={"fields": {"reason": str(error)}})

    async def _sweep(self) -> None:
        while strays := await self._store.strays(_BATCH, after=self._swept):
            self._swept = max(self._swept, strays[-1].number)
            for owner in {stray.owner for stray in strays}:
                await self._discard(owner, [stray for stray in strays if stray.owner == owner])

    async def _discard(self, owner: int, strays: Sequence[Stray]) -> None:
        leftovers = tuple(link.Leftover(stray.number, stray.temporary) for stray in strays)
        try:
            answer = await self._workers.ask(
                owner, lambda request: link.Discard(request, leftovers), link.Discarded
            )
        except WorkerGone as error:
            fields = {"owner": owner, "files": len(strays), "reason": str(error)}
            log.warning("stray.kept", extra={"fields": fields})
            return
        kept = {refusal.number for refusal in answer.refusals}
        for refusal in answer.refusals:
            log.warning("stray.kept", extra={"fields": {"reason": refusal.message}})
        await self._store.forget_strays([s.number for s in strays if s.number not in kept])

    def _tell(self, moved: Moved) -> None:
        if self._moves is not None:
            self._moves.moved(moved)


def _completes_itself(job: Job) -> bool:
    # A transferred job that has got files since waits for its owner to resume it.
    whole = job.files_transferred == job.files_total
    return job.state is JobState.TRANSFERRED and whole and job.settings.auto_complete


def _cancels_itself(job: Job) -> bool:
    return job.state is JobState.ERROR and job.settings.on_error is OnError.CANCEL


#: Before a job that could not be closed by itself is tried again.
_PATIENCE: Seconds = 5.0
