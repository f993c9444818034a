"""Real servers that each ask for one scheme, and somebody with jobs there who may be two people."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import transferd
from tests.support.apache_gssapi import NTLM_ODD_USER
from tests.support.front import Front
from tests.support.origin import Document, Version
from tests.support.owner import Machine
from tests.support.passport import KIM, Passport, passport_servers
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server
from transferd import Job, JobFailed, Manager, Scheme, Target
from transferd.client.options import JobOptions

#: The file.
BODY = os.urandom(500_000)
#: Where a body is held.
SOME = 300_000
PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A real server that asks for a scheme, and the two who may enter."""

    scheme: Scheme
    #: Of the Apache that knows every scheme; None: the servers of Passport.
    place: str | None
    user: str = USER
    other: str = ODD_USER
    #: What spoke inside the scheme, as the log tells it.
    mechanism: str = "null"

    def __str__(self) -> str:
        return str(self.scheme)


BASIC = Spot(scheme=Scheme.BASIC, place="every")
DIGEST = Spot(scheme=Scheme.DIGEST, place="every")
NTLM = Spot(scheme=Scheme.NTLM, place="ntlm", other=NTLM_ODD_USER)
NEGOTIATE = Spot(scheme=Scheme.NEGOTIATE, place="kerberos", mechanism="kerberos")
PASSPORT = Spot(scheme=Scheme.PASSPORT, place=None, user=KIM, other=KIM)
SPOTS = (BASIC, DIGEST, NTLM, NEGOTIATE, PASSPORT)


@dataclass(kw_only=True)
class Visitor:
    """Somebody with jobs at a spot, which is held open for one test."""

    spot: Spot
    machine: Machine
    manager: Manager
    front: Front
    url: str
    directory: Path
    passport: Passport | None
    jobs: list[Job] = field(default_factory=list)

    async def make(self, user: str | None, password: str | None) -> Job:
        """Make a job with a credential and one file."""
        options = JobOptions(priority="foreground", proxy="direct")
        if self.passport is not None:
            options["passport"] = self.passport.options
        job = await self.manager.create_job("life", **options)
        self.jobs.append(job)
        await job.set_credentials(Target.SERVER, self.spot.scheme, user, password)
        await self.add(job)
        return job

    async def add(self, job: Job) -> None:
        """Add the file to a job once more."""
        files = [file async for file in job.files()]
        await job.add_file(self.url, self.directory / f"{len(self.jobs)}-{len(files)}")

    async def be(self, job: Job, user: str) -> None:
        """Let a job be another user from now on."""
        if self.passport is not None:
            self.passport.login.password = ODD_PASSWORD
        await job.set_credentials(Target.SERVER, self.spot.scheme, user, ODD_PASSWORD)

    async def fail(self, job: Job) -> transferd.ErrorAnswer:
        """Wait until a job is in error."""
        with pytest.raises(JobFailed) as caught:
            await job.wait(PATIENCE)
        assert caught.value.error is not None
        return caught.value.error

    async def finish(self, job: Job) -> None:
        """Wait until a job is transferred, complete it, and compare its files."""
        await job.wait(PATIENCE)
        names = [Path(file.local) async for file in job.files()]
        await job.complete()
        self.jobs.remove(job)
        assert all(name.read_bytes() == BODY for name in names)

    def admitted(self, start: int = 0) -> list[str]:
        """Who was given something, by what the server says, or by the login server's record."""
        if self.passport is not None:
            return [given["sign-in"] for given in self.passport.login.sign_ins[start:]]
        served = (visit for visit in self.front.visits[start:] if visit.status < 300)
        return [visit.user or "nobody" for visit in served]

    def audits(self, job: Job) -> list[tuple[str, dict[str, str]]]:
        """What the log says of the job's credentials."""
        return audits(self.machine.logged(), job.id)


def audits(log: str, job_id: str) -> list[tuple[str, dict[str, str]]]:
    """Find the records of credentials of a job: what happened, and the fields."""
    found = re.findall(r" auth\.(\w+) (.*)", log)
    records = [(what, dict(re.findall(r'(\w+)=("[^"]*"|\S*)', rest))) for what, rest in found]
    return [(what, fields) for what, fields in records if fields.pop("job") == job_id]


@contextlib.asynccontextmanager
async def visiting(
    spot: Spot, machine: Machine, request: pytest.FixtureRequest, directory: Path
) -> AsyncIterator[Visitor]:
    """Open a spot."""
    async with contextlib.AsyncExitStack() as stack:
        passport: Passport | None = None
        if spot.place is None:
            page = Document(version=Version(body=BODY))
            passport = await stack.enter_async_context(passport_servers(page, PASSWORD))
            port, path = passport.partner_origin.port, "/kit/app.bin"
        else:
            server: Server = request.getfixturevalue("apache_gssapi")
            port, path = server.port, f"/{spot.place}{server.put(BODY)}"
        front = Front(server=port)
        origin = await stack.enter_async_context(front.running(path))
        manager = await stack.enter_async_context(transferd.connect(machine.socket))
        visitor = Visitor(
            spot=spot,
            machine=machine,
            manager=manager,
            front=front,
            # Kerberos has no service by an address.
            url=origin.url(path).replace("127.0.0.1", "localhost"),
            directory=directory,
            passport=passport,
        )
        yield visitor
        for job in visitor.jobs:
            await job.cancel()
