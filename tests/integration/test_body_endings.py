"""Bodies that end before they should, on every way from their connection to their file."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import struct
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.support.exchanges import until
from tests.support.origin import Fault, Fields, Page, Seen, Wire
from tests.support.runs import BODY, failure, limits, size_limit
from tests.support.ways import Way
from tests.support.worker import Book, Desk
from transferd.model.job import Seconds
from transferd.transfer.ranges import coverage_of
from transferd.wire import link
from transferd.worker.cursor import Cursor
from transferd.worker.partfile import PartFile

#: Patience with a silent server.
WINDOW: Seconds = 0.5


async def arrived(desk: Desk, book: Book, count: int) -> None:
    """Wait until so many bytes are durable."""
    await desk.until(book, link.Durable, lambda durable: durable.offset == count)


def reset_connection(wire: Wire) -> None:
    """End a connection in no order: the client hears of it by RST."""
    linger = struct.pack("ii", 1, 0)
    wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wire.drop()


def open_descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        # That of the listing itself is gone.
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def nothing_but(before: set[str]) -> bool:
    """Whether everything that was opened since is closed."""
    return open_descriptors() <= before


async def gone_on_with(way: Way, desk: Desk, book: Book) -> None:
    """Carry the rest, which begins behind the last byte that is there."""
    there = book.files[0].bytes_transferred
    assert isinstance(await way.carry(desk, book), link.Drained)
    assert way.origin.seen[-1].range_start == there
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("at", [300_001, 1_234_567, len(BODY) - 1])
async def test_a_body_that_is_cut_off_keeps_every_byte(way: Way, tmp_path: Path, at: int) -> None:
    """connection_lost, with all that came durable and told; the rest is asked for from there."""
    way.serve(BODY, Fault(cut=at))
    book = way.book(tmp_path)
    async with way.worker() as desk:
        failed = await failure(desk, book, way.settings)
        assert failed.failure.code == "connection_lost"
        assert failed.failure.file == book.files[0].spec.local
        assert book.files[0].bytes_transferred == at
        await gone_on_with(way, desk, book)


def reset_after(body: bytes, fields: Fields, came: asyncio.Event) -> Page:
    """A page that sends a part of a body, and resets the connection when that has come."""

    async def page(seen: Seen, wire: Wire) -> None:
        await wire.head(200, fields)
        await wire.raw(body)
        await came.wait()
        reset_connection(wire)

    return page


async def test_a_connection_that_is_reset_in_a_body_was_lost(way: Way, tmp_path: Path) -> None:
    """The bytes that had come before the reset was noticed are kept."""

    fields = [("Content-Length", str(len(BODY))), ("ETag", '"v1"')]
    came = asyncio.Event()
    way.origin.pages["/f"] = reset_after(BODY[:2_000_000], fields, came)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await way.start(desk, book)
        await arrived(desk, book, 2_000_000)
        came.set()
        ended = await desk.end(book)
        assert isinstance(ended, link.Failed)
        assert ended.failure.code == "connection_lost"
        assert book.files[0].bytes_transferred == 2_000_000
        way.serve()
        await gone_on_with(way, desk, book)


async def test_a_reset_is_no_end_of_a_body_without_a_length(way: Way, tmp_path: Path) -> None:
    """Only a connection that is closed in order says that the body was whole."""

    came = asyncio.Event()
    way.origin.pages["/f"] = reset_after(BODY[:100_000], [("Connection", "close")], came)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await way.start(desk, book)
        await desk.until(book, link.Progress, lambda progress: progress.received == 100_000)
        came.set()
        ended = await desk.end(book)
    assert isinstance(ended, link.Failed)
    assert ended.failure.code == "connection_lost"


async def test_a_silent_body_is_stalled_and_kept(way: Way, tmp_path: Path) -> None:
    """Nothing in a window: given up within that time, with what came."""
    way.serve(BODY, Fault(stall=1_500_001))
    book = way.book(tmp_path)
    async with way.worker(limits(stall_window=0.3)) as desk:
        failed = await failure(desk, book, way.settings)
        assert failed.failure.code == "stalled"
        assert book.files[0].bytes_transferred == 1_500_001
        await gone_on_with(way, desk, book)


async def test_a_body_that_drips_is_stalled(way: Way, tmp_path: Path) -> None:
    """Fewer than stall_bytes in a window count as nothing; more of them go on."""
    document = way.serve(BODY[: 300 * 1024], drip=0.01, drip_bytes=1000)
    book = way.book(tmp_path)
    async with way.worker(limits(stall_window=0.2, stall_bytes=200_000)) as desk:
        failed = await failure(desk, book, way.settings)
        assert failed.failure.code == "stalled"
        assert 0 < book.files[0].bytes_transferred < 200_000
    document.drip_bytes = 30_000
    async with way.worker(limits(stall_window=0.2, stall_bytes=2_000)) as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary().read_bytes() == BODY[: 300 * 1024]


async def test_a_slow_disk_is_no_stalled_server(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only time in which the server is waited for counts, however long a write takes."""

    def slowly(cursor: Cursor, written: int) -> None:
        if not written_once:
            written_once.append(written)
            threading.Event().wait(3 * WINDOW)
        advance(cursor, written)

    written_once: list[int] = []
    advance = Cursor._advance
    monkeypatch.setattr(Cursor, "_advance", slowly)
    book = way.book(tmp_path)
    async with way.worker(limits(stall_window=WINDOW)) as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert written_once
    assert book.temporary().read_bytes() == BODY


