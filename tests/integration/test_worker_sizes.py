"""A bounded run: no body is fetched before there is room for it in the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Origin, Version
from tests.support.runs import BODY
from tests.support.worker import Book, Desk, worker_task
from transferd.wire import link


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


async def test_the_size_is_named_and_nothing_is_written_before_it_is_recorded(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Goal: refused before its body is fetched, as far as that is possible."""
    desk.records = False
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book, bounded=True)
    sized = await desk.until(book, link.Sized)
    assert (sized.file, sized.total) == (0, len(BODY))
    assert book.temporary().stat().st_size == 0
    assert not desk.of(link.Connected)
    await desk.channel.send(link.Recorded(book.job, desk.run, 0))
    assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert len(desk.of(link.Sized)) == 1


async def test_a_run_without_room_leaves_at_once(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Stop comes in place of the record; the next run asks again, and may go on."""
    desk.records = False
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book, bounded=True)
    await desk.until(book, link.Sized)
    await desk.stop(book)
    assert book.temporary().stat().st_size == 0
    desk.records = True
    await desk.start(book, bounded=True)
    assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_a_size_that_is_known_is_not_named_again(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Such a file is counted already; an empty one counts nothing."""
    origin.pages["/empty"] = Document(version=Version(body=b""))
    book = Book.of(tmp_path, origin.url("/f"), origin.url("/empty"))
    book.files[0] = replace(book.files[0], bytes_total=len(BODY))
    await desk.start(book, bounded=True)
    assert isinstance(await desk.end(book), link.Drained)
    assert not desk.of(link.Sized)


async def test_a_run_without_bounds_names_no_size(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Where nothing depends on it, no file waits for the queue."""
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    assert isinstance(await desk.end(book), link.Drained)
    assert not desk.of(link.Sized)
