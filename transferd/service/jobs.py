"""Use cases: everything that a caller can do with jobs. Fits `api.ports.JobUseCases`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from transferd.model.caller import Caller
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import BadRequest, InvalidTransition, NotAllowed, NotFound, Unavailable
from transferd.model.job import Blocker, File, FileSpec, Job, JobId, JobSpec, Settings
from transferd.model.limits import Limits
from transferd.model.states import JobEvent, JobState
from transferd.service.blockers import blockers_of
from transferd.service.closing import Closing
from transferd.service.locks import JobLocks
from transferd.service.outcomes import Outcomes
from transferd.service.ports import Clock, Created, FilePage, JobPage, JobStore, Moved
from transferd.service.runs import Runs
from transferd.service.workers import WorkerGone, Workers
from transferd.wire import link

log = logging.getLogger(__name__)

#: Paths that a worker is asked about at a time.
_BATCH = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """What the use cases stand on."""

    store: JobStore
    runs: Runs
    workers: Workers
    closing: Closing
    outcomes: Outcomes
    locks: JobLocks
    clock: Clock


class Jobs:
    """The use cases."""

    def __init__(self, organs: Organs, limits: Limits, owner_of: Callable[[Caller], int]) -> None:
        self._store = organs.store
        self._runs = organs.runs
        self._workers = organs.workers
        self._closing = organs.closing
        self._outcomes = organs.outcomes
        self._locks = organs.locks
        self._clock = organs.clock
        self._limits = limits
        self._owner_of = owner_of

    async def create(self, caller: Caller, specs: Sequence[JobSpec]) -> tuple[Created, ...]:
        """Make jobs, all or none. Destinations are inspected as their owner first."""
        owner = self._owner_of(caller)
        # Of a job that is there already, whoever repeats the request wants to hear, not of files.
        new = await self._store.unmade(owner, specs)
        await self._inspect(owner, [file.local for spec in new for file in spec.files])
        made = await self._store.create(
            owner, specs, self._clock.now(), jobs_per_user=self._limits.jobs_per_user
        )
        for created in made:
            if created.new:
                fields = {"job": created.job.id, "owner": owner, "files": created.job.files_total}
                log.info("job.created", extra={"fields": fields})
                self._outcomes.changed(created.job)
        return made

    async def get(self, caller: Caller, job_id: JobId) -> Job:
        """Return a job with its live progress."""
        return self._runs.view(await self._visible(caller, job_id))

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
        """Change settings; a running job takes them up with its next dispatch."""
        await self._visible(caller, job_id)
        async with self._locks.hold(job_id):  # not while the job closes by itself
            before = (await self._store.job(job_id)).settings
            job = await self._store.change_settings(job_id, change, self._clock.now())
        if _notify(job.settings) != _notify(before):
            log.info("job.notify_changed", extra={"fields": {"job": job.id, "owner": job.owner}})
        self._runs.reprioritize(job_id, job.settings.priority)
        self._outcomes.changed(job)
        return self._runs.view(job)

    async def files(self, caller: Caller, job_id: JobId, *, after: int, limit: int) -> FilePage:
        """Return a page of files."""
        await self._visible(caller, job_id)
        return await self._store.files(job_id, after=after, limit=limit)

    async def add_files(
        self, caller: Caller, job_id: JobId, specs: Sequence[FileSpec]
    ) -> tuple[File, ...]:
        """Append files, all or none; a running job goes on with them."""
        job = await self._visible(caller, job_id)
        await self._inspect(job.owner, [spec.local for spec in specs])
        async with self._locks.hold(job_id):  # not while the job completes without them
            files = await self._store.add_files(
                job_id, specs, self._clock.now(), files_per_job=self._limits.files_per_job
            )
        self._outcomes.changed(job)
        return files

    async def set_credential(self, caller: Caller, job_id: JobId, credential: Credential) -> Job:
        """Keep a credential in place of one for the same (target, scheme), as JobUseCases says."""
        await self._visible(caller, job_id)
        job = await self._store.set_credentials(job_id, [credential], self._clock.now())
        await self._restart(job_id)
        self._outcomes.changed(job)
        return await self.get(caller, job_id)

    async def remove_credential(
        self, caller: Caller, job_id: JobId, target: Target, scheme: Scheme
    ) -> Job:
        """Forget a credential, as JobUseCases says."""
        await self._visible(caller, job_id)
        job = await self._store.remove_credential(job_id, target, scheme, self._clock.now())
        await self._restart(job_id)
        self._outcomes.changed(job)
        return await self.get(caller, job_id)

    async def resume(self, caller: Caller, job_id: JobId) -> Job:
        """Start or continue a job; one that is transferred is reopened when it has new files."""
        async with self._locks.hold(job_id):
            job = await self._visible(caller, job_id)
            event = JobEvent.RESUME
            if job.state is JobState.TRANSFERRED and await self._store.open_files(job_id, 1):
                event = JobEvent.REOPEN
            moved = await self._store.apply(job_id, event, self._clock.now())
        self._report("job.resumed", moved)
        return self._runs.view(moved.job)

    async def suspend(self, caller: Caller, job_id: JobId) -> Job:
        """Pause a job."""
        await self._visible(caller, job_id)
        async with self._locks.hold(job_id):
            moved = await self._store.apply(job_id, JobEvent.SUSPEND, self._clock.now())
            self._report("job.suspended", moved)
            await self._runs.stop(job_id)
            return await self._store.job(job_id)

    async def complete(self, caller: Caller, job_id: JobId) -> Job:
        """Publish what is whole and take the job out of the queue; returns its last view."""
        await self._visible(caller, job_id)
        return await self._closing.complete(job_id)

    async def cancel(self, caller: Caller, job_id: JobId) -> Job:
        """Take the job out of the queue and remove partial data; returns its last view."""
        await self._visible(caller, job_id)
        return await self._closing.cancel(job_id)

    async def why(self, caller: Caller, job_id: JobId) -> tuple[Blocker, ...]:
        """Say what keeps a job from moving."""
        return self.blockers(await self._visible(caller, job_id))

    def blockers(self, job: Job) -> tuple[Blocker, ...]:
        """The same, for a job at hand."""
        return blockers_of(job, self._clock.now(), self._clock.steady())

    async def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state."""
        return await self._store.counts()

    @property
    def worker_count(self) -> int:
        """How many worker processes there are."""
        return len(self._workers)

    async def _visible(self, caller: Caller, job_id: JobId) -> Job:
        job = await self._store.job(job_id)
        if not caller.may_see(job.owner):
            raise NotFound("job_not_found", f"there is no job {job_id}")
        return job

    async def _inspect(self, owner: int, paths: Sequence[str]) -> None:
        """Ask the owner's worker whether files may be written there.

        Raises:
            BadRequest: the first refusal.
            Unavailable: there is no worker to ask.
        """
        for start in range(0, len(paths), _BATCH):
            batch = tuple(paths[start : start + _BATCH])
            question = partial(link.Inspect, paths=batch)
            try:
                answer = await self._workers.ask(owner, question, link.Inspected)
            except WorkerGone as error:
                raise Unavailable(
                    "worker_lost", f"cannot look at the destinations: {error}; try again"
                ) from error
            for refusal in answer.refusals[:1]:
                raise BadRequest(refusal.code, refusal.message)

    async def _restart(self, job_id: JobId) -> None:
        """Let a running job begin anew with what has been changed, from its durable offsets."""
        if not self._runs.holds(job_id):
            return
        async with self._locks.hold(job_id):
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


def _notify(settings: Settings) -> tuple[int, tuple[str, ...] | None]:
    """Return who is told of what (BITS event 6)."""
    return settings.notify_kinds, settings.notify_command
