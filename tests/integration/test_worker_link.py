"""The framing of the worker link, over real socket pairs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.errors import LinkBroken
from transferd.model.job import JobId, Settings, Timers
from transferd.wire.channel import Channel
from transferd.wire.codec import decode_from_worker, decode_to_worker
from transferd.wire.link import (
    Drained,
    FromWorker,
    Hello,
    LinkCredential,
    Progress,
    Start,
    ToWorker,
)

JOB = JobId("00000000-0000-4000-8000-000000000001")
Ends: TypeAlias = tuple[Channel[FromWorker], Channel[ToWorker]]
RawEnd: TypeAlias = Callable[[int], Awaitable[tuple[socket.socket, Channel[FromWorker]]]]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """The daemon's end and the worker's end of one link."""
    ours, theirs = socket.socketpair()
    daemon = await Channel.open(ours, decode_from_worker)
    worker = await Channel.open(theirs, decode_to_worker)
    yield daemon, worker
    await worker.close()
    await daemon.close()


@pytest.fixture
async def raw_end() -> AsyncIterator[RawEnd]:
    """Makes a link whose worker end is a plain socket."""
    opened: list[tuple[socket.socket, Channel[FromWorker]]] = []

    async def make(max_line: int) -> tuple[socket.socket, Channel[FromWorker]]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        channel = await Channel.open(ours, decode_from_worker, max_line=max_line)
        opened.append((theirs, channel))
        return opened[-1]

    yield make
    for peer, channel in opened:
        peer.close()
        await channel.close()


async def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    """Every message is one line, and lines keep the order of the calls."""
    daemon, worker = ends
    sent = [Progress(JOB, 1, file, file * 1000, 10**9) for file in range(2000)]
    for message in sent:
        worker.post(message)
    await worker.send(Drained(JOB, 1))
    assert [await daemon.receive() for _ in sent] == sent
    assert await daemon.receive() == Drained(JOB, 1)


async def test_a_secret_arrives_at_the_worker(ends: Ends) -> None:
    """Credentials travel in clear over the socket pair, and only there."""
    daemon, worker = ends
    settings = Settings(
        name="n",
        timers=Timers(min_retry_delay=1, no_progress_timeout=1, max_download_time=1),
    )
    credential = LinkCredential(Target.SERVER, Scheme.BASIC, "alice", Secret("hunter2 ü"))
    await daemon.send(Start(JOB, 7, settings, (), (credential,)))
    start = await worker.receive()
    assert isinstance(start, Start)
    assert start.credentials[0].password.reveal() == "hunter2 ü"
    assert "hunter2" not in repr(start)


async def test_a_peer_that_leaves_is_the_end_not_an_error(ends: Ends) -> None:
    """EOF means that the other end is gone: receive says None, send raises LinkBroken."""
    daemon, worker = ends
    await worker.close()
    assert await daemon.receive() is None
    with pytest.raises(LinkBroken):
        await daemon.send(Hello(1))


async def test_a_line_cut_by_a_crash_is_the_end(raw_end: RawEnd) -> None:
    """A worker that is killed while it writes is gone; half a line is no message."""
    peer, channel = await raw_end(1000)
    await asyncio.get_running_loop().sock_sendall(peer, b'{"is":"hello","pi')
    peer.close()
    assert await channel.receive() is None


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"is":"start"}\n',
        b"\n",
        b'{"is":"hello"}\n',
        b'{"is":"\xff"}\n',
        b'{"is":"hello","pid":1,"x":' + b"[" * 900 + b"\n",
        b'{"is":"hello","pid":' + b"9" * 900 + b".5}\n",
    ],
)
async def test_nonsense_breaks_the_link(raw_end: RawEnd, line: bytes) -> None:
    """A line that is none of the other end's messages raises LinkBroken."""
    peer, channel = await raw_end(1000)
    await asyncio.get_running_loop().sock_sendall(peer, line)
    with pytest.raises(LinkBroken):
        await channel.receive()


@pytest.mark.parametrize("line", [b"x" * 2000, b'"' + b"x" * 2000 + b'"\n'])
async def test_an_overlong_line_breaks_the_link(raw_end: RawEnd, line: bytes) -> None:
    """A line is bounded, with its end in sight or not."""
    peer, channel = await raw_end(1000)
    await asyncio.get_running_loop().sock_sendall(peer, line)
    with pytest.raises(LinkBroken, match="longer than 1000"):
        await channel.receive()


async def test_a_deep_nest_breaks_the_link_and_not_the_stack(raw_end: RawEnd) -> None:
    """Whatever the decoder raises, it is the line that is wrong."""
    peer, channel = await raw_end(1_000_000)
    line = b'{"is":"hello","pid":1,"x":' + b"[" * 100_000 + b"\n"
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, line))
    with pytest.raises(LinkBroken):
        await channel.receive()
    await sending


async def test_a_cancelled_receive_loses_nothing(ends: Ends) -> None:
    """Whoever stops waiting for a message gets it the next time."""
    daemon, worker = ends
    waiting = asyncio.ensure_future(daemon.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    worker.post(Hello(5))
    assert await daemon.receive() == Hello(5)


async def test_a_peer_that_never_reads_cannot_hold_up_close(raw_end: RawEnd) -> None:
    """Closing ends within a moment whatever the other end does."""
    _, channel = await raw_end(1000)
    for number in range(100_000):
        channel.post(Hello(number))
    async with asyncio.timeout(10):
        await channel.close()