async def test_stop_in_a_body_is_answered_with_every_byte(way: Way, tmp_path: Path) -> None:
    """The last offset that is told is all that came; lock, thread and descriptors are free.

    The second time as the first: nothing has been used up.
    """
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, way.book(tmp_path)), link.Drained)
        for number in range(2):
            (tmp_path / f"{number}").mkdir()
            document = way.serve(BODY, Fault(stall=1_000_001))
            book = way.book(tmp_path / f"{number}")
            before = open_descriptors()
            await way.start(desk, book)
            await arrived(desk, book, 1_000_001)
            async with asyncio.timeout(2):
                await desk.stop(book)
            assert book.files[0].bytes_transferred == 1_000_001
            spec, temporary = book.files[0].spec, str(book.temporary())
            PartFile.open(spec.local, temporary, coverage_of(book.files[0])).close()
            # That of the origin is closed when the origin notices.
            document.go.set()
            async with asyncio.timeout(5):
                await until(partial(nothing_but, before))
            await gone_on_with(way, desk, book)


async def test_a_write_that_fails_in_its_middle_keeps_what_it_took(
    way: Way, tmp_path: Path
) -> None:
    """What the file took is sound: it is made durable, told, and gone on from."""
    book = way.book(tmp_path)
    async with way.worker() as desk:
        with size_limit(1_500_001):
            failed = await failure(desk, book, way.settings)
        assert failed.failure.code == "local_too_large"
        assert book.files[0].bytes_transferred == 1_500_001
        await gone_on_with(way, desk, book)


async def test_a_file_that_somebody_cuts_is_lost(way: Way, tmp_path: Path) -> None:
    """Nothing is written behind a hole: local_lost."""
    document = way.serve(BODY, Fault(stall=1_000_000))
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await way.start(desk, book)
        await arrived(desk, book, 1_000_000)
        os.truncate(book.temporary(), 10)
        document.go.set()
        ended = await desk.end(book)
    assert isinstance(ended, link.Failed)
    assert ended.failure.code == "local_lost"


class Allowance:
    """A pace that lets so many bytes through, and then waits until it is given more."""

    def __init__(self) -> None:
        self.granted = self.taken = 0
        #: Set when there has been no room for longer than a window.
        self.rested = threading.Event()
        self._empty_since: Seconds | None = None

    def grant(self, count: int) -> None:
        """Let that many bytes through in all."""
        self.granted, self._empty_since = count, None
        self.rested.clear()

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        left = self.granted - self.taken
        if left > 0:
            return left, math.inf
        self._empty_since = since = self._empty_since or now
        if now - since > 2 * WINDOW:
            self.rested.set()
        return 0, 0.01

    def took(self, now: Seconds, count: int) -> None:
        self.taken += count

    def close(self) -> None:
        pass


async def test_a_pace_is_kept_and_is_no_stall(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte more than was granted, but for those that came along with the head; and the time
    in which we do not read is not the server's.
    """
    pace = Allowance()
    monkeypatch.setattr("transferd.worker.manners.Manners.pace", lambda *_: pace)
    book = way.book(tmp_path)
    async with way.worker(limits(stall_window=WINDOW)) as desk:
        pace.grant(400_001)
        await way.start(desk, book)
        # The end of a body may be read like a byte.
        for granted in (700_000, 2_100_003, len(BODY) + 1):
            assert await asyncio.to_thread(pace.rested.wait, 10)
            assert pace.taken == pace.granted
            assert book.temporary().stat().st_size <= pace.taken
            pace.grant(granted)
        assert isinstance(await desk.end(book), link.Drained)
    assert pace.taken == len(BODY)
    assert book.temporary().read_bytes() == BODY
