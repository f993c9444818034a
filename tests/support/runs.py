"""Runs on a worker, as several tests need them."""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.support.origin import (
    Document,
    Fault,
    Origin,
)
from tests.support.worker import LIMITS, PLAIN, Book, Desk
from transferd.model.job import Checksum, Settings
from transferd.wire import link

BODY = random.Random(7).randbytes(3_000_000)  # noqa: S311
TOTAL = len(BODY)


async def failure(desk: Desk, book: Book, settings: Settings = PLAIN) -> link.Failed:
    """Run to a failure."""
    failed = await desk.carry(book, settings=settings)
    assert isinstance(failed, link.Failed)
    return failed


def limits(**changes: float) -> link.WorkerSettings:
    """Other limits than the usual ones of tests."""
    return msgspec.structs.replace(LIMITS, **changes)


def expecting(body: bytes) -> Checksum:
    """The checksum of *body*."""
    return Checksum(algorithm="sha256", digest=hashlib.sha256(body).hexdigest())


@contextlib.contextmanager
def size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size* bytes in the block: write(2) fails there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def broken_off(
    desk: Desk,
    origin: Origin,
    directory: Path,
    at: int = 1_000_000,
    *,
    settings: Settings = PLAIN,
) -> Book:
    """A job whose only file has *at* durable bytes; its document is at /f."""
    document = origin.pages["/f"]
    assert isinstance(document, Document)
    document.faults = deque([Fault(cut=at)])
    book = Book.of(directory, origin.url("/f"))
    await failure(desk, book, settings)
    assert book.files[0].bytes_transferred == at
    return book
