"""Limits on bytes a second, and runs that go on otherwise, on every way that a body may go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Origin, Seen, Version, Wire
from tests.support.runs import BODY, limits
from tests.support.ways import Way
from tests.support.worker import PLAIN, Book, Desk, worker_task
from transferd.model.job import Priority, Settings
from transferd.model.rates import Rates
from transferd.transfer.pacing import LARGEST
from transferd.wire import link
from transferd.worker import manners
from transferd.worker.window import Window, open_plain, open_steerable

#: Bytes a second that let BODY through in two seconds.
RATE = len(BODY) // 2
#: Bytes a second that would take half a minute.
SLOW = 100_000
FRONT = replace(PLAIN, priority=Priority.FOREGROUND)


def front(way: Way, **changes: int) -> Settings:
    """The settings of a job that yields to nobody."""
    return replace(way.settings, priority=Priority.FOREGROUND, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def lasting(least: float, most: float) -> AsyncIterator[None]:
    """Let the block take that long."""
    began = time.monotonic()
    yield
    assert least < time.monotonic() - began < most


def serve(origin: Origin, path: str, body: bytes) -> None:
    """Serve a document."""
    origin.pages[path] = Document(version=Version(body=body))


async def moving(desk: Desk, book: Book) -> None:
    """Wait until bytes of a body have come."""
    await desk.until(book, link.Progress, lambda told: 0 < told.received < len(BODY))


async def retune(desk: Desk, book: Book, priority: Priority, max_rate: int | None = None) -> None:
    """Let the run go on otherwise."""
    await desk.channel.send(link.Retune(book.job, desk.run, priority, max_rate))


async def test_a_job_keeps_its_rate(way: Way, tmp_path: Path) -> None:
    """Wherever its bytes go along; and it is the waiting that takes the time, not the server."""
    book = way.book(tmp_path)
    async with way.worker(limits(stall_window=0.5)) as desk, lasting(1.85, 2.6):
        done = await desk.carry(book, settings=front(way, max_rate=RATE))
        assert isinstance(done, link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_a_limit_is_lifted_under_way(way: Way, tmp_path: Path) -> None:
    """Of a job: whoever waits for it goes on at once."""
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await desk.start(book, settings=front(way, max_rate=SLOW))
        await moving(desk, book)
        async with lasting(0, 1.5):
            await retune(desk, book, Priority.FOREGROUND)
            assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_a_limit_of_all_changes_under_way(way: Way, tmp_path: Path) -> None:
    """The bodies that are on their way share what their worker may take, and follow it."""
    book = way.book(tmp_path, "/f", "/f")
    async with way.worker() as desk:
        await desk.channel.send(link.Terms(Rates(total=SLOW)))
        await desk.start(book, settings=front(way, streams=2))
        await moving(desk, book)
        await desk.channel.send(link.Terms(Rates(by_priority={Priority.FOREGROUND: 2 * RATE})))
        await moving(desk, book)
        async with lasting(1.5, 3.0):
            assert isinstance(await desk.end(book), link.Drained)


async def test_several_connections_keep_one_rate(origin: Origin, tmp_path: Path) -> None:
    """They take turns; together they have what one would have."""
    for number in range(4):
        serve(origin, f"/{number}", BODY[: len(BODY) // 4])
    book = Book.of(tmp_path, *(origin.url(f"/{number}") for number in range(4)))
    async with worker_task() as desk, lasting(1.85, 2.6):
        settings = replace(FRONT, streams=4, max_rate=RATE)
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert origin.connections == 4


async def test_small_files_keep_the_rate(origin: Origin, tmp_path: Path) -> None:
    """Each comes as a whole; the next one waits until that is paid for."""
    serve(origin, "/small", BODY[:50_000])
    book = Book.of(tmp_path, *[origin.url("/small")] * 20)
    async with worker_task() as desk, lasting(1.4, 2.6):
        settings = replace(FRONT, max_rate=600_000)
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)


async def test_a_job_that_comes_to_the_front_yields_no_more(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows are opened, and nothing is waited for."""
    opened: list[Window] = []
    let_go = Window.open

    def note(window: Window) -> None:
        opened.append(window)
        let_go(window)

    monkeypatch.setattr(Window, "open", note)
    monkeypatch.setattr(manners, "within_machine", lambda _: False)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        settings = replace(way.settings, priority=Priority.LOW, max_rate=SLOW)
        await desk.start(book, settings=settings)
        await moving(desk, book)
        async with lasting(0, 1.5):
            await retune(desk, book, Priority.FOREGROUND)
            assert isinstance(await desk.end(book), link.Drained)
    assert len(opened) == 1


