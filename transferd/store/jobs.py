"""The queue as the service sees it: each method is one transaction on the queue file."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import CallerError, StoreDamaged, VaultError
from transferd.model.job import (
    Cost,
    File,
    FileSpec,
    Job,
    JobId,
    JobSpec,
    Priority,
    Seconds,
    Settings,
)
from transferd.model.limits import UNBOUNDED, Quota
from transferd.model.queue import (
    Admitted,
    Agenda,
    Change,
    Created,
    Dispatched,
    Ending,
    FilePage,
    JobPage,
    Moved,
    Runnable,
    Secrets,
    Stray,
    Wanted,
    Whole,
)
from transferd.model.reports import Kept, Report
from transferd.model.states import JobEvent, JobState
from transferd.store import audit, endings, moves, ownership, queries, queue
from transferd.store import credentials as sealed
from transferd.store import dispatch as dispatching
from transferd.store import files as file_rows
from transferd.store.connection import T
from transferd.store.database import Database
from transferd.store.keeping import Hearing, keep
from transferd.store.quota import storing
from transferd.store.rows import microseconds, text_of
from transferd.store.together import Together
from transferd.store.vault import Vault

#: Runs whose reports are one operation.
_KEPT_TOGETHER = 64


class SqliteJobStore:
    """The queue, in an SQLite file (service.ports.JobStore)."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        new_id: Callable[[], JobId],
        look_again: Callable[[], Awaitable[bool]],
    ) -> None:
        """Take the queue file, what seals secrets, and a way to look for keys put back since."""
        self._database = database
        self._vault = vault
        self._new_id = new_id
        self._look_again = look_again
        self._keeping: Together[Hearing, Kept] = Together(
            lambda heard: database.write(partial(keep, heard=heard)), _KEPT_TOGETHER
        )

    async def create(
        self, owner: int, specs: Sequence[JobSpec], now: datetime, *, quota: Quota
    ) -> tuple[Created, ...]:
        """Make jobs, all or none."""
        drafts = [queue.draft(spec, self._vault, self._new_id, now) for spec in specs]
        return await self._database.write(
            partial(queue.create, owner=owner, drafts=drafts, now=now, quota=quota)
        )

    async def unmade(self, owner: int, specs: Sequence[JobSpec]) -> tuple[JobSpec, ...]:
        """Return those that `create` would make new jobs of."""
        if all(spec.id is None for spec in specs):
            return tuple(specs)
        asked = [(spec, self._vault.marks(spec.fingerprint)) for spec in specs]
        return await self._database.read(partial(queue.unmade, owner=owner, asked=asked))

    async def job(self, job_id: JobId) -> Job:
        """Return a job."""
        return await self._read(job_id, queue.load)

    async def jobs(
        self,
        *,
        owner: int | None,
        states: frozenset[JobState] | None,
        after: int,
        limit: int,
    ) -> JobPage:
        """Return a page of jobs."""
        return await self._database.read(
            partial(queries.page_of_jobs, owner=owner, states=states, after=after, limit=limit)
        )

    async def tallies(self) -> Mapping[int, Mapping[JobState, int]]:
        """Return how many jobs each owner has in each state."""
        return await self._database.read(queries.tallies)

    async def verify(self) -> tuple[str, ...]:
        """Read the queue file through, beside what goes on; returns what is wrong with it."""
        try:
            return await self._database.aside(audit.verify)
        except StoreDamaged as error:
            return (str(error),)

    async def error_codes(self) -> Mapping[str, int]:
        """Return how many jobs are in error, by code."""
        return await self._database.aside(audit.error_codes)

    async def directories(self) -> Mapping[int, tuple[str, ...]]:
        """Return where each owner's files and temporaries are, beside what goes on."""
        return await self._database.aside(audit.directories)

    async def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state."""
        return await self._database.read(queries.counts)

    async def files(self, job_id: JobId, *, after: int, limit: int) -> FilePage:
        """Return a page of files."""
        return await self._read(job_id, partial(file_rows.page_of_files, after=after, limit=limit))

    async def open_files(self, job_id: JobId, limit: int) -> tuple[File, ...]:
        """Return the first files that are not completed."""
        return await self._read(job_id, partial(file_rows.open_files, limit=limit))

    async def whole(self, job_ids: Sequence[JobId]) -> tuple[Whole, ...]:
        """Return jobs with their files that are completed but not published."""
        return await self._database.read(partial(endings.whole, job_ids=job_ids))

    async def add_files(
        self,
        job_id: JobId,
        specs: Sequence[FileSpec],
        now: datetime,
        *,
        files_per_job: int,
        quota: Quota,
    ) -> tuple[File, ...]:
        """Append files, all or none."""
        add = partial(
            file_rows.add_files, specs=specs, now=now, files_per_job=files_per_job, quota=quota
        )
        return await self._write(job_id, add)

    async def change_settings(
        self,
        job_id: JobId,
        change: Callable[[Settings], Settings],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
    ) -> Job:
        """Replace the settings with what *change* makes of them."""

        def operation(cx: sqlite3.Connection, number: int) -> Job:
            job = queue.load(cx, number)
            settings = change(job.settings)
            with storing(cx, job.owner, "change the job", quota):
                cx.execute(
                    "UPDATE jobs SET settings = ?, priority = ?, cost = ? WHERE number = ?",
                    [text_of(settings), settings.priority, settings.cost, number],
                )
            return _touch(cx, number, now)

        return await self._write(job_id, operation)

    async def set_credentials(
        self,
        job_id: JobId,
        credentials: Sequence[Credential],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
    ) -> Job:
        """Seal and keep credentials."""
        rows = sealed.seal(self._vault, job_id, credentials, now)

        def operation(cx: sqlite3.Connection, number: int) -> Job:
            with storing(cx, queue.load(cx, number).owner, "keep a credential", quota):
                sealed.put_credentials(cx, number, rows)
            return _touch(cx, number, now)

        return await self._write(job_id, operation)

    async def remove_credential(
        self, job_id: JobId, target: Target, scheme: Scheme, now: datetime
    ) -> Job:
        """Forget a credential."""

        def operation(cx: sqlite3.Connection, number: int) -> Job:
            sealed.drop_credential(cx, number, target, scheme)
            return _touch(cx, number, now)

        return await self._write(job_id, operation)

    async def secrets(self, job_id: JobId, now: datetime) -> Secrets:
        """Open the job's secrets."""
        rows = await self._read(job_id, sealed.read_secrets)
        try:
            return sealed.unseal(self._vault, job_id, rows, now)
        except VaultError:
            if not await self._look_again():
                raise
        return sealed.unseal(self._vault, job_id, rows, now)

    async def reseal(self, limit: int) -> int:
        """Seal up to *limit* stored secrets anew that another key than the newest has sealed."""
        return await self._database.write(partial(sealed.reseal, vault=self._vault, limit=limit))

    async def apply(
        self, job_id: JobId, event: JobEvent, now: datetime, change: Change | None = None
    ) -> Moved:
        """Move a job by the state table, with its notices.

        An event that leaves the state as it is (a resume of a running job) changes nothing at all.
        """
        return await self._database.write(
            partial(moves.apply, job_id=job_id, event=event, now=now, change=change)
        )

    async def take(self, job_id: JobId, owner: int, now: datetime) -> Moved:
        """Give a job that does not run to another owner, without what was the former one's."""
        return await self._write(job_id, partial(ownership.take, owner=owner, now=now))

    async def keep(
        self,
        job_id: JobId,
        reports: Sequence[Report],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
        extend: int | None = None,
    ) -> Kept:
        """Keep what a run reports, in its order."""
        return await self._keeping.ask(
            Hearing(job_id=job_id, reports=reports, now=now, quota=quota, extend=extend)
        )

    async def mark_published(self, job_id: JobId, files: Sequence[int]) -> None:
        """Mark files as published."""
        await self._write(
            job_id,
            lambda cx, number: file_rows.publish_files(cx, [(number, file) for file in files]),
        )

    async def complete(
        self, ended: Sequence[Ending], now: datetime
    ) -> tuple[Moved | CallerError, ...]:
        """Mark files as published and complete their jobs, in one transaction."""
        return await self._database.write(partial(endings.complete, ended=ended, now=now))

    async def dispatch(
        self, claims: Sequence[Runnable], now: datetime, *, files: int
    ) -> tuple[Dispatched | StoreDamaged | None, ...]:
        """Move claimed jobs that are still queued, all in one transaction."""
        return await self._database.write(
            partial(dispatching.dispatch, claims=claims, now=now, files=files)
        )

    async def agenda(self, front: Wanted, back: Wanted, admitted: Admitted) -> Agenda:
        """Return what there is to schedule."""
        return await self._database.read(
            partial(queries.agenda, front=front, back=back, admitted=admitted)
        )

    async def runnable(
        self, priority: Priority, wanted: Wanted, costs: frozenset[Cost]
    ) -> tuple[Runnable, ...]:
        """Return queued jobs of one priority that may run next, owners in turn."""
        return await self._database.read(
            partial(queries.runnable, priority=priority, wanted=wanted, costs=costs)
        )

    async def retry(self, steady: Seconds, now: datetime, *, limit: int) -> tuple[Moved, ...]:
        """Queue jobs in TRANSIENT_ERROR whose retry_at has come, in one transaction."""
        return await self._database.write(partial(moves.retry, steady=steady, now=now, limit=limit))

    async def hasten(self, front: Seconds, back: Seconds, *, after: int, limit: int) -> int | None:
        """Bring waits in TRANSIENT_ERROR forward."""
        return await self._database.write(
            partial(moves.hasten, front=front, back=back, after=after, limit=limit)
        )

    async def untouched_since(self, moment: datetime, limit: int) -> tuple[JobId, ...]:
        """Return jobs whose `modified` is older than *moment*."""
        return await self._database.read(
            partial(queries.untouched_since, moment=moment, limit=limit)
        )

    async def recover(self, steady: Seconds) -> int:
        """Bring running jobs back as queued, ahead of those that waited behind them."""
        return await self._database.write(partial(moves.recover, steady=steady))

    async def strays(self, limit: int, *, after: int = 0) -> tuple[Stray, ...]:
        """Return temporaries to remove."""
        return await self._database.read(partial(queries.strays, after=after, limit=limit))

    async def forget_strays(self, numbers: Sequence[int]) -> None:
        """Forget temporaries that are removed."""
        await self._database.write(partial(moves.forget_strays, numbers=numbers))

    async def _read(self, job_id: JobId, operation: Callable[[sqlite3.Connection, int], T]) -> T:
        return await self._database.read(lambda cx: operation(cx, queue.find(cx, job_id)))

    async def _write(self, job_id: JobId, operation: Callable[[sqlite3.Connection, int], T]) -> T:
        return await self._database.write(lambda cx: operation(cx, queue.find(cx, job_id)))


def _touch(cx: sqlite3.Connection, number: int, now: datetime) -> Job:
    cx.execute("UPDATE jobs SET modified = ? WHERE number = ?", [microseconds(now), number])
    return queue.load(cx, number)
