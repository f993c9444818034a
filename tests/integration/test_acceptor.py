"""Accepting connections: the bound on them, and what happens when the system has no room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.support.api import Api, Stranger, running_api
from transferd.model.limits import Limits

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


async def test_who_hangs_up_before_he_is_accepted_is_not_served() -> None:
    """Nobody waits for the answer, and everybody else for the time that it takes."""
    async with running_api() as api, connected(api) as line:
        assert await line.ask() == b"HTTP/1.1 200 OK"
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(api.path))
                caller.send(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(10):
            assert await line.ask() == b"HTTP/1.1 200 OK"
        assert api.service.callers == []


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


class Crowd:
    """Connections of several users, kept open until the end of a test."""

    def __init__(self, api: Api, lines: contextlib.AsyncExitStack) -> None:
        self._api = api
        self._lines = lines

    async def line(self, who: Stranger | None = None) -> Line:
        """Open a connection as somebody, as ourselves by default."""
        with who.acting() if who else contextlib.nullcontext():
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self._api.path))
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        self._lines.push_async_callback(_closed, writer)
        return Line(reader, writer)

    async def served(self, who: Stranger | None, most: int) -> list[Line]:
        """Open so many connections; return those whose request is answered."""
        lines = [await self.line(who) for _ in range(most)]
        return [line for line in lines if not (await line.ask()).startswith(b"HTTP/1.1 503")]


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


SOMEBODY = Stranger.any()
#: Only root can be a third one.
SOMEBODY_ELSE = Stranger(uid=54399, gid=54399, groups=())


@pytest.mark.parametrize("serves", [True, False])
async def test_nobody_takes_all_connections(serves: bool) -> None:
    """Whether he is served or not: he holds no more than he leaves free, and gets it back."""
    async with (
        running_api(connections=16, serves=lambda _: serves) as api,
        contextlib.AsyncExitStack() as lines,
    ):
        crowd = Crowd(api, lines)
        greedy = await crowd.served(SOMEBODY, 20)
        assert len(greedy) == 8
        await _closed(greedy[0].writer)
        assert len(await crowd.served(SOMEBODY, 3)) == 1
        if os.geteuid() == 0:
            assert len(await crowd.served(SOMEBODY_ELSE, 20)) == 4
            assert len(await crowd.served(None, 4)) == 4


async def test_event_streams_count_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """They last for ever, so that their share matters most; the log tells of it once."""
    caplog.set_level(logging.WARNING)
    async with running_api(connections=16) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        for _ in range(8):
            line = await crowd.line(SOMEBODY)
            line.writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await line.reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        assert not await crowd.served(SOMEBODY, 3)
    assert [record.getMessage() for record in caplog.records] == ["api.refused"]


async def test_who_wants_too_many_connections_hears_why() -> None:
    """A refusal is an answer that clients understand, even one who has not spoken yet."""
    async with running_api(connections=16) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        await crowd.served(SOMEBODY, 8)
        reply = await api.send_as(SOMEBODY, "GET", "/v1/jobs")
        assert (reply.status, reply.code) == (503, "too_many_connections")
        assert reply.json["detail"] == (
            "cannot serve another connection beside your 8 until others have gone;"
            " close some, or try again in a moment"
        )
        silent = await crowd.line(SOMEBODY)
        assert (await silent.reader.read()).startswith(b"HTTP/1.1 503 ")


async def test_refusals_are_bounded_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who never reads his refusals takes a few descriptors with them, not all."""
    monkeypatch.setattr("transferd.api.acceptor._REFUSALS", 2)
    monkeypatch.setattr("transferd.api.refusal._PATIENCE", 3600.0)
    async with running_api(connections=16) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        await crowd.served(SOMEBODY, 8)
        waiting = [await crowd.line(SOMEBODY) for _ in range(2)]
        third = await crowd.line(SOMEBODY)
        assert await third.reader.read() == b""
        assert [await line.ask() for line in waiting] == [b"HTTP/1.1 503 Service Unavailable"] * 2


async def test_who_leaves_his_refusal_unheard_is_no_trouble() -> None:
    """It ends with its connection, and never keeps a daemon from stopping."""
    async with running_api(connections=16) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        await crowd.served(SOMEBODY, 8)
        await _closed((await crowd.line(SOMEBODY)).writer)
        await crowd.line(SOMEBODY)


# ── bodies ─────────────────────────────────────────────────────────────────────────────────────


def _request(body: bytes) -> bytes:
    head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


