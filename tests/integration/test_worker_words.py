"""When a run says what: some of it goes together, but nothing waits for what may never come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.origin import Document, Fault, Origin, Version, fixed
from tests.support.runs import BODY, failure
from tests.support.worker import Book, Desk, worker_task
from transferd.wire import link


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin with a small file, and a long one that stops after its head."""
    async with Origin().running() as running:
        running.pages["/small"] = fixed(200, body=b"small")
        running.pages["/held"] = Document(version=Version(body=BODY))
        yield running


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


def kinds(desk: Desk) -> list[str]:
    """What was said, but for what is said now and then."""
    return [
        type(said).__name__
        for said in desk.heard
        if not isinstance(said, link.Progress | link.Durable | link.Opened)
    ]


def hold(origin: Origin, *faults: Fault) -> None:
    """Let something happen to the body of the long file."""
    document = origin.pages["/held"]
    assert isinstance(document, Document)
    document.faults.extend(faults)


async def test_the_way_in_is_told_though_nothing_comes(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A server that has let the job in and is silent then: people see that it transfers."""
    hold(origin, Fault(stall=0))
    book = Book.of(tmp_path, origin.url("/held"))
    await desk.start(book)
    await desk.until(book, link.Connected)
    await desk.stop(book)
    assert kinds(desk) == ["Connected", "Stopped"]


async def test_the_way_in_is_told_before_the_end_of_what_is_small(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Together, and in order."""
    assert isinstance(await desk.carry(Book.of(tmp_path, origin.url("/small"))), link.Drained)
    assert kinds(desk) == ["Connected", "FileDone", "Drained"]


async def test_the_way_in_is_told_before_a_failure(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A run that fails in the moment that it keeps to itself was let in all the same."""
    hold(origin, Fault(cut=0))
    failed = await failure(desk, Book.of(tmp_path, origin.url("/held")))
    assert failed.failure.code == "connection_lost"
    assert kinds(desk) == ["Connected", "Failed"]


async def test_the_way_in_is_told_before_a_small_file_cannot_be_kept(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """It was had, and there is no place for it."""
    failed = await failure(desk, Book.of(tmp_path / "nowhere", origin.url("/small")))
    assert failed.failure.code == "local_directory_missing"
    assert kinds(desk) == ["Connected", "Failed"]


async def test_a_failure_takes_nothing_from_who_was_done_before(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Small files that wait for the disk are kept, and told, before the last word."""
    book = Book.of(tmp_path, origin.url("/small"), origin.url("/small"), origin.url("/nothing"))
    failed = await failure(desk, book)
    assert failed.failure.code == "http_404"
    assert kinds(desk) == ["Connected", "FileDone", "FileDone", "Failed"]
    assert book.temporary(1).read_bytes() == b"small"
