"""The door of the client: find the daemon, make jobs, find jobs, hear what happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack
from uuid import uuid4

import msgspec

from transferd.client.acknowledger import Acknowledger
from transferd.client.callbacks import CALLBACKS_AT_ONCE, Listener
from transferd.client.connection import Connection, path
from transferd.client.crew import Crew
from transferd.client.job import Job
from transferd.client.options import JobOptions, fields_of, resolved
from transferd.client.sockets import locate
from transferd.client.stream import Interest, Pulse, hear
from transferd.model.choices import NoticeKind, parse_kinds
from transferd.model.states import JobState
from transferd.model.units import Seconds
from transferd.wire.admin import CheckAnswer, RotationAnswer, StatusAnswer
from transferd.wire.api import (
    GapAnswer,
    HealthAnswer,
    JobAnswer,
    JobsAnswer,
    NoticeAnswer,
    VersionAnswer,
)
from transferd.wire.bodies import JobBody

#: How long the end of a Manager waits for callbacks that run; then they are cancelled, and what
#: they were told comes again.
CLOSING_GRACE: Seconds = 5.0


class _JobBodies(msgspec.Struct):
    jobs: list[JobBody]


class _JobAnswers(msgspec.Struct):
    jobs: list[JobAnswer]


class Manager:
    """Everything that one user can do with the daemon; `connect` makes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._crew = Crew()
        self._acknowledger = Acknowledger(connection, self._crew)
        self._slots = asyncio.Semaphore(CALLBACKS_AT_ONCE)
        self._listeners: list[Listener] = []

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self._rest()
        finally:
            await self._crew.close()
            await self._connection.__aexit__(kind, error, trace)

    @property
    def socket(self) -> Path:
        """Where the daemon answers."""
        return self._connection.socket

    async def create_job(self, name: str, **options: Unpack[JobOptions]) -> Job:
        """Make a job. It is suspended and empty unless the options say otherwise.

        Raises:
            CallerError: the daemon refuses it; nothing is made then.
        """
        body = _named(resolved(JobBody(**fields_of({**options, "name": name}))))
        # Its id makes the same job of the same request, however often that comes.
        answer = await self._connection.call(
            "POST", path("jobs"), body, answer=JobAnswer, repeatable=True
        )
        return self._job(answer)

    async def create_jobs(self, bodies: Iterable[JobBody]) -> list[Job]:
        """Make many jobs, all or none, in one request."""
        body = _JobBodies(jobs=[_named(resolved(body)) for body in bodies])
        answer = await self._connection.call(
            "POST", path("jobs"), body, answer=_JobAnswers, repeatable=True
        )
        return [self._job(job) for job in answer.jobs]

    async def job(self, job_id: str) -> Job:
        """Find a job by its id.

        Raises:
            NotFound: there is none in the queue that the caller may see.
        """
        answer = await self._connection.call("GET", path("jobs", job_id), answer=JobAnswer)
        return self._job(answer)

    async def jobs(
        self, *, state: JobState | Sequence[JobState] | None = None, all_users: bool = False
    ) -> AsyncIterator[Job]:
        """Yield the jobs in the queue, oldest first.

        Raises:
            NotAllowed: all_users without being an admin.
        """
        states = [state] if isinstance(state, JobState) else state
        params: dict[str, str] = {}
        if states is not None:
            params["state"] = ",".join(state.label for state in states)
        if all_users:
            params["all_users"] = "true"
        while True:
            page = await self._connection.call(
                "GET", path("jobs"), params=params, answer=JobsAnswer
            )
            for answer in page.jobs:
                yield self._job(answer)
            if page.next is None:
                return
            params["after"] = page.next

    async def events(
        self,
        *,
        job: str | None = None,
        kinds: Iterable[str] | None = None,
        after: int | None = None,
        all_users: bool = False,
        patience: Seconds | None = None,
    ) -> AsyncGenerator[NoticeAnswer | GapAnswer, None]:
        """Yield what happens to the caller's jobs, for ever, across restarts of the daemon.

        Terminal notices come again until somebody acknowledges them. A GapAnswer says that some
        notices are not kept any more: look at the jobs then.

        Args:
            job: Only of this job.
            kinds: Names of kinds; None: all.
            after: Replay what was noted after this number; None: from now on.
            all_users: Of everybody's jobs, for admins; this counts as no delivery to anybody.
            patience: Give up with NoDaemon after so many seconds without a daemon; None: never.
        """
        everything = [kind.label for kind in NoticeKind]
        wanted = parse_kinds(everything if kinds is None else kinds)
        interest = Interest(job=job, kinds=wanted, after=after, all_users=all_users)
        async with aclosing(hear(self._connection, interest, patience=patience)) as heard:
            async for event in heard:
                if not isinstance(event, Pulse):
                    yield event

    async def acknowledge(self, *numbers: int) -> None:
        """Say that notices were dealt with; they do not come again. Twice is no error.

        Raises:
            NotFound: there is no such notice (any more); of several, the others are acknowledged.
        """
        await self._acknowledger.acknowledge(numbers)

    async def version(self) -> VersionAnswer:
        """Say what the daemon is and can do."""
        return await self._connection.call("GET", path("version"), answer=VersionAnswer)

    async def health(self) -> HealthAnswer:
        """Say how the daemon is."""
        return await self._connection.call("GET", path("health"), answer=HealthAnswer)

    async def admin_status(self) -> StatusAnswer:
        """Say how the service is, user by user.

        Raises:
            NotAllowed: the caller is no operator.
        """
        return await self._connection.call("GET", path("admin", "status"), answer=StatusAnswer)

    async def admin_check(self) -> CheckAnswer:
        """Have the service look for what is wrong; it changes nothing.

        Raises:
            NotAllowed: the caller is no operator.
        """
        return await self._connection.call("POST", path("admin", "check"), answer=CheckAnswer)

    async def admin_rotate_key(self) -> RotationAnswer:
        """Have every stored secret sealed under a new key.

        Raises:
            NotAllowed: the caller is no operator.
            Conflict: `key_not_ours`, the service manager has the key; `rotation_running`.
        """
        where = path("admin", "rotate-key")
        return await self._connection.call("POST", where, answer=RotationAnswer)

    def _job(self, answer: JobAnswer) -> Job:
        return Job(self._connection, answer, self._listener)

    def _listener(self, job: Job) -> Listener:
        listener = Listener(job, self._connection, self._crew, self._slots, self._acknowledger)
        self._listeners.append(listener)
        return listener

    async def _rest(self) -> None:
        """Let callbacks end that run at the moment."""
        for listener in self._listeners:
            await listener.stop_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_GRACE):
                for listener in self._listeners:
                    await listener.idle()


def _named(body: JobBody) -> JobBody:
    """Return a request with an id: so it can be repeated."""
    return body if body.id is not None else msgspec.structs.replace(body, id=str(uuid4()))


@contextlib.asynccontextmanager
async def connect(
    socket: str | os.PathLike[str] | None = None, start: bool = False
) -> AsyncIterator[Manager]:
    """Find the daemon and talk to it.

    Args:
        socket: Where it answers. None: `$TRANSFERD_SOCKET`, or else the user's own daemon, or else
            the system's; the first that answers.
        start: Start a daemon of the user's own if none of them answers, now or later; it leaves
            by itself when its queue has been empty for a while.

    Raises:
        NoDaemon: nobody answers; says where it was tried and why not.
    """
    given = None if socket is None else Path(socket)
    find = partial(locate, given, os.environ, start=start)
    async with Manager(Connection(await find(), find if start else None)) as manager:
        yield manager
