"""Disks that are full, broken or not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.origin import (
    Document,
    Origin,
    Version,
)
from tests.support.runs import BODY, TOTAL, broken_off, failure, size_limit
from tests.support.worker import Book, Desk, worker_task
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
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


async def test_a_file_that_does_not_fit_is_not_begun(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """disk_full before the first byte, with what is on disk kept; a known size asks nobody."""
    book = await broken_off(desk, origin, tmp_path)
    monkeypatch.setattr(PartFile, "free_space", lambda part: TOTAL - 1_000_001)
    failed = await failure(desk, book)
    assert failed.failure.code == "disk_full"
    assert "2000000 bytes are missing, and 1999999 are free" in failed.failure.message
    assert len(origin.seen) == 1
    monkeypatch.undo()
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_a_write_that_fails_in_its_middle_keeps_what_it_took(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """There is a sound part of it, which is made durable and told: as on a disk that is full."""
    book = Book.of(tmp_path, origin.url("/f"))
    with size_limit(1_500_000):
        failed = await failure(desk, book)
    assert failed.failure.code == "local_too_large"
    assert book.files[0].bytes_transferred == 1_500_000
    assert isinstance(await desk.carry(book), link.Drained)
    assert origin.seen[-1].range_start == 1_500_000
    assert book.temporary().read_bytes() == BODY


async def test_a_flush_that_fails_is_never_called_durable(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed flush no offset is told, and the file is not done."""

    def broken(part: PartFile) -> None:
        raise TransferFailed(Failure(code="local_io", message="cannot make durable: I/O error"))

    monkeypatch.setattr(PartFile, "sync", broken)
    origin.pages["/f"] = Document(version=Version(body=BODY), drip=0.005, drip_bytes=100_000)
    book = Book.of(tmp_path, origin.url("/f"))
    failed = await failure(desk, book)
    assert failed.failure.code == "local_io"
    assert desk.of(link.Durable) == []
    assert desk.of(link.FileDone) == []


async def test_a_directory_that_is_missing_is_the_owners_to_mend(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """No parents are made."""
    failed = await failure(desk, Book.of(tmp_path / "nowhere", origin.url("/f")))
    assert failed.failure.code == "local_directory_missing"
    assert not (tmp_path / "nowhere").exists()
