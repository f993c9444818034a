"""A run leaves when it is told to, at every moment, and leaves nothing undone."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.origin import (
    Document,
    Fault,
    Origin,
    Seen,
    Version,
    Wire,
)
from tests.support.runs import BODY, broken_off, failure
from tests.support.worker import Book, Desk, worker_task
from transferd.transfer.ranges import Coverage
from transferd.wire import link
from transferd.worker.partfile import PartFile


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin with one good file."""
    async with Origin().running() as running:
        running.pages["/f"] = Document(version=Version(body=BODY))
        yield running


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


async def test_stop_saves_what_has_arrived_before_it_is_answered(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """After Stop the last durable offset is every byte that came, and the file is free again."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=1_000_001)]))
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await desk.until(book, link.Progress, lambda progress: progress.received == 1_000_001)
    await desk.stop(book)
    assert book.files[0].bytes_transferred == 1_000_001
    assert isinstance(desk.heard[-1], link.Stopped)
    part = PartFile.open(
        book.files[0].spec.local, str(book.temporary()), Coverage(offset=1_000_001)
    )
    part.close()
    assert isinstance(await desk.carry(book), link.Drained)
    assert origin.seen[-1].range_start == 1_000_001
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("moment", ["at once", "connecting", "before Recorded", "drained"])
async def test_stop_is_answered_at_every_moment(
    desk: Desk, origin: Origin, tmp_path: Path, moment: str
) -> None:
    """A run that waits, for whatever it may be, leaves when it is told to."""

    async def silent(seen: Seen, wire: Wire) -> None:
        await asyncio.Event().wait()

    book = Book.of(tmp_path, origin.url("/f"))
    if moment == "connecting":
        origin.pages["/f"] = silent
    if moment == "before Recorded":
        book = await broken_off(desk, origin, tmp_path)
        origin.pages["/f"] = Document(version=Version(body=BODY[::-1], etag='"v2"'))
        desk.records = False
    seen = len(origin.seen)
    await desk.start(book)
    if moment == "connecting":
        await origin.saw(seen + 1)
    if moment == "before Recorded":
        await desk.until(book, link.Reset)
    if moment == "drained":
        await desk.until(book, link.Drained)
    async with asyncio.timeout(2):
        await desk.stop(book)
    assert desk.of(link.Failed) == desk.of(link.Failed)[: int(moment == "before Recorded")]


async def test_stop_frees_a_file_that_is_only_being_opened(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Stopped nobody holds the file, even if the disk was slow to open it."""
    opening = threading.Event()
    book = Book.of(tmp_path, origin.url("/f"))
    place = (book.files[0].spec.local, str(book.temporary()))

    def slow(*place: Any, wary: bool) -> PartFile:
        part = opened(*place, wary=wary)
        opening.set()
        threading.Event().wait(0.2)
        return part

    opened = PartFile.open
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "open", slow)
        await desk.start(book)
        await asyncio.to_thread(opening.wait, 20)
        await desk.stop(book)
    PartFile.open(*place).close()


async def test_stop_does_not_wait_for_a_dead_disk(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that never ends costs its offset, not the answer; the file stays locked meanwhile."""
    revived = threading.Event()
    monkeypatch.setattr(PartFile, "sync", lambda part: revived.wait(30))
    origin.pages["/f"] = Document(
        version=Version(body=BODY), faults=deque([Fault(stall=2_000_000)])
    )
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await desk.until(book, link.Progress, lambda progress: progress.received == 2_000_000)
    async with asyncio.timeout(2.5):
        await desk.stop(book)
    assert desk.of(link.Durable) == []
    failed = await failure(desk, book)
    assert failed.failure.code == "local_busy"
    revived.set()


async def test_a_run_that_takes_the_place_of_another_waits_for_the_file(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A Start for a job that is still being carried ends the older run first, without a word."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=1_000_000)]))
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await desk.until(book, link.Progress, lambda progress: progress.received == 1_000_000)
    assert isinstance(await desk.carry(book), link.Drained)
    assert desk.of(link.Stopped) == []
    assert book.temporary().read_bytes() == BODY


async def test_words_to_an_earlier_run_are_ignored(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A late Stop or Finish of run 1 does nothing to run 2."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(), Fault(stall=9)]))
    origin.pages["/f"] = document
    await desk.carry(Book.of(tmp_path, origin.url("/f")))
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await document.stalled.wait()
    await desk.channel.send(link.Stop(book.job, 1))
    await desk.channel.send(link.Finish(book.job, 1))
    document.go.set()
    assert isinstance(await desk.end(book), link.Drained)
    assert desk.of(link.Stopped) == []
