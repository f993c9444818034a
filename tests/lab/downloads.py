"""Background downloads: transferd's jobs by priority, and what people use in its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol
from uuid import uuid4

from tests.bench.client import Client, job
from tests.bench.measure import exact_cpu_seconds
from tests.bench.stage import CHECKOUT, STAYS, Subject, daemon_in
from tests.bench.tools import ONE_FILE, ONE_FILE_TLS
from tests.lab.programs import running
from tests.lab.scene import Scene
from tests.lab.topology import Role, until_parent_ends
from tests.support.people import Person, people
from tests.support.system_service import SystemService

#: Tool → priority of the job.
PRIORITIES = {f"transferd-{level}": level for level in ("high", "normal", "low")}
#: Told to leave half of the link.
_LIMITED = " --limit-rate {half}"
_PROGRAMS = {**ONE_FILE, "curl-limit": ONE_FILE["curl"] + _LIMITED}
_PROGRAMS_TLS = {**ONE_FILE_TLS, "curl-limit": ONE_FILE_TLS["curl"] + _LIMITED}
TOOLS = (*PRIORITIES, *_PROGRAMS)
#: All of them heed it.
_PROXIED = "env http_proxy={proxy} "


class Download(Protocol):
    """Something that downloads the long file until it is told to stop."""

    async def start(self, role: Role) -> None:
        """Begin one more download, from the address of that role."""
        ...

    async def stop(self) -> None:
        """End all of them."""
        ...


class ProgramDownload:
    """A process for each download."""

    def __init__(self, scene: Scene, template: str) -> None:
        self._scene = scene
        self._template = template
        self._running = contextlib.ExitStack()

    async def start(self, role: Role) -> None:
        """See Download.start."""
        scene, name = self._scene, role.interface
        words = {
            "url": scene.site.long(role),
            "place": str(scene.directory / name),
            "directory": str(scene.directory),
            "name": name,
            "cacert": scene.site.cacert,
            "half": str(int(scene.link.capacity / 2)),
            "proxy": scene.proxy or "",
        }
        log = scene.directory / f"{name}.log"
        process = running(scene.topology.client, self._template, words, log)
        self._running.enter_context(process)

    async def stop(self) -> None:
        """See Download.stop."""
        self._running.close()


class JobDownload:
    """A job of a running daemon for each download."""

    def __init__(self, scene: Scene, subject: Subject, priority: str) -> None:
        self._scene = scene
        self._subject = subject
        self._priority = priority
        self._jobs: list[str] = []

    async def start(self, role: Role, priority: str | None = None) -> None:
        """See Download.start."""
        wish = job(
            [(self._scene.site.long(role), self._scene.directory / role.interface)],
            id=str(uuid4()),
            priority=priority or self._priority,
            **_options(self._scene),
        )
        await self._subject.client.create([wish])
        self._jobs.append(str(wish.id))

    async def stop(self) -> None:
        """See Download.stop."""
        while self._jobs:
            await self._subject.client.act(self._jobs.pop(), "cancel")

    async def says(self, code: str) -> bool:
        """Ask whether a job says that this holds it."""
        return any([code in await self._subject.client.why(job) for job in self._jobs])

    @property
    def worker_seconds(self) -> float:
        """CPU that the worker has used."""
        return sum(exact_cpu_seconds(pid) for pid in self._subject.daemon.workers())


class OwnersDownload:
    """A job of another owner of a system's daemon for each download."""

    def __init__(self, scene: Scene, service: SystemService, priority: str) -> None:
        self._scene = scene
        self._service = service
        self._priority = priority
        self._jobs: list[tuple[Person, str]] = []

    async def start(self, role: Role) -> None:
        """See Download.start."""
        machine = self._service.machine
        person = machine.bob if role is Role.SECOND else machine.alice
        url, place = self._scene.site.long(role), str(person.home / "long")
        words = ("get", url, place, "--detach", "--priority", self._priority)
        made = await asyncio.to_thread(self._service.client(person).json, *words)
        self._jobs.append((person, made["job"]["id"]))

    async def stop(self) -> None:
        """See Download.stop."""
        while self._jobs:
            person, job_id = self._jobs.pop()
            await asyncio.to_thread(self._service.client(person).json, "cancel", job_id)


@contextlib.asynccontextmanager
async def download(tool: str, scene: Scene) -> AsyncIterator[Download]:
    """Make a tool ready."""
    if tool in PRIORITIES:
        async with _jobs(scene, PRIORITIES[tool]) as jobs:
            yield jobs
        return
    templates = _PROGRAMS_TLS if scene.site.tls else _PROGRAMS
    before = _PROXIED if scene.proxy else ""
    program = ProgramDownload(scene, before + templates[tool])
    try:
        yield program
    finally:
        await program.stop()


@contextlib.asynccontextmanager
async def owners(tool: str, scene: Scene) -> AsyncIterator[Download]:
    """Make a daemon for several users ready."""
    path = f"[worker]\nenvironment = {{ PYTHONPATH = '{CHECKOUT}' }}\n"
    with people() as machine:
        service = SystemService(machine, path, network=scene.topology.client)
        with service.start(before=[*until_parent_ends(), "env", f"PYTHONPATH={CHECKOUT}"]):
            yield OwnersDownload(scene, service, PRIORITIES[tool])


@contextlib.asynccontextmanager
async def _jobs(scene: Scene, priority: str) -> AsyncIterator[JobDownload]:
    directory = scene.directory / "daemon"
    directory.mkdir()
    with daemon_in(directory, STAYS) as daemon:
        daemon.start(before=[*until_parent_ends(), *scene.topology.client.command])
        async with Client.open(daemon.socket) as client:
            subject = Subject(daemon, client, _options(scene))
            await subject.warm_up(scene.site.short(Role.BACKGROUND), scene.directory)
            yield JobDownload(scene, subject, priority)


def _options(scene: Scene) -> dict[str, str]:
    options = {"cacert": scene.site.cacert} if scene.site.tls else {}
    return options | ({"proxy": scene.proxy} if scene.proxy else {})
