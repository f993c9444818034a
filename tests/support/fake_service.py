"""The service behind the API, in memory: the two ports of transferd.api.ports, and nothing more."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from transferd.model.caller import Caller
from transferd.model.credentials import Credential, CredentialLabel, Scheme, Secret, Target
from transferd.model.errors import CallerError, Conflict, NotAllowed, NotFound
from transferd.model.job import Blocker, File, FileSpec, Job, JobId, JobSpec, Settings
from transferd.model.notices import TERMINAL, Gap, Modified, Notice, NoticeKind, Page
from transferd.model.ownership import stripped
from transferd.model.queue import Created, FilePage, JobPage
from transferd.model.states import JobEvent, JobState, advance

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class FakeService:
    """Jobs, files and notices in dictionaries."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.files_of: dict[JobId, list[File]] = {}
        self.fingerprints: dict[JobId, bytes] = {}
        #: Passwords and header values, in clear, as a vault would hold them sealed.
        self.passwords: dict[tuple[JobId, Target, Scheme], str] = {}
        self.header_values: dict[tuple[JobId, str], str] = {}
        #: The secrets that the API handed over, which it has to wipe afterwards.
        self.handed: list[Secret] = []
        self.outbox: list[Notice] = []
        #: Notices before this number are forgotten.
        self.oldest = 1
        self.listeners = 0
        self.callers: list[Caller] = []
        #: Raised by whatever is called next.
        self.fault: Exception | None = None
        #: Everything waits for this…
        self.gate = asyncio.Event()
        self.gate.set()
        #: …and says so here.
        self.held = asyncio.Event()
        #: What holds every queued job.
        self.in_queue: tuple[Blocker, ...] = ()
        self._numbers = count(1)
        self._changed = asyncio.Condition()
        self._modified: list[Job] = []

    # ── for tests ────────────────────────────────────────────────────────────────────────

    async def post(
        self, kind: NoticeKind, job_id: JobId, file: int | None = None, deliveries: int = 0
    ) -> Notice:
        """Write a notice."""
        job = self.jobs[job_id]
        notice = Notice(
            number=next(self._numbers),
            kind=kind,
            owner=job.owner,
            job_id=job_id,
            job=job,
            file=file,
            created=NOW,
            settled=not kind & TERMINAL,
            deliveries=deliveries,
        )
        async with self._changed:
            self.outbox.append(notice)
            self._changed.notify_all()
        return notice

    async def touch(self, job_id: JobId) -> None:
        """Tell listeners that a job changed."""
        async with self._changed:
            self._modified.append(self.jobs[job_id])
            self._changed.notify_all()

    def put(self, job_id: JobId, **changes: Any) -> Job:
        """Change a job behind everybody's back."""
        job = dataclasses.replace(self.jobs[job_id], **changes)
        self.jobs[job_id] = job
        return job

    async def listening(self, number: int) -> None:
        """Wait until so many listen."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.listeners == number)

    # ── JobUseCases ──────────────────────────────────────────────────────────────────────

    async def create(self, caller: Caller, specs: Sequence[JobSpec]) -> tuple[Created, ...]:
        for spec in specs:
            self.handed += [credential.password for credential in spec.credentials]
            self.handed += [header.value for header in spec.headers]
        await self._enter(caller)
        for spec in specs:
            used = self.fingerprints.get(spec.id) if spec.id is not None else None
            if used is not None and used != spec.fingerprint:
                raise Conflict("id_used", f"cannot use id {spec.id} again for another job")
            if spec.start and not spec.files:
                raise Conflict("job_empty", "cannot start a job without files")
        return tuple(self._make(caller, spec) for spec in specs)

    async def get(self, caller: Caller, job_id: JobId) -> Job:
        await self._enter(caller)
        return self._job(caller, job_id)

    async def page(
        self,
        caller: Caller,
        *,
        states: frozenset[JobState] | None,
        all_users: bool,
        after: int,
        limit: int,
    ) -> JobPage:
        await self._enter(caller)
        if all_users and not caller.admin:
            raise NotAllowed("not_allowed", "cannot list everybody's jobs; you are no admin")
        numbered = [
            (number, job)
            for number, job in enumerate(self.jobs.values(), start=1)
            if number > after
            and (all_users or job.owner == caller.uid)
            and (states is None or job.state in states)
        ]
        page = numbered[:limit]
        return JobPage(
            jobs=tuple(job for _, job in page),
            next=page[-1][0] if len(numbered) > limit else None,
        )

    async def change(
        self, caller: Caller, job_id: JobId, change: Callable[[Settings], Settings]
    ) -> Job:
        await self._enter(caller)
        job = self._job(caller, job_id)
        return self.put(job_id, settings=change(job.settings))

    async def files(self, caller: Caller, job_id: JobId, *, after: int, limit: int) -> FilePage:
        await self._enter(caller)
        self._job(caller, job_id)
        rest = [file for file in self.files_of[job_id] if file.index > after]
        page = rest[:limit]
        return FilePage(
            files=tuple(page), next=page[-1].index if page and len(rest) > limit else None
        )

    async def add_files(
        self, caller: Caller, job_id: JobId, specs: Sequence[FileSpec]
    ) -> tuple[File, ...]:
        await self._enter(caller)
        self._job(caller, job_id)
        files = self.files_of[job_id]
        taken = {file.spec.local for file in files}
        if any(spec.local in taken for spec in specs):
            raise Conflict("duplicate_destination", "cannot put two files at one path")
        added = [File(index=len(files) + index, spec=spec) for index, spec in enumerate(specs)]
        files.extend(added)
        self.put(job_id, files_total=len(files))
        return tuple(added)

    async def set_credential(self, caller: Caller, job_id: JobId, credential: Credential) -> Job:
        self.handed.append(credential.password)
        await self._enter(caller)
        job = self._job(caller, job_id)
        self._seal(job_id, credential)
        kept = [label for label in job.credentials if not _same(label, credential)]
        return self.put(job_id, credentials=(*kept, credential.label))

    async def remove_credential(
        self, caller: Caller, job_id: JobId, target: Target, scheme: Scheme
    ) -> Job:
        await self._enter(caller)
        job = self._job(caller, job_id)
        if self.passwords.pop((job_id, target, scheme), None) is None:
            raise NotFound("credential_not_found", f"there is no {scheme} credential for {target}")
        kept = [
            label for label in job.credentials if (label.target, label.scheme) != (target, scheme)
        ]
        return self.put(job_id, credentials=tuple(kept))

    async def resume(self, caller: Caller, job_id: JobId) -> Job:
        return await self._move(caller, job_id, JobEvent.RESUME)

    async def suspend(self, caller: Caller, job_id: JobId) -> Job:
        return await self._move(caller, job_id, JobEvent.SUSPEND)

    async def complete(self, caller: Caller, job_id: JobId) -> Job:
        return await self._move(caller, job_id, JobEvent.COMPLETE)

    async def cancel(self, caller: Caller, job_id: JobId) -> Job:
        return await self._move(caller, job_id, JobEvent.CANCEL)

    async def take_ownership(self, caller: Caller, job_id: JobId) -> Job:
        await self._enter(caller)
        job = self._job(caller, job_id)
        if not caller.admin:
            raise NotAllowed("not_allowed", "cannot take ownership of jobs: only an admin can")
        if job.owner == caller.uid:
            return job
        settings = stripped(job.settings)
        return self.put(job_id, owner=caller.uid, settings=settings, credentials=())

    async def why(self, caller: Caller, job_id: JobId) -> tuple[Blocker, ...]:
        await self._enter(caller)
        return self.blockers(self._job(caller, job_id))

    def blockers(self, job: Job) -> tuple[Blocker, ...]:
        if job.state is JobState.QUEUED:
            return self.in_queue
        if job.state is not JobState.SUSPENDED:
            return ()
        return (
            Blocker(
                code="suspended", text="It is paused.", since=NOW, until=None, remedy="Resume it."
            ),
        )

    async def counts(self) -> Mapping[JobState, int]:
        await self._enter(None)
        return Counter(job.state for job in self.jobs.values())

    async def tally(self, caller: Caller) -> Mapping[JobState, int]:
        await self._enter(caller)
        return Counter(job.state for job in self.jobs.values() if job.owner == caller.uid)

    @property
    def worker_count(self) -> int:
        return 1

    def workers_of(self, caller: Caller) -> int:
        return int(any(job.owner == caller.uid for job in self.jobs.values()))

    # ── NoticeUseCases ───────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def subscribe(
        self,
        caller: Caller,
        *,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        all_users: bool = False,
    ) -> AsyncIterator[AsyncIterator[Page]]:
        await self._enter(None)
        if all_users and not caller.admin:
            raise NotAllowed("not_allowed", "cannot listen to everybody's jobs; you are no admin")
        events = self._events(job_id, kinds, after, len(self._modified), list(self.outbox))
        await self._listen(+1)
        try:
            async with aclosing(events):
                yield events
        finally:
            await self._listen(-1)

    async def _events(
        self,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        modified: int,
        outbox: list[Notice],
    ) -> AsyncGenerator[Page, None]:
        cursor = outbox[-1].number if after is None and outbox else after or 0
        for notice in outbox:
            if not notice.settled and notice.kind & kinds and notice.number <= cursor:
                yield [notice]
        if after is not None and after + 1 < self.oldest:
            yield [Gap(after=after, oldest=self.oldest)]
        while True:
            for notice in list(self.outbox):
                wanted = notice.kind & kinds and job_id in (None, notice.job_id)
                if wanted and notice.number >= self.oldest and notice.number > cursor:
                    cursor = notice.number
                    yield [notice]
            if kinds & NoticeKind.MODIFICATION:
                for job in self._modified[modified:]:
                    yield [Modified(job=job)]
            modified = len(self._modified)
            async with self._changed:
                await self._changed.wait_for(partial(self._has_news, cursor, modified))

    async def acknowledge(self, caller: Caller, number: int) -> Notice:
        await self._enter(caller)
        for index, notice in enumerate(self.outbox):
            if notice.number == number and caller.may_see(notice.owner):
                self.outbox[index] = dataclasses.replace(notice, settled=True)
                return self.outbox[index]
        raise NotFound("notice_not_found", f"there is no notice {number}")

    async def acknowledge_all(
        self, caller: Caller, numbers: Sequence[int]
    ) -> Mapping[int, CallerError]:
        refused: dict[int, CallerError] = {}
        for number in numbers:
            try:
                await self.acknowledge(caller, number)
            except CallerError as error:
                refused[number] = error
        return refused

    # ── within ───────────────────────────────────────────────────────────────────────────

    async def _enter(self, caller: Caller | None) -> None:
        if not self.gate.is_set():
            self.held.set()
            await self.gate.wait()
        if caller is not None:
            self.callers.append(caller)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def _has_news(self, cursor: int, modified: int) -> bool:
        news = bool(self.outbox) and self.outbox[-1].number > cursor
        return news or len(self._modified) > modified

    async def _listen(self, change: int) -> None:
        async with self._changed:
            self.listeners += change
            self._changed.notify_all()

    def _job(self, caller: Caller, job_id: JobId) -> Job:
        job = self.jobs.get(job_id)
        if job is None or not caller.may_see(job.owner):
            raise NotFound("job_not_found", f"there is no job {job_id}")
        return job

    def _make(self, caller: Caller, spec: JobSpec) -> Created:
        if spec.id is not None and spec.id in self.jobs:
            return Created(job=self.jobs[spec.id], new=False)
        job_id = spec.id or JobId(str(uuid4()))
        self.fingerprints[job_id] = spec.fingerprint
        self.files_of[job_id] = [
            File(index=index, spec=file) for index, file in enumerate(spec.files)
        ]
        for credential in spec.credentials:
            self._seal(job_id, credential)
        for header in spec.headers:
            self.header_values[job_id, header.name] = header.value.reveal()
        self.jobs[job_id] = Job(
            id=job_id,
            owner=caller.uid,
            type=spec.type,
            settings=spec.settings,
            state=JobState.QUEUED if spec.start else JobState.SUSPENDED,
            files_total=len(spec.files),
            files_transferred=0,
            bytes_total=None,
            bytes_transferred=0,
            credentials=tuple(credential.label for credential in spec.credentials),
            error=None,
            error_count=0,
            created=NOW,
            modified=NOW,
            transferred_at=None,
        )
        return Created(job=self.jobs[job_id], new=True)

    def _seal(self, job_id: JobId, credential: Credential) -> None:
        slot = (job_id, credential.target, credential.scheme)
        self.passwords[slot] = credential.password.reveal()

    async def _move(self, caller: Caller, job_id: JobId, event: JobEvent) -> Job:
        await self._enter(caller)
        job = self._job(caller, job_id)
        if event is JobEvent.RESUME and not job.files_total:
            raise Conflict("job_empty", "cannot start a job without files")
        moved = self.put(job_id, state=advance(job.state, event))
        if moved.state.final:
            del self.jobs[job_id]
        return moved


def _same(label: CredentialLabel, credential: Credential) -> bool:
    return (label.target, label.scheme) == (credential.target, credential.scheme)
