"""Whose a job is, who else may do what with it, and how it becomes an admin's (BITS.md O1 to O3).

Others' jobs do not exist for ordinary users. Admins see and steer them. What a job does in its
owner's name, where it writes, who it is to a server, what it runs, is for nobody but its owner to
say: an admin takes the job over first, without what it had of its former owner's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from transferd.model.caller import Caller
from transferd.model.errors import (
    Conflict,
    InvalidTransition,
    NotAllowed,
    OwnerRefused,
    Unavailable,
    job_not_found,
)
from transferd.model.job import File, Job, JobId, Settings
from transferd.model.ownership import TAKE_FIRST, foreign_changes
from transferd.model.paths import temporary_path
from transferd.model.states import JobEvent
from transferd.service.organs import Organs
from transferd.service.workers import WorkerGone
from transferd.wire import chores
from transferd.wire.bounds import questions

log = logging.getLogger(__name__)

#: Files that a worker is asked about at a time.
_BATCH = 1000


class Ownership:
    """Decides whose jobs a caller may see, steer and change, and hands them over."""

    def __init__(self, organs: Organs, owner_of: Callable[[Caller], int]) -> None:
        """Take *owner_of*, which tells whose jobs a caller makes."""
        self._store = organs.store
        self._runs = organs.runs
        self._workers = organs.workers
        self._outcomes = organs.outcomes
        self._locks = organs.locks
        self._clock = organs.clock
        self._owner_of = owner_of

    # ── who may what ─────────────────────────────────────────────────────────────────────

    async def visible(self, caller: Caller, job_id: JobId) -> Job:
        """Return a job that the caller may see.

        Raises:
            NotFound: `job_not_found`; it is not there, or somebody else's.
        """
        job = await self._store.job(job_id)
        self.check_visible(caller, job)
        return job

    @asynccontextmanager
    async def holding(self, caller: Caller, job_id: JobId) -> AsyncIterator[Job]:
        """Be the only one who works on a job that the caller may see.

        Raises:
            NotFound: as `visible`.
        """
        await self.visible(caller, job_id)  # others' work on others' jobs keeps nobody waiting
        async with self._locks.hold(job_id):
            yield await self.visible(caller, job_id)  # it may have been taken over meanwhile

    def check_visible(self, caller: Caller, job: Job) -> None:
        """Make sure that a job exists for the caller.

        Raises:
            NotFound: `job_not_found`, as if it were not there.
        """
        if not caller.may_see(job.owner):
            raise job_not_found(job.id)

    def check_own(self, caller: Caller, job: Job, doing: str) -> None:
        """Make sure that a job is the caller's own.

        Raises:
            NotFound: as `check_visible`.
            NotAllowed: `take_ownership_first`; the caller is an admin, who cannot *doing* it yet.
        """
        self.check_visible(caller, job)
        if job.owner != self._owner_of(caller):
            raise NotAllowed(
                TAKE_FIRST,
                f"cannot {doing} a job of another user, in whose name that would be;"
                " take ownership of it first",
            )

    def guarded(
        self, caller: Caller, job: Job, change: Callable[[Settings], Settings]
    ) -> Callable[[Settings], Settings]:
        """Return *change* as far as the caller may make it; it raises as `check_own`."""

        def guard(before: Settings) -> Settings:
            after = change(before)
            if names := foreign_changes(before, after):
                self.check_own(caller, job, f"change {', '.join(names)} of")
            return after

        return guard

    # ── handing over ─────────────────────────────────────────────────────────────────────

    async def take(self, caller: Caller, job_id: JobId) -> Job:
        """Make an admin the owner of a job; see JobUseCases.take_ownership."""
        await self.visible(caller, job_id)
        if not caller.admin:
            raise NotAllowed("not_allowed", "cannot take ownership of jobs: only an admin can")
        async with self.holding(caller, job_id) as job:
            owner = self._owner_of(caller)
            if job.owner == owner:
                return job
            with self._runs.barring(job_id):
                await self._halt(job_id)
                await self._check_access(job, owner)
                return await _undisturbed(self._hand_over(caller, job_id, owner))

    async def _halt(self, job_id: JobId) -> None:
        """End the run of a job, whose lock is held and of which no other run can begin."""
        running = True
        while running:
            with suppress(InvalidTransition):
                moved = await self._store.apply(job_id, JobEvent.REQUEUE, self._clock.now())
                self._outcomes.moved(moved)
            await self._runs.stop(job_id)
            # One that was about to begin has still moved the job.
            running = (await self._store.job(job_id)).state.running

    async def _check_access(self, job: Job, owner: int) -> None:
        """Make sure that the new owner can go on with the job's files.

        Raises:
            Conflict: `owner_no_access`, `owner_refused`.
            Unavailable: `worker_lost`, there is no worker to ask.
        """
        after: int | None = -1
        while after is not None:
            page = await self._store.files(job.id, after=after, limit=_BATCH)
            files = [file for file in page.files if not file.published]
            for batch in questions(files, lambda file: 2 * len(file.spec.local.encode())):
                await self._ask(job, owner, batch)
            after = page.next

    async def _ask(self, job: Job, owner: int, files: Sequence[File]) -> None:
        holdings = tuple(
            chores.Holding(
                number=file.index,
                local=file.spec.local,
                temporary=temporary_path(file.spec.local, job.id),
                inode=file.inode,
            )
            for file in files
        )
        try:
            question = partial(chores.Assume, files=holdings, former=job.owner)
            answer = await self._workers.ask(owner, question, chores.Inspected)
        except OwnerRefused as error:
            raise Conflict("owner_refused", f"cannot make job {job.id} yours: {error}") from error
        except WorkerGone as error:
            raise Unavailable(
                "worker_lost", f"cannot look at the job's files: {error}; try again"
            ) from error
        for refusal in answer.refusals[:1]:
            remedy = (
                "have the files in a new job, whose destinations you choose"
                if refusal.code == "local_forbidden"
                else f"let user {owner} write there,"
                " or remove a partial file that is in the way, which is fetched anew then"
            )
            raise Conflict(
                "owner_no_access",
                f"cannot make job {job.id} yours: {refusal.message}; {remedy}",
            )

    async def _hand_over(self, caller: Caller, job_id: JobId, owner: int) -> Job:
        moved = await self._store.take(job_id, owner, self._clock.now())
        former = moved.notices[0].owner
        fields = {"job": job_id, "from": former, "to": owner, "by": caller.uid}
        log.info("job.owner_changed", extra={"fields": fields})
        self._outcomes.taken(moved)
        return moved.job


async def _undisturbed(work: Coroutine[None, None, Job]) -> Job:
    """Do what must not end half-way, even where its caller is cancelled meanwhile."""
    task = asyncio.create_task(work, name="ownership")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
