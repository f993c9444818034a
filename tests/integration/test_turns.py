"""Callers who ask for much: each has his turns, and what he does not read is his own concern."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from tests.support.api import Api, Stranger, running_api
from tests.support.servers import require_root
from transferd.api.turns import Turns
from transferd.model.caller import Caller
from transferd.model.queue import JobPage

SOMEBODY = Stranger.any()
LIST = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"
#: More than the kernel and a transport take for somebody who does not read.
LONG = 4_000_000


async def test_so_many_requests_of_a_caller_are_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of his wait, and nobody else's."""
    monkeypatch.setattr("transferd.api.turns._AT_ONCE", 2)
    turns = Turns()
    working: list[int] = []
    done = asyncio.Event()

    async def work(uid: int) -> None:
        async with turns.take(uid):
            working.append(uid)
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for uid in (1, 1, 1, 2):
            group.create_task(work(uid))
        for _ in range(5):
            await asyncio.sleep(0)
        assert sorted(working) == [1, 1, 2]
        done.set()
    assert sorted(working) == [1, 1, 1, 2]


async def _line(api: Api, who: Stranger | None = None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    with who.acting() if who else contextlib.nullcontext():
        sock.connect(str(api.path))
    sock.setblocking(False)
    return sock


class Desk:
    """Lists jobs in place of a service, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = asyncio.Event()
        self._news = asyncio.Condition()

    async def page(self, caller: Caller, **_: object) -> JobPage:
        """Answer once the desk is open."""
        async with self._news:
            self.asked.append(caller.uid)
            self._news.notify_all()
        await self.open.wait()
        return JobPage(jobs=(), next=None)

    async def hears(self, count: int) -> list[int]:
        """Wait until so many have asked; return who has."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.asked) >= count)
        return sorted(self.asked)


async def test_somebody_with_many_questions_keeps_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """His turns are few at a time, and who has gone meanwhile has none."""
    require_root("asking as somebody else")
    monkeypatch.setattr("transferd.api.turns._AT_ONCE", 2)
    desk, loop = Desk(), asyncio.get_running_loop()
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        monkeypatch.setattr(api.service, "page", desk.page)
        greedy = [await _line(api, SOMEBODY) for _ in range(6)]
        for sock in greedy:
            lines.callback(sock.close)
            await loop.sock_sendall(sock, LIST)
        await desk.hears(2)
        mine = asyncio.create_task(api.send("GET", "/v1/jobs"))
        assert await desk.hears(3) == [0, SOMEBODY.uid, SOMEBODY.uid]
        for sock in greedy[3:]:
            sock.close()
        assert (await api.send("GET", "/v1/version")).status == 200
        desk.open.set()
        assert (await mine).status == 200
        for sock in greedy[:3]:
            assert await loop.sock_recv(sock, 12) == b"HTTP/1.1 200"
        assert await desk.hears(4) == [0, *[SOMEBODY.uid] * 3]


async def test_an_answer_that_nobody_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in memory until it is read; so is the turn of whoever asked for it."""
    monkeypatch.setattr("transferd.api.turns._AT_ONCE", 1)
    monkeypatch.setattr("transferd.api.server._PATIENCE", 0.2)
    loop = asyncio.get_running_loop()
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        made = await api.create()
        job = api.service.jobs[made["id"]]
        api.service.put(job.id, settings=replace(job.settings, description="x" * LONG))
        deaf = await _line(api)
        lines.callback(deaf.close)
        api.service.gate.clear()
        await loop.sock_sendall(deaf, LIST)
        await api.service.held.wait()
        api.service.gate.set()
        assert (await api.send("GET", "/v1/version")).status == 200
        heard = 0
        with contextlib.suppress(ConnectionError):
            while chunk := await loop.sock_recv(deaf, 65536):
                heard += len(chunk)
        assert 0 < heard < LONG
