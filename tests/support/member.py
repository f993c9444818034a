"""A machine of a realm with its daemon, an owner of jobs there, and a KDC that may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import transferd
from tests.support.daemon import CONFIG, DaemonProcess
from tests.support.streams import Stream, join, listening
from transferd import FileBody, Job, JobState, Manager, NoticeAnswer, Scheme, Target
from transferd.client.options import JobOptions

_PATIENCE_SECONDS = 30.0
#: Root reads every file, but for root without these.
_NO_PRIVILEGE = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")


class Member(DaemonProcess):
    """A daemon with Kerberos variables in its environment; its worker inherits them.

    For file permissions it is an ordinary user, whoever runs the tests.
    """

    def __init__(
        self,
        directory: Path,
        variables: Mapping[str, str],
        *,
        kerberos_timeout: float = 10.0,
        foreground_slots: int = 64,
    ) -> None:
        text = CONFIG.replace("[queue]", f"[queue]\nforeground_slots = {foreground_slots}")
        text = text.replace(
            "[network]", f"[network]\nkerberos_timeout_seconds = {kerberos_timeout}"
        )
        super().__init__(directory, text)
        self._variables = dict(variables)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a client, and for the daemon."""
        return super().environment | self._variables

    def begin(self) -> Member:
        """Start the daemon."""
        return self.start(before=_NO_PRIVILEGE if os.geteuid() == 0 else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a job does not move, as its owner is told."""

    state: JobState
    code: str
    text: str
    remedy: str


@dataclass
class Person:
    """Somebody with jobs on a machine."""

    manager: Manager
    directory: Path
    jobs: list[Job] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    async def job(
        self,
        *urls: str,
        username: str | None = None,
        password: str | None = None,
        scheme: Scheme | None = Scheme.NEGOTIATE,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Make a job, suspended; without a user he is who he is already."""
        given = JobOptions(priority="foreground", proxy="direct", streams=1)
        given.update(options)
        job = await self.manager.create_job("misery", **given)
        self.jobs.append(job)
        if scheme is not None:
            await job.set_credentials(Target.SERVER, scheme, username, password)
        places = [str(self.directory / str(next(self._names))) for _ in urls]
        await job.add_files(
            [FileBody(remote=url, local=place) for url, place in zip(urls, places, strict=True)]
        )
        return job

    async def trouble(self, job: Job) -> Trouble:
        """Let a job run until it does not, and say why."""
        await job.resume()
        return await self.next_trouble(job)

    async def next_trouble(self, job: Job) -> Trouble:
        """Wait until a job that runs does not, and say why."""
        await self.until(job, JobState.ERROR, JobState.TRANSIENT_ERROR)
        (blocker,) = await job.why()
        assert job.error is not None
        assert (blocker.code, blocker.text) == (job.error.code, job.error.message)
        return Trouble(state=job.state, code=blocker.code, text=blocker.text, remedy=blocker.remedy)

    async def until(self, job: Job, *states: JobState) -> None:
        """Wait until a job is in one of the *states*."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for event in self.manager.events(job=job.id, after=0):
                assert isinstance(event, NoticeAnswer)
                await job.refresh()
                if job.state in states:
                    return

    async def fetched(self, job: Job) -> list[bytes]:
        """Wait until a job is transferred, complete it, and return its files."""
        await job.wait(_PATIENCE_SECONDS)
        places = [Path(file.local) async for file in job.files()]
        await job.complete()
        self.jobs.remove(job)
        return [place.read_bytes() for place in places]

    async def fetch(self, job: Job) -> list[bytes]:
        """Let a job run to its end, as `fetched`."""
        await job.resume()
        return await self.fetched(job)


@contextlib.asynccontextmanager
async def person(member: Member, directory: Path) -> AsyncIterator[Person]:
    """Be somebody on the machine of *member*; what he leaves behind is cancelled."""
    async with transferd.connect(member.socket) as manager:
        somebody = Person(manager, directory)
        yield somebody
        for job in somebody.jobs:
            await job.cancel()


class Gate:
    """A port before a KDC: silent until it is opened, by TCP and for ever by UDP."""

    def __init__(self, kdc_port: int) -> None:
        self.port = 0
        self.open = False
        self._kdc_port = kdc_port
        self._asked = 0
        self._news = asyncio.Condition()

    async def asked(self, times: int) -> None:
        """Wait until somebody has asked so many times."""
        async with asyncio.timeout(_PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: self._asked >= times)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gate]:
        """Listen until the block ends."""
        async with listening(self._relay, backlog=256) as self.port:
            with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
                datagrams.bind(("127.0.0.1", self.port))
                yield self

    async def _relay(self, _: int, client: Stream) -> None:
        async with self._news:
            self._asked += 1
            self._news.notify_all()
        if not self.open:
            await client[0].read()
            return
        kdc = await asyncio.open_connection("127.0.0.1", self._kdc_port)
        try:
            await join(client, kdc)
        finally:
            kdc[1].close()