async def test_the_window_of_a_job_that_comes_to_the_front_stays_open(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has steered it lets go of it before it is opened, not after."""
    sizes: list[int] = []
    clamp = Window.clamp

    def note(window: Window, size: int) -> None:
        sizes.append(size)
        clamp(window, size)

    monkeypatch.setattr(Window, "clamp", note)
    monkeypatch.setattr(manners, "within_machine", lambda _: False)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        settings = replace(way.settings, priority=Priority.LOW, max_rate=SLOW)
        await desk.start(book, settings=settings)
        await moving(desk, book)
        await retune(desk, book, Priority.FOREGROUND)
        assert isinstance(await desk.end(book), link.Drained)
    assert sizes[-1] == LARGEST


async def test_a_job_that_goes_to_the_back_begins_to_yield(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows are steered from then on, on the connection that it has."""
    clamped = asyncio.Event()
    loop = asyncio.get_running_loop()
    clamp = Window.clamp

    def note(window: Window, size: int) -> None:
        loop.call_soon_threadsafe(clamped.set)
        clamp(window, size)

    monkeypatch.setattr(Window, "clamp", note)
    monkeypatch.setattr(manners, "within_machine", lambda _: False)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await desk.start(book, settings=front(way, max_rate=SLOW))
        await moving(desk, book)
        assert not clamped.is_set()
        await retune(desk, book, Priority.LOW, SLOW)
        async with asyncio.timeout(2):
            await clamped.wait()
        await retune(desk, book, Priority.FOREGROUND)
        assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("loopback", [True, False])
async def test_a_connection_is_marked_as_suits_the_priority_that_the_job_has_by_now(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loopback: bool
) -> None:
    """Routers hear of a change under way, wherever the other end is; in both directions."""
    marked: asyncio.Queue[int] = asyncio.Queue()
    mark_one = Window.mark

    def marking(window: Window, *, lower_effort: bool) -> None:
        mark_one(window, lower_effort=lower_effort)
        marked.put_nowait(window._socket.getsockopt(socket.IPPROTO_IP, socket.IP_TOS))

    monkeypatch.setattr(Window, "mark", marking)
    monkeypatch.setattr(manners, "within_machine", lambda _: loopback)
    book, lower = way.book(tmp_path), 0b0000_0100
    async with way.worker(limits(lower_effort=True)) as desk, asyncio.timeout(20):
        await desk.start(book, settings=front(way, max_rate=SLOW))
        await moving(desk, book)
        for priority, mark in ((Priority.LOW, lower), (Priority.FOREGROUND, 0)) * 2:
            while not marked.empty():
                marked.get_nowait()
            await retune(desk, book, priority, SLOW)
            assert await marked.get() == mark
        await retune(desk, book, Priority.FOREGROUND)
        assert isinstance(await desk.end(book), link.Drained)


async def test_a_job_that_came_to_the_front_before_its_body_is_marked_like_any(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was opened for a background job, and nothing has been paced on it yet."""
    asked, go = asyncio.Event(), asyncio.Event()
    document = Document(version=Version(body=BODY))

    async def late(seen: Seen, wire: Wire) -> None:
        asked.set()
        await go.wait()
        await document(seen, wire)

    marks: list[bool] = []
    monkeypatch.setattr(Window, "mark", lambda _, *, lower_effort: marks.append(lower_effort))
    origin.pages["/f"] = late
    book = Book.of(tmp_path, origin.url("/f"))
    async with worker_task(limits(lower_effort=True)) as desk:
        await desk.start(book, settings=replace(PLAIN, priority=Priority.LOW))
        await asked.wait()
        await retune(desk, book, Priority.FOREGROUND)
        await desk.channel.send(link.Ping(1))
        await desk.until(book, link.Pong)
        go.set()
        assert isinstance(await desk.end(book), link.Drained)
    assert set(marks) == {False}


async def test_what_is_said_to_another_run_changes_nothing(origin: Origin, tmp_path: Path) -> None:
    """A Retune may come late, as any other message."""
    serve(origin, "/f", BODY)
    book = Book.of(tmp_path, origin.url("/f"))
    async with worker_task() as desk, lasting(0, 3.0):
        await desk.start(book, settings=FRONT)
        await desk.channel.send(link.Retune(book.job, desk.run + 1, Priority.LOW, 1024))
        assert isinstance(await desk.end(book), link.Drained)


@pytest.mark.parametrize(
    ("family", "level", "option"),
    [
        (socket.AF_INET, socket.IPPROTO_IP, socket.IP_TOS),
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
    ],
)
def test_background_connections_may_be_marked(family: int, level: int, option: int) -> None:
    """Lower effort is codepoint 1 (RFC 8622), and nobody's who did not ask for it."""
    place = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ())
    for sock, mark in (
        (open_steerable(place, lower_effort=True), 0b0000_0100),
        (open_steerable(place), 0),
        (open_plain(place), 0),
    ):
        with sock:
            assert sock.getsockopt(level, option) == mark
