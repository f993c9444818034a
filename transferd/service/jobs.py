"""Use cases: everything that a caller can do with jobs. Fits `api.ports.JobUseCases`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from transferd.model.caller import Caller
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import (
    BadRequest,
    CallerError,
    InvalidTransition,
    NotAllowed,
    Unavailable,
)
from transferd.model.job import Blocker, File, FileSpec, Job, JobId, JobSpec, Settings
from transferd.model.limits import Limits
from transferd.model.states import JobEvent, JobState
from transferd.service.blockers import blockers_of
from transferd.service.organs import Organs
from transferd.service.ownership import Ownership
from transferd.service.ports import Created, FilePage, JobPage, Moved
from transferd.service.workers import WorkerGone, WorkerRefused
from transferd.wire import chores
from transferd.wire.bounds import questions

log = logging.getLogger(__name__)

#: Jobs that are told of in one turn of the loop.
_TURN = 50


class _Wanted(NamedTuple):
    """A destination, and whether a file that is there already may be replaced."""

    local: str
    overwrite: bool


class Jobs:
    """The use cases."""

    def __init__(self, organs: Organs, limits: Limits, owner_of: Callable[[Caller], int]) -> None:
        self._store = organs.store
        self._runs = organs.runs
        self._workers = organs.workers
        self._closing = organs.closing
        self._outcomes = organs.outcomes
        self._quotas = organs.quotas
        self._windows = organs.windows
        self._stagger = organs.stagger
        self._scheduler = organs.scheduler
        self._clock = organs.clock
        self._limits = limits
        self._owner_of = owner_of
        self._ownership = Ownership(organs, owner_of)

    def configure(self, limits: Limits) -> None:
        """Hold whatever is asked for from now on against other limits."""
        self._limits = limits

    async def create(self, caller: Caller, specs: Sequence[JobSpec]) -> tuple[Created, ...]:
        """Make jobs, all or none. Destinations are inspected as their owner first."""
        owner = self._owner_of(caller)
        await self._look_beforehand(owner, specs)
        made = await self._store.create(
            owner, specs, self._clock.now(), quota=self._quotas.of_caller(caller)
        )
        # The caller is answered first.
        asyncio.get_running_loop().call_soon(self._tell, [each.job for each in made if each.new])
        return made

    async def get(self, caller: Caller, job_id: JobId) -> Job:
        """Return a job with its live progress."""
        return self._runs.view(await self._ownership.visible(caller, job_id))

    async def page(
        self,
        caller: Caller,
        *,
        states: frozenset[JobState] | None,
        all_users: bool,
        after: int,
        limit: int,
    ) -> JobPage:
        """Return a page of jobs, with live progress."""
        if all_users and not caller.admin:
            raise NotAllowed("not_allowed", "cannot list everybody's jobs: only an admin can")
        owner = None if all_users else self._owner_of(caller)
        page = await self._store.jobs(owner=owner, states=states, after=after, limit=limit)
        return JobPage(jobs=tuple(map(self._runs.view, page.jobs)), next=page.next)

    async def change(
        self, caller: Caller, job_id: JobId, change: Callable[[Settings], Settings]
    ) -> Job:
        """Change settings; a running job takes up its priority, its rate and the number of its
        connections at once, others when it is dispatched again.
        """
        async with self._ownership.holding(caller, job_id) as before:
            guarded = self._ownership.guarded(caller, before, change)
            job = await self._store.change_settings(
                job_id, guarded, self._clock.now(), quota=self._quotas.of_caller(caller)
            )
            self._runs.retune(job_id, job.settings)
        if _notify(job.settings) != _notify(before.settings):
            log.info("job.notify_changed", extra={"fields": {"job": job.id, "owner": job.owner}})
        self._outcomes.changed(job)
        return self._runs.view(job)

    async def files(self, caller: Caller, job_id: JobId, *, after: int, limit: int) -> FilePage:
        """Return a page of files."""
        await self._ownership.visible(caller, job_id)
        return await self._store.files(job_id, after=after, limit=limit)

    async def add_files(
        self, caller: Caller, job_id: JobId, specs: Sequence[FileSpec]
    ) -> tuple[File, ...]:
        """Append files, all or none; a running job goes on with them."""
        job = await self._ownership.visible(caller, job_id)
        self._ownership.check_own(caller, job, "add files to")
        if refused := await self._inspect(job.owner, _wanted(job.settings, specs)):
            raise refused
        async with self._ownership.holding(caller, job_id) as job:
            self._ownership.check_own(caller, job, "add files to")
            files = await self._store.add_files(
                job_id,
                specs,
                self._clock.now(),
                files_per_job=self._limits.files_per_job,
                quota=self._quotas.of_caller(caller),
            )
        self._outcomes.changed(job)
        return files

    async def set_credential(self, caller: Caller, job_id: JobId, credential: Credential) -> Job:
        """Keep a credential in place of one for the same (target, scheme), as JobUseCases says."""
        async with self._ownership.holding(caller, job_id) as job:
            self._ownership.check_own(caller, job, "set credentials of")
            job = await self._store.set_credentials(
                job_id, [credential], self._clock.now(), quota=self._quotas.of_caller(caller)
            )
            await self._restart(job_id)
        self._outcomes.changed(job)
        return await self.get(caller, job_id)

    async def remove_credential(
        self, caller: Caller, job_id: JobId, target: Target, scheme: Scheme
    ) -> Job:
        """Forget a credential, as JobUseCases says."""
        async with self._ownership.holding(caller, job_id) as job:
            self._ownership.check_own(caller, job, "remove credentials of")
            job = await self._store.remove_credential(job_id, target, scheme, self._clock.now())
            await self._restart(job_id)
        self._outcomes.changed(job)
        return await self.get(caller, job_id)

    async def resume(self, caller: Caller, job_id: JobId) -> Job:
        """Start or continue a job; one that is transferred is reopened when it has new files."""
        async with self._ownership.holding(caller, job_id) as job:
            event = JobEvent.RESUME
            if job.state is JobState.TRANSFERRED and await self._store.open_files(job_id, 1):
                event = JobEvent.REOPEN
            moved = await self._store.apply(job_id, event, self._clock.now())
        self._report("job.resumed", moved)
        return self._runs.view(moved.job)

    async def suspend(self, caller: Caller, job_id: JobId) -> Job:
        """Pause a job."""
        async with self._ownership.holding(caller, job_id):
            moved = await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now())
            self._report("job.suspended", moved)
            await self._runs.stop(job_id)
            return await self._store.job(job_id)

    async def complete(self, caller: Caller, job_id: JobId) -> Job:
        """Publish what is whole and take the job out of the queue; returns its last view."""
        await self._ownership.visible(caller, job_id)
        return await self._closing.complete(job_id, partial(self._ownership.check_visible, caller))

    async def cancel(self, caller: Caller, job_id: JobId) -> Job:
        """Take the job out of the queue and remove partial data; returns its last view."""
        await self._ownership.visible(caller, job_id)
        return await self._closing.cancel(job_id, partial(self._ownership.check_visible, caller))

    async def take_ownership(self, caller: Caller, job_id: JobId) -> Job:
        """Make an admin the owner of a job, as JobUseCases says."""
        return self._runs.view(await self._ownership.take(caller, job_id))

    async def why(self, caller: Caller, job_id: JobId) -> tuple[Blocker, ...]:
        """Say what keeps a job from moving."""
        return self.blockers(await self._ownership.visible(caller, job_id))

    def blockers(self, job: Job) -> tuple[Blocker, ...]:
        """The same, for a job at hand."""
        now, steady = self._clock.now(), self._clock.steady()
        return blockers_of(
            job,
            self._windows.admission,
            self._scheduler.slots,
            now,
            steady,
            self._stagger.holds(job),
            self._runs.occupants,
            barred=self._runs.barred_until(job.owner),
            paced=self._runs.held(job.id),
        )

    async def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state."""
        return await self._store.counts()

    async def tally(self, caller: Caller) -> Mapping[JobState, int]:
        """Return how many jobs the caller has in each state."""
        own = (await self._store.tallies()).get(self._owner_of(caller), {})
        return {state: own.get(state, 0) for state in JobState if not state.final}

    @property
    def worker_count(self) -> int:
        """How many worker processes there are."""
        return len(self._workers)

    def workers_of(self, caller: Caller) -> int:
        """Return how many worker processes there are for the caller's jobs."""
        return int(self._owner_of(caller) in self._workers.pids)

    async def _look_beforehand(self, owner: int, specs: Sequence[JobSpec]) -> None:
        """Make sure that jobs can be made, as far as that can be told before.

        Of a job that is there already, whoever repeats the request wants to hear, not of its files
        nor of a worker that hangs. Few requests are repeated ones: both look at the same time.

        Raises: what `_inspect` returns, for new jobs.
        """
        inspection = asyncio.create_task(self._inspect(owner, _all_wanted(specs)))
        try:
            new = await self._store.unmade(owner, specs)
            refused = await inspection if len(new) == len(specs) else None
        finally:
            inspection.cancel()
        if 0 < len(new) < len(specs):
            refused = await self._inspect(owner, _all_wanted(new))
        if refused is not None:
            raise refused

    async def _inspect(self, owner: int, wanted: Sequence[_Wanted]) -> CallerError | None:
        """Ask the owner's worker whether files may be written there; without any, whether it runs.

        In a user namespace somebody may be thousands of uids that are no user's. None of them has
        jobs, or he would fill the queue with them.

        Returns:
            BadRequest: the first refusal.
            NotAllowed: `owner_refused`.
            Unavailable: there is no worker to ask.
        """
        for batch in list(questions(wanted, lambda one: len(one.local.encode()))) or [()]:
            question = partial(
                chores.Inspect,
                paths=tuple(one.local for one in batch),
                new=tuple(number for number, one in enumerate(batch) if not one.overwrite),
            )
            try:
                answer = await self._workers.ask(owner, question, chores.Inspected)
            except WorkerRefused as error:
                return NotAllowed("owner_refused", f"cannot make files: {error}")
            except WorkerGone as error:
                return Unavailable(
                    "worker_lost", f"cannot look at the destinations: {error}; try again"
                )
            for refusal in answer.refusals[:1]:
                return BadRequest(refusal.code, refusal.message)
        return None

    def _tell(self, made: Sequence[Job]) -> None:
        """Tell of new jobs, in turns: others are not to wait for all of them."""
        for job in made[:_TURN]:
            fields = {"job": job.id, "owner": job.owner, "files": job.files_total}
            log.info("job.created", extra={"fields": fields})
            self._outcomes.changed(job)
        if len(made) > _TURN:
            asyncio.get_running_loop().call_soon(self._tell, made[_TURN:])

    async def _restart(self, job_id: JobId) -> None:
        """Let a running job begin anew with what has been changed, from its durable offsets."""
        if not self._runs.holds(job_id):
            return
        try:
            moved = await self._store.apply(job_id, JobEvent.REQUEUE, self._clock.now())
        except InvalidTransition:
            return  # it has stopped by itself
        await self._runs.stop(job_id)
        self._outcomes.moved(moved)

    def _report(self, event: str, moved: Moved) -> None:
        if moved.job.state is not moved.before:
            fields = {"job": moved.job.id, "owner": moved.job.owner}
            log.info(event, extra={"fields": fields})
        self._outcomes.moved(moved)


def _all_wanted(specs: Sequence[JobSpec]) -> list[_Wanted]:
    return [one for spec in specs for one in _wanted(spec.settings, spec.files)]


def _wanted(settings: Settings, files: Sequence[FileSpec]) -> list[_Wanted]:
    return [_Wanted(file.local, settings.overwrite) for file in files]


def _notify(settings: Settings) -> tuple[int, tuple[str, ...] | None]:
    """Return who is told of what (BITS event 6)."""
    return settings.notify_kinds, settings.notify_command
