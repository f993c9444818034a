"""How jobs leave the queue: files get their names, partial data goes, the row is removed.

Complete is idempotent up to its last step: a crash or a refusal in between leaves a job that can be
completed again (BITS.md K4). Temporaries that nobody wants are remembered as strays until a worker
has removed them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from transferd.model.errors import (
    CallerError,
    Conflict,
    InvalidTransition,
    NotFound,
    StoreError,
    Unavailable,
    job_not_found,
)
from transferd.model.failures import Failure
from transferd.model.job import Job, JobId, OnError, Seconds
from transferd.model.states import JobEvent, JobState, advance
from transferd.service.allowance import Allowance
from transferd.service.completion import GROUP, Completion
from transferd.service.gate import Gate
from transferd.service.locks import JobLocks
from transferd.service.ports import Change, Clock, JobStore, Moved, Moves, Whole
from transferd.service.runs import Runs
from transferd.service.sweeper import Sweeper
from transferd.service.workers import Workers

log = logging.getLogger(__name__)

_PAGE = 100
#: Groups of one owner's jobs that are closed at once; another owner's slow files hold up nobody.
_HANDS = 4
#: Groups of one owner a second in the long run, and at once.
_GROUPS, _GROUPS_BURST = 30.0, 10.0
#: Before a job that could not be closed by itself is tried again.
_PATIENCE: Seconds = 5.0

#: Looks at a job before it is closed for somebody, and raises CallerError to refuse.
Judge = Callable[[Job], None]


class Closing:
    """Completes and cancels jobs, for their owners and by itself."""

    def __init__(
        self, store: JobStore, runs: Runs, workers: Workers, locks: JobLocks, clock: Clock
    ) -> None:
        self._store = store
        self._runs = runs
        self._locks = locks
        self._clock = clock
        self._gate = Gate()
        self._completion = Completion(store, workers, clock, self._gate)
        self._sweeper = Sweeper(store, workers, clock)
        self._moves: Moves | None = None
        #: Jobs that are to close by themselves, and how many groups of them just do, by owner.
        self._automatic: dict[int, deque[JobId]] = {}
        self._busy: Counter[int] = Counter()
        #: Owners of whom a group is about to be taken, and how often that was done of late.
        self._coming: set[int] = set()
        self._paces: dict[int, Allowance] = {}
        self._wake = asyncio.Event()

    def report_to(self, moves: Moves) -> None:
        """Say who hears that a job has moved; before the first job closes."""
        self._moves = moves

    # ── for somebody ─────────────────────────────────────────────────────────────────────

    async def complete(self, job_id: JobId, judge: Judge) -> Job:
        """Publish what is whole, discard the rest, remove the job; returns its last view.

        *judge* is shown the job once nobody else can change it, and refuses by raising.

        Raises:
            Conflict: a file could not get its name; the code is that of the failure. The job
                stays, suspended when it was not transferred yet; complete it again.
            Unavailable: `worker_lost`, try again.
        """
        async with self._locks.hold(job_id):
            whole = await self._whole(job_id)
            judge(whole.job)
            moved = await self._completion.begin(await self._stilled(whole), None)
            self._tell(moved)
        await self._sweep_after([moved.job])
        return moved.job

    async def cancel(self, job_id: JobId, judge: Judge) -> Job:
        """Remove the job and its partial data; returns its last view. *judge* as for complete."""
        async with self._locks.hold(job_id):
            judge(job := await self._store.job(job_id))
            job = await self._cancel(job, None)
        await self._sweeper.sweep(job.owner)
        return job

    async def expire(self, job_id: JobId) -> None:
        """Cancel a job that nobody cares for; its notices stay, unlike where its owner cancels."""
        async with self._locks.hold(job_id):
            job = await self._cancel(await self._store.job(job_id), Change())
        await self._sweeper.sweep(job.owner)

    async def _whole(self, job_id: JobId) -> Whole:
        for whole in await self._store.whole([job_id]):
            return whole
        raise job_not_found(job_id)

    async def _stilled(self, whole: Whole) -> Whole:
        """Return a job that does not move any more: nothing may while files get their names."""
        job = whole.job
        if advance(job.state, JobEvent.SUSPEND) is job.state and not self._runs.holds(job.id):
            return whole
        await self._still(job.id)
        return await self._whole(job.id)

    async def _still(self, job_id: JobId) -> None:
        self._tell(await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now()))
        await self._runs.stop(job_id)

    async def _cancel(self, job: Job, change: Change | None) -> Job:
        if self._runs.holds(job.id):
            # A run that still writes could leave a temporary that nobody knows of.
            await self._still(job.id)
        async with self._gate.passing(job):
            moved = await self._store.apply(job.id, JobEvent.CANCEL, self._clock.now(), change)
        self._tell(moved)
        await self._runs.stop(job.id)
        return moved.job

    async def _sweep_after(self, gone: Sequence[Job]) -> None:
        """Remove what completed jobs may have left behind: nothing, if all of it has its name."""
        if any(job.files_transferred < job.files_total for job in gone):
            await self._sweeper.sweep(gone[0].owner)

    # ── by themselves ────────────────────────────────────────────────────────────────────

    def consider(self, job: Job) -> None:
        """Close a job by itself, soon, where its owner asked for that."""
        if _completes_itself(job) or _cancels_itself(job):
            self._put(job.owner, [job.id])

    def _put(self, owner: int, job_ids: Iterable[JobId]) -> None:
        self._automatic.setdefault(owner, deque()).extend(job_ids)
        self._wake.set()

    async def run(self) -> None:
        """Close what is to close by itself until cancelled, and what a crash left over."""
        await self._remember()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweeper.run(), name="sweep")
            while True:
                self._wake.clear()
                for owner in self._automatic.keys() - self._coming:
                    if self._busy[owner] < _HANDS:
                        self._busy[owner] += 1
                        self._coming.add(owner)
                        group.create_task(self._close(owner), name=f"closing for {owner}")
                await self._wake.wait()

    async def _take(self, owner: int) -> list[JobId]:
        """Take jobs that nobody is at work on, or one that somebody is: it waits for him alone.

        Where one group comes after the other, they are let grow: each costs syncs of disks.
        """
        now = self._clock.steady()
        pace = self._paces.setdefault(owner, Allowance(_GROUPS, _GROUPS_BURST, now))
        if wait := pace.spend(1, now):
            await self._clock.sleep(wait)
        queue = self._automatic[owner]
        taken = [queue.popleft()]
        if not self._locks.held(taken[0]):
            while queue and len(taken) < GROUP and not self._locks.held(queue[0]):
                taken.append(queue.popleft())
        if not queue:
            del self._automatic[owner]
        return list(dict.fromkeys(taken))

    async def _remember(self) -> None:
        after: int | None = 0
        states = frozenset({JobState.TRANSFERRED, JobState.ERROR})
        while after is not None:
            page = await self._store.jobs(owner=None, states=states, after=after, limit=_PAGE)
            for job in page.jobs:
                self.consider(job)
            after = page.next

    async def _close(self, owner: int) -> None:
        try:
            try:
                job_ids = await self._take(owner)
            finally:
                self._coming.discard(owner)
                self._wake.set()
            try:
                delayed = await self._close_all(job_ids)
            except StoreError as error:
                delayed = dict.fromkeys(job_ids, str(error))
            for job_id, reason in delayed.items():
                fields = {"job": job_id, "reason": reason}
                log.warning("job.close_delayed", extra={"fields": fields})
            if delayed:
                await self._clock.sleep(_PATIENCE)
                self._put(owner, delayed)
        finally:
            self._busy[owner] -= 1
            self._wake.set()

    async def _close_all(self, job_ids: Sequence[JobId]) -> dict[JobId, str]:
        """Close jobs of one owner; returns which of them could not be closed now, and why."""
        delayed: dict[JobId, str] = {}
        async with self._locks.hold_all(job_ids):
            # Only now nobody changes what their owner wants.
            whole = await self._store.whole(job_ids)
            completing = [each for each in whole if _completes_itself(each.job)]
            gone = await self._complete_all(completing, delayed)
            for each in whole:
                if _cancels_itself(each.job):
                    with suppress(NotFound, InvalidTransition):
                        gone.append(await self._cancel(each.job, Change()))
        await self._sweep_after(gone)
        return delayed

    async def _complete_all(self, whole: Sequence[Whole], delayed: dict[JobId, str]) -> list[Job]:
        """Complete jobs together; returns those that have left, and notes which cannot now."""
        for each in whole:
            if self._runs.holds(each.job.id):
                await self._runs.stop(each.job.id)
        leaving = [self._completion.begin(each, Change()) for each in whole]
        gone: list[Job] = []
        outcomes = await asyncio.gather(*leaving, return_exceptions=True)
        for each, outcome in zip(whole, outcomes, strict=True):
            match outcome:
                case Moved():
                    self._tell(outcome)
                    gone.append(outcome.job)
                case NotFound() | InvalidTransition():
                    pass
                case Conflict():
                    await self._fail(each.job.id, outcome)
                case Unavailable() | StoreError():
                    delayed[each.job.id] = str(outcome)
                case _:
                    raise outcome
        return gone

    async def _fail(self, job_id: JobId, refusal: CallerError) -> None:
        change = Change(failure=Failure(code=refusal.code, message=refusal.detail))
        with suppress(NotFound, InvalidTransition):
            now = self._clock.now()
            self._tell(await self._store.apply(job_id, JobEvent.FAIL, now, change))

    def _tell(self, moved: Moved) -> None:
        if self._moves is not None:
            self._moves.moved(moved)


def _completes_itself(job: Job) -> bool:
    # A transferred job that has got files since waits for its owner to resume it.
    whole = job.files_transferred == job.files_total
    return job.state is JobState.TRANSFERRED and whole and job.settings.auto_complete


def _cancels_itself(job: Job) -> bool:
    return job.state is JobState.ERROR and job.settings.on_error is OnError.CANCEL
