"""Accepting connections: the bound on them, and what happens when the system has no room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.support.api import Api, running_api

REQUEST = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> bytes:
        """Return the first line of the next answer, after the rest of it has come."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await self.reader.readexactly(length)
        return head.partition(b"\r\n")[0]

    async def ask(self) -> bytes:
        """Send a request, and return the first line of its answer."""
        self.writer.write(REQUEST)
        return await self.answer()


@contextlib.asynccontextmanager
async def connected(api: Api) -> AsyncIterator[Line]:
    """Open a connection."""
    reader, writer = await asyncio.open_unix_connection(str(api.path))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def complaints(caplog: pytest.LogCaptureFixture) -> int:
    """How often the log says that there is no room; it says nothing else that is wrong."""
    messages = [record.getMessage() for record in caplog.records]
    assert set(messages) <= {"api.full"}
    return len(messages)


async def test_more_callers_than_there_is_room_for_wait_for_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Descriptors that the daemon needs itself are never a caller's; who goes makes room."""
    caplog.set_level(logging.WARNING)
    async with running_api(connections=3) as api, contextlib.AsyncExitStack() as lines:
        first, second = [await lines.enter_async_context(connected(api)) for _ in range(2)]
        async with connected(api) as third:
            for line in (first, second, third):
                assert await line.ask() == b"HTTP/1.1 200 OK"
            fourth = await lines.enter_async_context(connected(api))
            waiting = asyncio.ensure_future(fourth.ask())
            for _ in range(10):
                assert await first.ask() == b"HTTP/1.1 200 OK"
            assert not waiting.done()
        assert await waiting == b"HTTP/1.1 200 OK"
    assert complaints(caplog) == 1


async def test_without_descriptors_callers_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is connected is served; nobody is accepted, and the log is not flooded."""
    caplog.set_level(logging.WARNING)
    async with running_api() as api, connected(api) as late, contextlib.AsyncExitStack() as lines:
        early = await lines.enter_async_context(connected(api))
        assert (await late.ask(), await early.ask()) == (b"HTTP/1.1 200 OK",) * 2
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            with no_descriptor_left():
                caller.connect(str(api.path))
                for _ in range(10):
                    assert await late.ask() == b"HTTP/1.1 200 OK"
            caller.send(REQUEST)
            await lines.aclose()
            answer = await asyncio.get_running_loop().sock_recv(caller, 4096)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert complaints(caplog) == 1


async def test_without_descriptors_and_without_a_caller_that_goes_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something else than a connection may have been closed."""
    monkeypatch.setattr("transferd.api.acceptor._RETRY", 0.01)
    async with running_api() as api, connected(api) as line:
        assert await line.ask() == b"HTTP/1.1 200 OK"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            with no_descriptor_left():
                caller.connect(str(api.path))
                for _ in range(10):
                    assert await line.ask() == b"HTTP/1.1 200 OK"
            caller.send(REQUEST)
            answer = await asyncio.get_running_loop().sock_recv(caller, 4096)
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_strangers_keep_nobody_out() -> None:
    """Whoever is not served has a small share, gives it back, and is never left waiting."""
    known = [False]
    async with (
        running_api(connections=16, serves=lambda _: known[0]) as api,
        contextlib.AsyncExitStack() as lines,
    ):
        strangers = [await lines.enter_async_context(connected(api)) for _ in range(20)]
        for line in strangers[:2]:
            assert (await line.ask()).startswith(b"HTTP/1.1 ")
        for line in strangers[2:]:
            with contextlib.suppress(ConnectionError):
                assert await line.reader.read() == b""
        known[0] = True
        for _ in range(14):
            line = await lines.enter_async_context(connected(api))
            assert await line.ask() == b"HTTP/1.1 200 OK"
        known[0] = False
        strangers[0].writer.close()
        await strangers[0].writer.wait_closed()
        again = await lines.enter_async_context(connected(api))
        assert (await again.ask()).startswith(b"HTTP/1.1 ")


async def test_who_asks_for_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a whole request makes room in the end; one that asked may be silent."""
    monkeypatch.setattr("transferd.api.acceptor._PATIENCE", 0.05)
    async with running_api() as api, connected(api) as used, connected(api) as silent:
        assert await used.ask() == b"HTTP/1.1 200 OK"
        assert await silent.reader.read() == b""
        async with connected(api) as half:
            half.writer.write(REQUEST[:-2])
            assert await half.reader.read() == b""
        assert await used.ask() == b"HTTP/1.1 200 OK"
