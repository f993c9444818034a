"""The worker as a process: how it dies, and what is left when it does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.acceptors import Digest, guarded
from tests.support.origin import Document, Fault, Origin, Seen, Version, Wire
from tests.support.worker import (
    LIMITS,
    PASSWORD,
    USER,
    Book,
    Desk,
    credential,
    worker_process,
)
from transferd.model.credentials import Scheme
from transferd.wire import chores, codec, link
from transferd.wire.channel import Channel

BODY = random.Random(11).randbytes(3_000_000)  # noqa: S311


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin."""
    async with Origin().running() as running:
        yield running


async def gone(desk: Desk, book: Book) -> None:
    """Take messages until the worker is gone."""
    async with asyncio.timeout(10):
        while (message := await desk.channel.receive()) is not None:
            desk.heard.append(message)
            book.note(message)


@pytest.mark.parametrize("durable", [0, 700_000, 2_500_000])
async def test_after_sigkill_no_byte_before_the_durable_offset_is_asked_again(
    origin: Origin, tmp_path: Path, durable: int
) -> None:
    """What was reported as durable is there, and is where the next worker goes on."""
    document = Document(version=Version(body=BODY), drip=0.005, drip_bytes=50_000)
    document.faults = deque([Fault(stall=2_600_000)])
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    async with worker_process() as desk:
        await desk.start(book)
        await desk.until(book, link.Durable, lambda message: message.offset >= durable)
        os.kill(desk.pid, signal.SIGKILL)
        await gone(desk, book)
    kept = book.files[0].bytes_transferred
    assert kept >= durable
    assert book.temporary().read_bytes()[:kept] == BODY[:kept]
    document.drip = 0.0
    async with worker_process() as desk:
        assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.range_start for seen in origin.seen] == [None, kept]
    assert book.temporary().read_bytes() == BODY


async def test_the_end_of_the_link_is_the_end_of_the_worker(origin: Origin, tmp_path: Path) -> None:
    """Without a daemon there is nobody to report to: it goes at once, whatever it was doing."""

    async def silent(seen: Seen, wire: Wire) -> None:
        await asyncio.Event().wait()

    origin.pages["/f"] = silent
    async with worker_process() as desk:
        await desk.start(Book.of(tmp_path, origin.url("/f")))
        await origin.saw(1)
        await desk.channel.close()
        async with asyncio.timeout(2):
            await _ended(desk.pid)


async def test_nonsense_on_the_link_ends_the_worker() -> None:
    """Who cannot be understood cannot be obeyed; the worker's last word says so."""
    async with worker_process() as desk:
        desk.channel._writer.write(b"nonsense\n")
        await gone(desk, Book())
        (said,) = desk.of(link.Said)
        assert (said.level, said.event) == ("error", "link.broken")


async def test_sigterm_saves_what_has_arrived(origin: Origin, tmp_path: Path) -> None:
    """Told to go, the worker reports its durable offsets first, and says nothing more."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=1_000_001)]))
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    async with worker_process(msgspec.structs.replace(LIMITS, durable_seconds=3600.0)) as desk:
        await desk.start(book)
        await desk.until(book, link.Progress, lambda progress: progress.received == 1_000_001)
        os.kill(desk.pid, signal.SIGTERM)
        await gone(desk, book)
    assert book.files[0].bytes_transferred == 1_000_001
    assert isinstance(desk.heard[-1], link.Durable)


async def test_sigint_of_a_terminal_is_not_for_the_worker() -> None:
    """Ctrl-C reaches the whole foreground group; the daemon decides what becomes of jobs."""
    async with worker_process() as desk:
        os.kill(desk.pid, signal.SIGINT)
        await desk.channel.send(chores.Inspect(1, ()))
        assert await desk.until(Book(), chores.Inspected) == chores.Inspected(1, ())


async def test_a_worker_gives_signs_of_life() -> None:
    """Its loop turns."""
    async with worker_process() as desk:
        for number in (1, 2):
            await desk.channel.send(link.Ping(number))
            assert await desk.until(Book(), link.Pong) == link.Pong(number)
            desk.heard.clear()


async def test_the_worker_dies_with_its_parent() -> None:
    """A daemon that was killed leaves no worker behind, even while the link stays open."""
    ours, theirs = socket.socketpair()
    fd = str(theirs.fileno())
    script = '"$0" -m transferd.worker --fd "$1" & wait'
    with theirs:
        parent = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", script, sys.executable, fd),
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    channel = await Channel.open(ours, codec.decode_from_worker)
    assert isinstance(await channel.receive(), link.Hello)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(5):
        assert await channel.receive() is None
    await channel.close()


def test_no_other_process_may_read_the_workers_memory() -> None:
    """PR_SET_DUMPABLE 0: no ptrace by the owner's other processes, no core with passwords in it."""
    code = (
        "import ctypes; from transferd.worker.confinement import confine; libc = ctypes.CDLL(None);"
        "before = libc.prctl(3, 0, 0, 0, 0); confine();"
        "print(before, libc.prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "1 0\n"


async def test_the_log_of_a_worker_has_no_secret(
    origin: Origin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused, faulty, restarted: whatever goes wrong, the password is not in it."""
    origin.pages["/f"] = guarded(Document(version=Version(body=BODY)), Digest(USER, "another"))
    async with worker_process() as desk:
        for remote in (origin.url("/f"), f"http://h:{PASSWORD}/"):
            book = Book.of(tmp_path, remote)
            await desk.carry(book, credentials=[credential(Scheme.DIGEST)])
    written = capfd.readouterr()
    assert "run.fault" in {said.event for said in desk.of(link.Said)}
    assert written.err == ""
    assert PASSWORD not in written.out + repr(desk.heard)


async def _ended(pid: int) -> None:
    """Wait until a child of this process is no more than a zombie."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(pid)
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, ended.cancel)
    try:
        await asyncio.wait([ended])
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
