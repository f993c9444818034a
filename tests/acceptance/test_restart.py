"""An upgrade under way: daemons follow one another on one socket, and no caller notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

import transferd
from tests.support.daemon import DaemonProcess

RESTARTS = 4
REQUEST = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
_PATIENCE = 60.0


class Passers:
    """Callers who ask again and again, and count how it went."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.went: Counter[str] = Counter()
        #: Ids of jobs whose creation was answered.
        self.made: set[str] = set()
        self._over = False
        self._progress = asyncio.Event()

    def note(self, what: str) -> None:
        """Count an outcome."""
        self.went[what] += 1
        self._progress.set()

    async def more(self, kinds: set[str], count: int) -> None:
        """Wait until each of these kinds has so many more successes."""
        goal = {kind: self.went[kind] + count for kind in kinds}
        async with asyncio.timeout(_PATIENCE):
            while any(self.went[kind] < number for kind, number in goal.items()):
                self._progress.clear()
                await self._progress.wait()

    @contextlib.asynccontextmanager
    async def passing(
        self, *crowds: tuple[int, Callable[[], Awaitable[None]]]
    ) -> AsyncIterator[None]:
        """Let so many of each kind ask until the end of the block."""
        async with asyncio.TaskGroup() as group:
            for count, caller in crowds:
                for _ in range(count):
                    group.create_task(self._repeat(caller))
            try:
                yield
            finally:
                self._over = True

    async def _repeat(self, caller: Callable[[], Awaitable[None]]) -> None:
        while not self._over:
            await caller()

    async def once(self) -> None:
        """Connect, ask, hear the answer, go."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(self.path))
            await _dawdle()
            await asyncio.get_running_loop().sock_sendall(sock, REQUEST)
            self.note("once" if await _answer(sock) else "once: no answer")

    async def kept(self) -> None:
        """Ask on one connection as long as it takes requests; each that it takes is answered."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(self.path))
            loop = asyncio.get_running_loop()
            for asked in itertools.count():
                await _dawdle()
                try:
                    await loop.sock_sendall(sock, REQUEST)
                except ConnectionError:
                    self.note("kept" if asked else "kept: closed before the first request")
                    return
                answer = await _answer(sock)
                self.note("kept" if answer else "kept: no answer")
                if self._over or b"\r\nconnection: close\r\n" in answer.lower() or not answer:
                    return

    async def client(self) -> None:
        """Use the Python client."""
        async with transferd.connect(socket=self.path) as manager:
            await manager.version()
            self.made.add((await manager.create_job("a job")).id)
            self.note("client")

    async def session(self) -> None:
        """Use somebody else's client, which keeps its connections."""
        connector = aiohttp.UnixConnector(str(self.path), limit=1)
        async with aiohttp.ClientSession("http://transferd", connector=connector) as session:
            for _ in range(10):
                async with session.get("/v1/version") as response:
                    assert response.status == 200
                    await response.read()
                self.note("session")


async def _dawdle() -> None:
    """Let others go first, so that a daemon meets connections that have not asked yet."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _answer(sock: socket.socket) -> bytes:
    """Return the head of an answer and read its body; nothing where there is none."""
    loop = asyncio.get_running_loop()
    answer = b""
    with contextlib.suppress(ConnectionError):
        while not _whole(answer):
            piece = await loop.sock_recv(sock, 65536)
            if not piece:
                return b""
            answer += piece
    return answer if answer.startswith(OK) else b""


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return bool(end) and len(body) >= int(fields[b"content-length"])


@pytest.fixture
def listening(tmp_path: Path) -> socket.socket:
    """A socket as a service manager holds it: open before, between and after daemons."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "transferd.sock"))
    sock.listen(4096)
    return sock


async def test_a_restart_fails_no_request(tmp_path: Path, listening: socket.socket) -> None:
    """Goal: `systemctl restart` of the activated socket costs no client a connection or answer."""
    daemon = DaemonProcess(tmp_path)
    passers = Passers(daemon.socket)
    kinds = {"once", "kept", "client", "session"}
    crowds = ((40, passers.once), (20, passers.kept), (6, passers.client), (6, passers.session))
    with listening, daemon:
        await asyncio.to_thread(daemon.start, inherit=listening.fileno())
        async with passers.passing(*crowds):
            for _ in range(RESTARTS):
                await passers.more(kinds, 5)
                assert await asyncio.to_thread(daemon.stop) == 0
                await asyncio.to_thread(daemon.start, inherit=listening.fileno())
            await passers.more(kinds, 5)
        async with transferd.connect(socket=daemon.socket) as manager:
            there = {job.id async for job in manager.jobs()}
    assert set(passers.went) == kinds, passers.went
    assert there == passers.made
    assert "api.cut_off" not in daemon.logged()


async def test_a_client_gets_over_a_daemon_that_is_killed(
    tmp_path: Path, listening: socket.socket
) -> None:
    """What may be sent twice is: SIGKILL cuts answers off, and the next daemon gives them."""
    daemon = DaemonProcess(tmp_path)
    passers = Passers(daemon.socket)
    with listening, daemon:
        await asyncio.to_thread(daemon.start, inherit=listening.fileno())
        async with passers.passing((12, passers.client)):
            for _ in range(RESTARTS):
                await passers.more({"client"}, 5)
                os.kill(daemon.pid, signal.SIGKILL)
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start, inherit=listening.fileno())
            await passers.more({"client"}, 5)
        async with transferd.connect(socket=daemon.socket) as manager:
            there = {job.id async for job in manager.jobs()}
    assert set(passers.went) == {"client"}
    assert there == passers.made
