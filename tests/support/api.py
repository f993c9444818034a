"""A running API server on a Unix socket, and callers of several kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.fake_administration import FakeAdministration
from tests.support.fake_service import NOW, FakeService
from transferd.api.identity import user_name
from transferd.api.server import ApiServer
from transferd.model.job import Timers
from transferd.model.limits import Limits
from transferd.service.figures import Figures
from transferd.wire.answers import Answers

TIMERS = Timers(min_retry_delay=60.0, no_progress_timeout=3600.0, max_download_time=7200.0)
#: Time stands still; the steady clock does at zero.
ANSWERS = Answers(user_name, lambda steady: NOW + timedelta(seconds=steady))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        return str(self.json["code"])


class Api:
    """A server with its service, and a well-behaved caller."""

    def __init__(
        self, path: Path, server: ApiServer, service: FakeService, admin: FakeAdministration
    ) -> None:
        self.path = path
        self.admin = admin
        self.server = server
        self.service = service
        self.session = aiohttp.ClientSession(
            "http://transferd", connector=aiohttp.UnixConnector(str(path))
        )

    async def send(self, method: str, target: str, body: object = None, **kwargs: Any) -> Reply:
        """Send a request with a JSON body, or none."""
        if body is not None:
            kwargs["json"] = body
        async with self.session.request(method, target, **kwargs) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, **body: object) -> dict[str, Any]:
        """Make a job and return it."""
        reply = await self.send("POST", "/v1/jobs", {"name": "a job", **body})
        assert reply.status == 201, reply.body
        answer: dict[str, Any] = reply.json
        return answer

    async def raw(self, request: bytes, sock: socket.socket | None = None) -> bytes:
        """Write bytes and read until the server closes."""
        if sock is None:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        else:
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        with contextlib.closing(writer):
            writer.write(request)
            return await reader.read()

    async def send_as(self, stranger: Stranger, method: str, target: str) -> Reply:
        """Send a request without a body as somebody else."""
        with stranger.acting():
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self.path))
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await self.raw(head.encode(), sock)
        lines, _, body = answer.partition(b"\r\n\r\n")
        first, *fields = lines.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        return Reply(int(first.split()[1]), headers, body)


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody else than root; only root can act as others, everybody else is already somebody."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def any(cls) -> Stranger:
        """Return somebody with a group beside the first."""
        if os.geteuid() == 0:
            return cls(uid=54321, gid=54322, groups=(54323,))
        return cls(uid=os.geteuid(), gid=os.getegid(), groups=tuple(os.getgroups()))

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Be this one, for the kernel's eyes."""
        if os.geteuid() != 0:
            yield
            return
        before = os.getgroups()
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)


@contextlib.asynccontextmanager
async def running_api(
    *,
    service: FakeService | None = None,
    limits: Limits | None = None,
    serves: Callable[[int], bool] = lambda uid: True,
    admin_gid: int | None = None,
    operator: int | None = None,
    heartbeat: float = 15.0,
    connections: int = 64,
) -> AsyncIterator[Api]:
    """Run a server until the end of the block."""
    service, figures = service or FakeService(), Figures()
    admin = FakeAdministration(figures)
    server = ApiServer(
        jobs=service,
        notices=service,
        admin=admin,
        meter=figures,
        answers=ANSWERS,
        limits=limits or Limits(),
        timers=TIMERS,
        serves=serves,
        admin_gid=admin_gid,
        operator=operator,
        heartbeat=heartbeat,
        connections=connections,
    )
    with tempfile.TemporaryDirectory(prefix="transferd-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103  (callers with other identities come in)
        path = Path(directory, "socket")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            os.chmod(path, 0o666)  # noqa: S103  (as above)
            await server.start(sock)
            api = Api(path, server, service, admin)
            try:
                yield api
            finally:
                await api.session.close()
                await server.stop(1.0)
