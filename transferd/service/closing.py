"""How jobs leave the queue: files get their names, partial data goes, the row is removed.

Complete is idempotent up to its last step: a crash or a refusal in between leaves a job that can be
completed again (BITS.md K4). Temporaries that nobody wants are remembered as strays until a worker
has removed them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial

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
from transferd.service.workers import WorkerGone, WorkerRefused, Workers
from transferd.wire import link
from transferd.wire.bounds import questions

log = logging.getLogger(__name__)

_BATCH = 1000
_PAGE = 100
#: Jobs of one owner that are closed at once; another owner's slow files hold up nobody else's.
_HANDS = 4
#: With more files than so many, a job takes a while to leave, and everybody's changes wait for it.
_LARGE = 1000

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
        #: Jobs that are to close by themselves, and how many of them just do, by owner.
        self._automatic: dict[int, deque[JobId]] = {}
        self._busy: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._large: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: Strays up to this number have been found, and those of whom nobody has been asked yet.
        self._swept = 0
        self._found: dict[int, list[Stray]] = {}
        self._finding = asyncio.Lock()

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
        await self.sweep(job.owner)
        return job

    async def cancel(self, job_id: JobId, judge: Judge) -> Job:
        """Remove the job and its partial data; returns its last view. *judge* as for complete."""
        async with self._locks.hold(job_id):
            judge(job := await self._store.job(job_id))
            job = await self._cancel(job, None)
        await self.sweep(job.owner)
        return job

    async def expire(self, job_id: JobId) -> None:
        """Cancel a job that nobody cares for; its notices stay, unlike where its owner cancels."""
        async with self._locks.hold(job_id):
            job = await self._cancel(await self._store.job(job_id), Change())
        await self.sweep(job.owner)

    async def _complete(self, job_id: JobId, change: Change | None) -> Job:
        # Nothing may move while files get their names.
        self._tell(await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now()))
        await self._runs.stop(job_id)
        job = await self._store.job(job_id)
        await self._publish(job)
        return await self._leave(job, JobEvent.COMPLETE, change)

    async def _cancel(self, job: Job, change: Change | None) -> Job:
        if self._runs.holds(job.id):
            # A run that still writes could leave a temporary that nobody knows of.
            self._tell(await self._store.apply(job.id, JobEvent.SUSPEND, self._clock.now()))
            await self._runs.stop(job.id)
        gone = await self._leave(job, JobEvent.CANCEL, change)
        await self._runs.stop(job.id)
        return gone

    async def _leave(self, job: Job, event: JobEvent, change: Change | None) -> Job:
        """Take a job out of the queue; large ones of one owner one after the other."""
        large = self._large[job.owner] if job.files_total > _LARGE else nullcontext()
        async with large:
            moved = await self._store.apply(job.id, event, self._clock.now(), change)
        self._tell(moved)
        return moved.job

    def consider(self, job: Job) -> None:
        """Close a job by itself, soon, where its owner asked for that."""
        if _completes_itself(job) or _cancels_itself(job):
            self._put(job.owner, job.id)

    def _put(self, owner: int, job_id: JobId) -> None:
        self._automatic.setdefault(owner, deque()).append(job_id)
        self._wake.set()

    async def run(self) -> None:
        """Close what is to close by itself until cancelled, and what a crash left over."""
        await self._remember()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_all(), name="sweep")
            while True:
                self._wake.clear()
                for owner in tuple(self._automatic):
                    self._begin(owner, group)
                await self._wake.wait()

    def _begin(self, owner: int, group: asyncio.TaskGroup) -> None:
        queue = self._automatic[owner]
        while queue and self._busy[owner] < _HANDS:
            self._busy[owner] += 1
            group.create_task(self._close(owner, queue.popleft()), name=f"closing for {owner}")
        if not queue:
            del self._automatic[owner]

    async def _remember(self) -> None:
        after: int | None = 0
        states = frozenset({JobState.TRANSFERRED, JobState.ERROR})
        while after is not None:
            page = await self._store.jobs(owner=None, states=states, after=after, limit=_PAGE)
            for job in page.jobs:
                self.consider(job)
            after = page.next

    async def _close(self, owner: int, job_id: JobId) -> None:
        try:
            with suppress(NotFound, InvalidTransition):
                async with self._locks.hold(job_id):
                    await self._close_held(job_id)
                await self.sweep(owner)
        except (Unavailable, StoreError) as error:
            fields = {"job": job_id, "reason": str(error)}
            log.warning("job.close_delayed", extra={"fields": fields})
            await self._clock.sleep(_PATIENCE)
            self._put(owner, job_id)
        finally:
            self._busy[owner] -= 1
            self._wake.set()

    async def _close_held(self, job_id: JobId) -> None:
        """Close a job whose lock is held: only now nobody changes what its owner wants."""
        job = await self._store.job(job_id)
        try:
            if _completes_itself(job):
                await self._complete(job_id, Change())
            elif _cancels_itself(job):
                await self._cancel(job, Change())
        except Conflict as refusal:
            failure = Failure(code=refusal.code, message=refusal.detail)
            change = Change(failure=failure)
            self._tell(await self._store.apply(job_id, JobEvent.FAIL, self._clock.now(), change))

    async def _publish(self, job: Job) -> None:
        files = await self._store.publishable(job.id)
        refused: list[link.Refusal] = []
        for batch in questions(files, lambda file: _names(file, job)):
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
                lambda request: link.Publish(
                    request, publications, job.settings.overwrite, job.settings.wary
                ),
                link.Published,
            )
        except WorkerRefused as error:
            raise Conflict("owner_refused", f"cannot complete the job: {error}") from error
        except WorkerGone as error:
            raise Unavailable(
                "worker_lost", f"cannot complete the job now: {error}; complete it again"
            ) from error

    async def sweep(self, owner: int) -> None:
        """Remove temporaries of the owner's jobs that are gone.

        Those of whom no worker could be asked wait for the next time, or a while; what a worker
        cannot remove waits for a restart.
        """
        try:
            answers = True
            while await self._find():
                answers = answers and await self._discard(owner)
            if answers:
                await self._discard(owner)
        except StoreError as error:
            # Their jobs have left the queue all the same.
            log.warning("stray.kept", extra={"fields": {"reason": str(error)}})

    async def _sweep_all(self) -> None:
        """Remove what earlier daemons have left over, for every owner whose worker answers.

        For the others, and for those whose workers fail later, it is tried again now and then.
        """
        await self._sweep_found()
        while True:
            await self._clock.sleep(_AGAIN)
            await self._sweep_found()

    async def _sweep_found(self) -> None:
        hopeless: set[int] = set()

        async def discard(owner: int) -> None:
            if not await self._discard(owner):
                hopeless.add(owner)

        try:
            more = True
            while more:
                more = await self._find()
                async with asyncio.TaskGroup() as group:
                    for owner in self._found.keys() - hopeless:
                        group.create_task(discard(owner))
                for owner in hopeless & self._found.keys():
                    del self._found[owner][_KEPT:]
        except* StoreError as failed:
            reason = str(failed.exceptions[0])
            log.warning("stray.kept", extra={"fields": {"reason": reason}})

    async def _find(self) -> bool:
        """Look for strays that nobody has found yet; whether there were any."""
        async with self._finding:
            strays = await self._store.strays(_BATCH, after=self._swept)
            for stray in strays:
                self._found.setdefault(stray.owner, []).append(stray)
                self._swept = max(self._swept, stray.number)
        return bool(strays)

    async def _discard(self, owner: int) -> bool:
        """Have the owner's worker remove what was found; whether there was one to ask."""
        found, asked = self._found.pop(owner, []), 0
        for batch in questions(found, lambda s: len(s.temporary.encode())):
            leftovers = tuple(link.Leftover(stray.number, stray.temporary) for stray in batch)
            question = partial(link.Discard, leftovers=leftovers)
            try:
                answer = await self._workers.ask(owner, question, link.Discarded)
            except WorkerGone as error:
                fields = {"owner": owner, "files": len(batch), "reason": str(error)}
                log.warning("stray.kept", extra={"fields": fields})
                self._found[owner] = [*found[asked:], *self._found.get(owner, ())][:_KEPT]
                return False
            await self._forget(batch, answer)
            asked += len(batch)
        return True

    async def _forget(self, strays: Sequence[Stray], answer: link.Discarded) -> None:
        kept = {refusal.number for refusal in answer.refusals}
        for refusal in answer.refusals:
            log.warning("stray.kept", extra={"fields": {"reason": refusal.message}})
        await self._store.forget_strays([s.number for s in strays if s.number not in kept])

    def _tell(self, moved: Moved) -> None:
        if self._moves is not None:
            self._moves.moved(moved)


def _names(file: File, job: Job) -> int:
    """Return the bytes of both names of a file."""
    local = file.spec.local
    return len(local.encode()) + len(temporary_path(local, job.id).encode())


def _completes_itself(job: Job) -> bool:
    # A transferred job that has got files since waits for its owner to resume it.
    whole = job.files_transferred == job.files_total
    return job.state is JobState.TRANSFERRED and whole and job.settings.auto_complete


def _cancels_itself(job: Job) -> bool:
    return job.state is JobState.ERROR and job.settings.on_error is OnError.CANCEL


#: Strays that are remembered for an owner whose worker does not answer, and how long.
_KEPT = 10_000
_AGAIN: Seconds = 600.0
#: Before a job that could not be closed by itself is tried again.
_PATIENCE: Seconds = 5.0
