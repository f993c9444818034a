"""The owner of jobs that fetch a file from a site; works with a daemon that other tests share."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess
from tests.support.kdc import Kdc
from tests.support.sites import BODY, Place
from transferd import (
    ErrorAnswer,
    FileBody,
    Job,
    JobAnswer,
    JobFailed,
    JobState,
    Manager,
    NoticeAnswer,
    Target,
)
from transferd.client.options import JobOptions

PATIENCE = 30.0


class Machine(DaemonProcess):
    """A daemon on a machine of a Kerberos realm."""

    def __init__(self, directory: Path, kdc: Kdc) -> None:
        super().__init__(directory)
        #: The ticket cache of the owner of all jobs.
        self.ccache = directory / "ccache"
        self._variables = kdc.environment(ccache=self.ccache)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a client, and for the daemon."""
        return super().environment | self._variables

    def durable(self, job: Job) -> int:
        """How many bytes of a job would survive, by the queue file."""
        uri = f"file:{self.state / 'queue.db'}?mode=ro"
        statement = "SELECT bytes_transferred FROM jobs WHERE id = ?"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            (found,) = connection.execute(statement, (job.id,)).fetchone()
        return int(found or 0)


@dataclass(kw_only=True)
class Owner:
    """Somebody who wants the file of a place."""

    machine: Machine
    manager: Manager
    place: Place
    directory: Path
    jobs: list[Job] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    async def make(
        self,
        user: str | None,
        password: str | None,
        *,
        url: str | None = None,
    ) -> Job:
        """Make a job with a credential and one file, suspended."""
        options = JobOptions(streams=1)
        options.update(self.place.options)
        job = await self.manager.create_job("matrix", **options)
        self.jobs.append(job)
        await job.set_credentials(Target.SERVER, self.place.site.scheme, user, password)
        await self.add(job, url)
        return job

    async def make_right(self, *, url: str | None = None) -> Job:
        """Make a job with the right credential."""
        return await self.make(self.place.site.user, self.place.site.password, url=url)

    async def add(self, job: Job, url: str | None = None, *, count: int = 1) -> None:
        """Add files to a job."""
        names = [self.directory / str(next(self._names)) for _ in range(count)]
        await job.add_files(
            [FileBody(remote=url or self.place.url, local=str(name)) for name in names]
        )

    async def fetch(self, job: Job) -> JobAnswer:
        """Let a job run to its end, as `finish`."""
        await job.resume()
        return await self.finish(job)

    async def finish(self, job: Job) -> JobAnswer:
        """Wait for a job that runs, complete it, and compare its files; returns its last view."""
        await job.wait(PATIENCE)
        places = [Path(file.local) async for file in job.files()]
        answer = await job.complete()
        self.jobs.remove(job)
        assert [place.read_bytes() for place in places] == [BODY] * len(places)
        return answer

    async def fail(self, job: Job) -> ErrorAnswer:
        """Let a job run into an error, and return that."""
        await job.resume()
        with pytest.raises(JobFailed) as caught:
            await job.wait(PATIENCE)
        error = caught.value.error
        assert error is not None
        return error

    async def stumble(self, job: Job) -> ErrorAnswer:
        """Let a job run into an error after which it will be tried again, and return that."""
        await job.resume()
        async for event in self.manager.events(job=job.id, kinds=["modification"], after=0):
            assert isinstance(event, NoticeAnswer)
            answer = await job.refresh()
            assert job.state is not JobState.ERROR, answer.error
            if job.state is JobState.TRANSIENT_ERROR:
                break
        assert job.error is not None
        return job.error

    async def remedy(self, job: Job) -> str:
        """What would help a job."""
        (blocker,) = await job.why()
        return blocker.remedy

    async def leave(self) -> None:
        """Cancel what is left."""
        for job in self.jobs:
            await job.cancel()


async def reach(machine: Machine, manager: Manager, job: Job, size: int) -> None:
    """Wait until so many bytes of a job are durable."""
    async for event in manager.events(job=job.id, kinds=["modification"], after=0):
        assert isinstance(event, NoticeAnswer)
        if machine.durable(job) == size:
            return
