"""A real queue in a directory, and what goes into it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.failures import Failure
from transferd.model.job import (
    Cost,
    FileSpec,
    Header,
    Inode,
    Job,
    JobId,
    JobSpec,
    Part,
    Priority,
    Seconds,
    Settings,
    Timers,
)
from transferd.model.limits import UNBOUNDED, Quota
from transferd.model.notices import NoticeKind
from transferd.model.queue import Admitted, Change, Retry, Wanted
from transferd.model.reports import Checkpoint, Done, Kept, Report
from transferd.model.states import JobEvent
from transferd.service.keyring import KeyRing
from transferd.service.outbox import NoticeStore
from transferd.service.ports import JobStore
from transferd.store.opening import open_store

ALICE, BOB = 1001, 1002
PASSWORD = "hunter2"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INODE = Inode(device=64768, number=4711, born=1_772_000_000_123_456_789)
EVERY_KIND = NoticeKind.TRANSFERRED | NoticeKind.ERROR | NoticeKind.FILE_TRANSFERRED
ONE = Wanted(limit=1, each=1)
EVERY_COST = frozenset(Cost)
EVERYBODY: Admitted = dict.fromkeys(Priority, EVERY_COST)
REFUSED = Failure(code="connection_refused", message="cannot reach h: connection refused")
MISSING = Failure(code="http_404", message="cannot fetch https://h/0: 404", http_status=404)


def later(seconds: float) -> datetime:
    """A moment after NOW."""
    return NOW + timedelta(seconds=seconds)


def file_specs(count: int, *, first: int = 0) -> tuple[FileSpec, ...]:
    """Files 0, 1, 2… of a job."""
    return tuple(
        FileSpec(remote=f"https://h/{index}", local=f"/home/alice/{index}")
        for index in range(first, first + count)
    )


def settings(*, kinds: NoticeKind = EVERY_KIND, priority: Priority = Priority.NORMAL) -> Settings:
    """Plain settings."""
    timers = Timers(min_retry_delay=60.0, no_progress_timeout=3600.0, max_download_time=7200.0)
    return Settings(name="a job", timers=timers, notify_kinds=int(kinds), priority=priority)


def spec(files: int = 1, *, start: bool = True, job_id: str | None = None) -> JobSpec:
    """A wish for a job of so many files."""
    return JobSpec(
        settings=settings(),
        files=file_specs(files),
        start=start,
        id=None if job_id is None else JobId(job_id),
    )


def credential(password: str = PASSWORD, scheme: Scheme = Scheme.BASIC) -> Credential:
    """A credential of alice's for the server."""
    return Credential(
        target=Target.SERVER, scheme=scheme, username="alice", password=Secret(password)
    )


def header(name: str, value: str) -> Header:
    """A secret header."""
    return Header(name=name, value=Secret(value))


def offset(offset: int, *parts: Part, file: int = 0, total: int | None = 100) -> Checkpoint:
    """So many bytes of a file are on disk, and some behind them."""
    return Checkpoint(file=file, offset=offset, total=total, validator=None, parts=parts)


def done(file: int = 0, *, size: int = 100) -> Done:
    """A file is whole."""
    return Done(file=file, size=size, inode=INODE, length_unverified=False)


def stumble(at: float = 160.0, delay: float = 60.0) -> Change:
    """A failure that is tried again."""
    return Change(failure=REFUSED, retry=Retry(at=at, delay=delay), active=5.0, stuck=65.0)


class Queue:
    """The stores and keys of an open state directory, with the steps that most tests take."""

    def __init__(self, jobs: JobStore, notices: NoticeStore, keys: KeyRing) -> None:
        self.jobs = jobs
        self.notices = notices
        self.keys = keys

    async def make(self, wish: JobSpec | None = None, *, owner: int = ALICE) -> Job:
        """Make one job."""
        (created,) = await self.jobs.create(
            owner, [wish or spec()], NOW, quota=Quota(jobs_per_user=1000)
        )
        return created.job

    async def apply(self, job_id: JobId, *events: JobEvent, change: Change | None = None) -> Job:
        """Apply events in turn, the change with the last of them; return the job after it."""
        for event in events[:-1]:
            await self.jobs.apply(job_id, event, NOW)
        return (await self.jobs.apply(job_id, events[-1], NOW, change)).job

    async def report(
        self, job_id: JobId, *reports: Report, at: datetime = NOW, quota: Quota = UNBOUNDED
    ) -> Kept:
        """A run reports."""
        return await self.jobs.keep(job_id, reports, at, quota=quota)

    async def runnable(
        self,
        priority: Priority,
        limit: int,
        each: int = 1000,
        *,
        costs: frozenset[Cost] = EVERY_COST,
    ) -> list[JobId]:
        """Jobs that may run next."""
        wanted = Wanted(limit=limit, each=each)
        return [claim.job_id for claim in await self.jobs.runnable(priority, wanted, costs)]

    async def next_due(self) -> Seconds | None:
        """When the next wait is over."""
        return (await self.jobs.agenda(ONE, ONE, EVERYBODY)).next_due

    async def done(self, job_id: JobId, file: int = 0, *, size: int = 100) -> None:
        """A file is whole."""
        await self.report(job_id, done(file, size=size), at=later(1))

    async def transferred(self, wish: JobSpec | None = None) -> Job:
        """Make a job of one file and carry it to its end."""
        job = await self.make(wish)
        await self.apply(job.id, JobEvent.DISPATCH, JobEvent.CONNECT)
        await self.done(job.id)
        return await self.apply(job.id, JobEvent.FINISH)

    async def failed(self, wish: JobSpec | None = None) -> Job:
        """Make a job that fails for good."""
        job = await self.make(wish)
        await self.apply(job.id, JobEvent.DISPATCH)
        return await self.apply(job.id, JobEvent.FAIL, change=Change(failure=MISSING))

    async def kinds(self, job_id: JobId | None = None) -> list[NoticeKind]:
        """All notices that were ever written, by kind."""
        found = await self.notices.replay(
            after=0, owner=None, job_id=job_id, kinds=NoticeKind(0x1FF), limit=1000
        )
        return [notice.kind for notice in found]

    async def open_kinds(self, job_id: JobId | None = None) -> list[NoticeKind]:
        """The notices that wait for an acknowledgement, by kind."""
        found = await self.notices.unsettled(
            owner=None, job_id=job_id, kinds=NoticeKind(0x1FF), after=0, limit=1000
        )
        return [notice.kind for notice in found]


@asynccontextmanager
async def open_queue(directory: Path, *, credentials: Path | None = None) -> AsyncIterator[Queue]:
    """Open a state directory, with what the service manager hands over; ids are numbered."""
    ids = itertools.count(1)

    def new_id() -> JobId:
        return JobId(f"00000000-0000-4000-8000-{next(ids):012}")

    async with open_store(directory, credentials=credentials, new_id=new_id) as store:
        yield Queue(store.jobs, store.notices, store.keys)


def with_secrets(wish: JobSpec, *secrets: Credential, headers: tuple[Header, ...] = ()) -> JobSpec:
    """The same wish with secrets."""
    return replace(wish, credentials=secrets, headers=headers)
