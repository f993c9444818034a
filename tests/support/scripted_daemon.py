"""The real API server over a service that says what a test tells it to; it can be restarted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.api import ANSWERS, TIMERS
from tests.support.fake_administration import FakeAdministration
from tests.support.fake_service import FakeService
from transferd.api.server import ApiServer
from transferd.client.job import Job
from transferd.model.caller import Caller
from transferd.model.errors import CallerError, Unavailable
from transferd.model.failures import Failure
from transferd.model.job import JobId
from transferd.model.limits import Limits
from transferd.model.notices import Event, Notice, NoticeKind, Page
from transferd.model.states import JobState
from transferd.service.figures import Figures


@dataclass(eq=False)
class Ear:
    """One listener."""

    job_id: JobId | None
    kinds: NoticeKind
    after: int | None
    queue: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def wants(self, kind: NoticeKind, job_id: JobId) -> bool:
        return bool(kind & self.kinds) and self.job_id in (None, job_id)

    async def events(self) -> AsyncIterator[Page]:
        while True:
            yield [await self.queue.get()]


class ScriptedService(FakeService):
    """Tells listeners what a test says, when it says it."""

    def __init__(self) -> None:
        super().__init__()
        self.ears: list[Ear] = []
        #: Every listener that there ever was.
        self.heard_by: list[Ear] = []
        self.acknowledged: list[int] = []
        #: Those of each request.
        self.together: list[Sequence[int]] = []
        #: So many acknowledgements are refused before one is taken.
        self.lose_acknowledgements = 0
        self._acknowledgement = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def subscribe(
        self,
        caller: Caller,
        *,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        all_users: bool = False,
    ) -> AsyncIterator[AsyncIterator[Page]]:
        ear = Ear(job_id, kinds, after)
        for notice in self.outbox:
            owed = not notice.settled
            replayed = after is not None and notice.number > after
            if (owed or replayed) and ear.wants(notice.kind, notice.job_id):
                ear.queue.put_nowait(notice)
        self.ears.append(ear)
        self.heard_by.append(ear)
        await self._listen(+1)
        try:
            yield ear.events()
        finally:
            self.ears.remove(ear)
            await self._listen(-1)

    async def acknowledge(self, caller: Caller, number: int) -> Notice:
        if self.lose_acknowledgements:
            self.lose_acknowledgements -= 1
            raise Unavailable("going_down", "cannot acknowledge that now")
        notice = await super().acknowledge(caller, number)
        async with self._acknowledgement:
            self.acknowledged.append(number)
            self._acknowledgement.notify_all()
        return notice

    async def acknowledge_all(
        self, caller: Caller, numbers: Sequence[int]
    ) -> Mapping[int, CallerError]:
        self.together.append(numbers)
        return await super().acknowledge_all(caller, numbers)

    async def acknowledgements(self, count: int) -> list[int]:
        """Wait until so many acknowledgements have come; returns their numbers."""
        async with self._acknowledgement:
            await self._acknowledgement.wait_for(lambda: len(self.acknowledged) >= count)
        return self.acknowledged

    def tell(self, event: Event, kind: NoticeKind, job_id: str) -> None:
        """Say something to whoever wants to hear it."""
        for ear in self.ears:
            if ear.wants(kind, JobId(job_id)):
                ear.queue.put_nowait(event)

    async def happen(self, job: Job, kind: NoticeKind, state: JobState, **changes: Any) -> Notice:
        """Let a job get into a state, and tell of it."""
        job_id = JobId(job.id)
        self.put(job_id, state=state, **changes)
        notice = await self.post(kind, job_id)
        if state.final:
            del self.jobs[job_id]
        self.tell(notice, kind, job_id)
        return notice

    async def transfer(self, job: Job) -> Notice:
        """Let a job be transferred."""
        return await self.happen(job, NoticeKind.TRANSFERRED, JobState.TRANSFERRED)

    async def fail(self, job: Job) -> Notice:
        """Let a job fail."""
        failure = Failure(code="http_404", message="the server has no such file", http_status=404)
        return await self.happen(job, NoticeKind.ERROR, JobState.ERROR, error=failure)

    def again(self, notice: Notice) -> None:
        """Deliver a notice once more."""
        self.tell(notice, notice.kind, notice.job_id)


class ScriptedDaemon:
    """A socket, and the server behind it at the moment, if any."""

    def __init__(self, path: Path, heartbeat: float = 15.0, admin_gid: int | None = None) -> None:
        self.path = path
        self.service = ScriptedService()
        #: Whether it works for whoever calls.
        self.serves = True
        self._heartbeat = heartbeat
        self._admin_gid = admin_gid
        self._server: ApiServer | None = None

    async def start(self) -> None:
        """Serve; the service remembers what it knew."""
        self._server = ApiServer(
            jobs=self.service,
            notices=self.service,
            admin=FakeAdministration(),
            meter=Figures(),
            answers=ANSWERS,
            limits=Limits(),
            timers=TIMERS,
            serves=lambda uid: self.serves,
            admin_gid=self._admin_gid,
            heartbeat=self._heartbeat,
        )
        self.path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        await self._server.start(listening)

    async def stop(self) -> None:
        """End all streams and the server."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
            self.path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def scripted_daemon(
    heartbeat: float = 15.0, admin_gid: int | None = None
) -> AsyncIterator[ScriptedDaemon]:
    """Run a daemon until the end of the block; members of *admin_gid* are admins."""
    with tempfile.TemporaryDirectory(prefix="transferd-") as directory:
        daemon = ScriptedDaemon(Path(directory, "socket"), heartbeat, admin_gid)
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.stop()