LARGE = _request(json.dumps({"name": "a", "description": " " * 80_000}).encode())
SMALL = _request(b'{"name": "a"}')


async def test_large_bodies_of_one_caller_come_one_after_the_other() -> None:
    """However many connections he has, his requests in memory are one body's worth (64 MiB)."""
    limits = Limits(body_bytes=100_000, description_chars=100_000)
    async with running_api(limits=limits) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        first, second = await crowd.line(SOMEBODY), await crowd.line(SOMEBODY)
        api.service.gate.clear()
        first.writer.write(LARGE)
        await api.service.held.wait()
        second.writer.write(LARGE)
        assert await second.answer() == b"HTTP/1.1 503 Service Unavailable"
        api.service.gate.set()
        assert await first.answer() == b"HTTP/1.1 201 Created"
        third = await crowd.line(SOMEBODY)
        third.writer.write(LARGE)
        assert await third.answer() == b"HTTP/1.1 201 Created"


async def test_small_requests_are_served_beside_large_bodies() -> None:
    """Whoever has sent too much can still steer his jobs."""
    limits = Limits(body_bytes=100_000, description_chars=100_000)
    async with running_api(limits=limits) as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        first, second = await crowd.line(SOMEBODY), await crowd.line(SOMEBODY)
        head, _, body = LARGE.partition(b"\r\n\r\n")
        first.writer.write(head + b"\r\n\r\n" + body[:-1])
        second.writer.write(SMALL)
        assert await second.answer() == b"HTTP/1.1 201 Created"
        first.writer.write(body[-1:])
        assert await first.answer() == b"HTTP/1.1 201 Created"


async def test_a_body_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would keep its place in memory from others."""
    monkeypatch.setattr("transferd.api.call._PATIENCE", 0.05)
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        line = await Crowd(api, lines).line(SOMEBODY)
        line.writer.write(LARGE[:-1])
        assert await line.answer() == b"HTTP/1.1 400 Bad Request"


# ── the end ────────────────────────────────────────────────────────────────────────────────────


async def test_who_was_accepted_before_the_end_is_answered() -> None:
    """A request that comes after the stop has begun is served like one that came before it."""
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        crowd = Crowd(api, lines)
        early, late = await crowd.line(), await crowd.line()
        api.service.gate.clear()
        early.writer.write(SMALL)
        await api.service.held.wait()
        stopping = asyncio.ensure_future(api.server.stop(60.0))
        await asyncio.sleep(0)
        late.writer.write(REQUEST)
        assert await late.answer() == b"HTTP/1.1 200 OK"
        assert not stopping.done()
        api.service.gate.set()
        assert await early.answer() == b"HTTP/1.1 201 Created"
        await stopping


async def test_an_answer_at_the_end_says_that_it_is_the_last() -> None:
    """So that no client sends another request on a connection that is about to be closed."""
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        line = await Crowd(api, lines).line()
        assert await line.ask() == b"HTTP/1.1 200 OK"
        api.service.gate.clear()
        line.writer.write(SMALL)
        await api.service.held.wait()
        stopping = asyncio.ensure_future(api.server.stop(60.0))
        await asyncio.sleep(0)
        api.service.gate.set()
        answer = await line.reader.read()
        assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        await stopping


@pytest.mark.parametrize("turns", range(12))
async def test_a_request_that_could_be_sent_is_answered(turns: int) -> None:
    """A kept connection closes without a request on its way, whenever that is sent."""
    loop = asyncio.get_running_loop()
    async with running_api() as api:
        with socket.socket(socket.AF_UNIX) as kept:
            kept.setblocking(False)
            kept.connect(str(api.path))
            kept.send(REQUEST)
            assert (await loop.sock_recv(kept, 65536)).startswith(b"HTTP/1.1 200 OK")
            stopping = asyncio.ensure_future(api.server.stop(60.0))
            for _ in range(turns):
                await asyncio.sleep(0)
            with contextlib.suppress(BrokenPipeError):
                kept.send(REQUEST)
                assert (await loop.sock_recv(kept, 65536)).startswith(b"HTTP/1.1 200 OK")
            await stopping
            with pytest.raises(BrokenPipeError):
                kept.send(REQUEST)


async def test_nobody_who_says_nothing_holds_up_the_end_for_long() -> None:
    """Half of the patience is for those who have not asked yet, the rest for answers."""
    async with running_api() as api, contextlib.AsyncExitStack() as lines:
        silent = await Crowd(api, lines).line()
        async with asyncio.timeout(5):
            await api.server.stop(0.1)
        assert await silent.reader.read() == b""


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
