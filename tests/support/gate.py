"""A page that asks for Basic and can be in any state, and a job before it."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.origin import Document, Origin, Seen, Wire
from tests.support.owner import Machine
from transferd import Job, JobState, Manager, Scheme, Target

#: Who may pass, with which password.
WHO = {"alice": "al1ce-password", "bob": "b0b-password"}


@dataclass
class Gate:
    """A page that asks for Basic, takes any of WHO, and can be out of order."""

    document: Document
    asks: bool = True
    broken: bool = False
    #: The next request gets no answer.
    mute: bool = False
    #: Who came: user names; None: nobody in particular.
    came: list[str | None] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        name, password = _identity(seen)
        self.came.append(name)
        self.seen.append(seen)
        self.heard.set()
        if self.mute:
            self.mute = False
            await wire.reader.read(1)
            wire.drop()
        elif self.broken:
            await wire.answer(503, body=b"later\n")
        elif self.asks and (name is None or WHO.get(name) != password):
            await wire.answer(401, [("WWW-Authenticate", 'Basic realm="gate"')], b"who?\n")
        else:
            await self.document(seen, wire)


def _identity(seen: Seen) -> tuple[str | None, str | None]:
    value = seen.get("authorization")
    if value is None:
        return None, None
    name, _, password = base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")
    return name, password


@dataclass(kw_only=True)
class Scene:
    """A daemon that carries one job at a time, and one server."""

    machine: Machine
    manager: Manager
    origin: Origin
    gate: Gate
    directory: Path
    jobs: list[Job] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    async def make(self, held: str | None, *, password: str | None = None) -> Job:
        """Make a job for the file behind the gate."""
        job = await self.manager.create_job("life", priority="foreground", proxy="direct")
        self.jobs.append(job)
        await self.add(job, "/file")
        if held is not None:
            await job.set_credentials(Target.SERVER, Scheme.BASIC, held, password or WHO[held])
        # The next try by itself is long after this test.
        await job.change(min_retry_delay=3600)
        return job

    async def add(self, job: Job, path: str) -> None:
        """Add a file to a job."""
        await job.add_file(self.origin.url(path), self.directory / str(next(self._names)))

    async def reach(self, job: Job, state: JobState) -> None:
        """Wait until a job is in a state."""
        async for _ in self.manager.events(job=job.id, kinds=["modification"], after=0):
            await job.refresh()
            if job.state is state:
                return
