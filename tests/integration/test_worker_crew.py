"""The connections of a run become more or fewer while its files are on their way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Origin, Seen, Version, Wire
from tests.support.worker import PLAIN, Book, Desk, worker_task
from transferd.model.job import Priority, Settings
from transferd.transfer.ranges import Splitting
from transferd.wire import link
from transferd.worker import fetch

BODY = random.Random(5).randbytes(6_000_000)  # noqa: S311
FRONT = replace(PLAIN, priority=Priority.FOREGROUND)
BACK = replace(PLAIN, priority=Priority.LOW)
FILES = 4


class Slow:
    """A document that comes at four megabytes a second over each connection, until it may run."""

    def __init__(self, version: Version) -> None:
        self._document = Document(version=version, drip=0.01, drip_bytes=40_000)
        self._active = 0
        self._change = asyncio.Condition()
        #: At how many places it was sent at once, since somebody looked.
        self.most = 0

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        await self._count(1)
        try:
            await self._document(seen, wire)
        finally:
            await self._count(-1)

    async def _count(self, more: int) -> None:
        async with self._change:
            self._active += more
            self.most = max(self.most, self._active)
            self._change.notify_all()

    async def until(self, count: int) -> None:
        """Wait until it is sent over so many connections, and look from then on."""
        async with asyncio.timeout(10), self._change:
            await self._change.wait_for(lambda: self._active == count)
            self.most = count

    def run(self) -> None:
        """Send the rest at once."""
        self._document.drip = 0.0


@pytest.fixture(autouse=True)
def splitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split what would be too small for that, and never give that up."""
    quick = Splitting(period=0.1, smallest=300_000, rest=0.1, gain=0.0)
    monkeypatch.setattr(fetch, "SPLITTING", quick)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin."""
    async with Origin().running() as running:
        yield running


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


def serve(origin: Origin, **changes: str | None) -> Slow:
    """Serve the document."""
    slow = origin.pages["/f"] = Slow(replace(Version(body=BODY), **changes))  # type: ignore[arg-type]
    return slow


def files(origin: Origin, directory: Path, count: int = FILES) -> Book:
    """A job that has the document several times."""
    return Book.of(directory, *[origin.url("/f")] * count)


async def retune(desk: Desk, book: Book, settings: Settings) -> None:
    """Let the run go on as *settings* say."""
    await desk.channel.send(
        link.Retune(book.job, desk.run, settings.priority, streams=settings.streams)
    )


async def all_durable(desk: Desk, book: Book) -> None:
    """Wait until some of each file is durable."""
    while not all(file.bytes_transferred for file in book.files.values()):
        await desk.next(book)


async def whole(desk: Desk, book: Book) -> None:
    """See the run to its end, with every byte of every file."""
    assert isinstance(await desk.end(book), link.Drained)
    assert {book.temporary(index).read_bytes() for index in book.files} == {BODY}
    assert desk.of(link.Reset) == []


@pytest.mark.parametrize(
    ("fewer", "left"), [(BACK, 1), (replace(FRONT, streams=2), 2), (replace(BACK, streams=3), 3)]
)
async def test_surplus_connections_leave_their_files_to_the_others(
    desk: Desk, origin: Origin, tmp_path: Path, fewer: Settings, left: int
) -> None:
    """At once, and what is durable of them is not fetched again."""
    slow, book = serve(origin), files(origin, tmp_path)
    await desk.start(book, settings=FRONT)
    await all_durable(desk, book)
    await retune(desk, book, fewer)
    await slow.until(left)
    before = len(origin.seen)
    slow.run()
    await whole(desk, book)
    assert slow.most == left
    again = [seen.range_start for seen in origin.seen[before:]]
    assert len([start for start in again if start not in (None, 0, len(BODY) - 1)]) == FILES - left


async def test_more_connections_take_the_files_that_wait(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A job that comes to the front has four, as if it had begun there."""
    slow, book = serve(origin), files(origin, tmp_path)
    await desk.start(book, settings=BACK)
    await desk.until(book, link.Durable)
    assert slow.most == 1
    await retune(desk, book, FRONT)
    await slow.until(FILES)
    slow.run()
    await whole(desk, book)


async def test_who_was_too_many_and_is_not_any_more_goes_on(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """There and back again, however quickly."""
    slow, book = serve(origin), files(origin, tmp_path)
    await desk.start(book, settings=FRONT)
    await all_durable(desk, book)
    await retune(desk, book, BACK)
    await retune(desk, book, FRONT)
    await slow.until(FILES)
    await retune(desk, book, BACK)
    await slow.until(1)
    await retune(desk, book, FRONT)
    await slow.until(FILES)
    slow.run()
    await whole(desk, book)


async def test_parts_of_a_file_are_left_to_the_first_connection(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """And are fetched over others again when the job comes back to the front."""
    slow, book = serve(origin), files(origin, tmp_path, 1)
    await desk.start(book, settings=FRONT)
    await slow.until(2)
    await desk.until(book, link.Durable, lambda durable: bool(durable.parts))
    await retune(desk, book, BACK)
    await slow.until(1)
    await retune(desk, book, FRONT)
    await slow.until(2)
    await retune(desk, book, BACK)
    await slow.until(1)
    slow.run()
    await whole(desk, book)
    assert slow.most == 1


async def test_a_file_that_cannot_be_gone_on_with_is_fetched_to_its_end(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Without a version nothing would be left of it."""
    slow = serve(origin, etag=None, last_modified=None)
    book = files(origin, tmp_path)
    await desk.start(book, settings=FRONT)
    await slow.until(FILES)
    await retune(desk, book, BACK)
    slow.run()
    await whole(desk, book)
    assert len(origin.seen) == FILES


async def test_a_stop_goes_before_a_change_of_connections(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Whoever is about to leave his file leaves the run with it."""
    serve(origin)
    book = files(origin, tmp_path)
    await desk.start(book, settings=FRONT)
    await all_durable(desk, book)
    await retune(desk, book, BACK)
    await desk.stop(book)
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
