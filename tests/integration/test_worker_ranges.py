"""A large file in several ranges at once: when it pays, and what must hold whatever happens."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Fault, Origin, Seen, Version, Wire
from tests.support.runs import expecting
from tests.support.worker import PLAIN, Book, Desk, worker_process, worker_task
from transferd.model.job import Priority
from transferd.transfer.ranges import Splitting, coverage_of
from transferd.wire import link
from transferd.worker import fetch

BODY = random.Random(5).randbytes(6_000_000)  # noqa: S311
OTHER = random.Random(6).randbytes(6_000_000)  # noqa: S311
FRONT = replace(PLAIN, priority=Priority.FOREGROUND)
#: As in earnest, but for small files.
QUICK = Splitting(period=0.1, smallest=300_000, rest=0.2)


@pytest.fixture(autouse=True)
def splitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split what would be too small for that."""
    monkeypatch.setattr(fetch, "SPLITTING", QUICK)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin whose connections are slow, each by itself: four megabytes a second."""
    async with Origin().running() as running:
        running.pages["/f"] = slow()
        yield running


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


def slow(body: bytes = BODY, name: str = '"v1"', *faults: Fault) -> Document:
    """A document that comes slowly."""
    version = Version(body=body, etag=name)
    return Document(version=version, drip=0.01, drip_bytes=40_000, faults=deque(faults))


def ranges(origin: Origin) -> list[Seen]:
    """Requests for a part of the file, but for the last look at its version."""
    asked = [seen for seen in origin.seen if seen.range_start is not None]
    return [seen for seen in asked if seen.range_start != len(BODY) - 1]


async def test_slow_connections_help_each_other(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """Up to four, each with the condition that the file is still the same version."""
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY
    asked = ranges(origin)
    assert len(asked) >= 2
    assert {seen.get("if-range") for seen in asked} == {'"v1"'}
    assert len({seen.connection for seen in origin.seen}) >= 2
    assert any(durable.parts for durable in desk.of(link.Durable))


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
async def test_a_background_job_has_one_connection(
    desk: Desk, origin: Origin, tmp_path: Path, priority: Priority
) -> None:
    """It does not take more than its share of what others wait for."""
    book = Book.of(tmp_path, origin.url("/f"))
    settings = replace(PLAIN, priority=priority)
    assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert (ranges(origin), origin.connections) == ([], 1)


async def test_one_stream_is_one_stream(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """Whoever says so gets no second connection."""
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=replace(FRONT, streams=1)), link.Drained)
    assert (ranges(origin), origin.connections) == ([], 1)


async def test_a_connection_that_brings_nothing_is_given_up(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured gain decides; the first lane fetches what the other one has left."""
    monkeypatch.setattr(fetch, "SPLITTING", replace(QUICK, gain=100.0))
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY
    first, *rest = ranges(origin)
    assert len(rest) == 1
    assert (rest[0].range_start or 0) > (first.range_start or 0)
    assert rest[0].range_end is None


async def test_a_server_without_ranges_sends_the_file_once(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Its 200 is no part, and nobody asks for one again."""
    document = slow()
    document.ranges = False
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert len(ranges(origin)) == 1
    assert desk.of(link.Reset) == []


async def test_no_part_is_of_another_version(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """The file changes before anybody asks for a part: what is here in the end is one version."""
    change = Version(body=OTHER, etag='"v2"')
    origin.pages["/f"] = slow(BODY, '"v1"', Fault(change_to=change))
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == OTHER


async def test_a_part_that_breaks_off_is_fetched_by_who_is_left(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A lost connection of a helper costs nobody the job."""
    origin.pages["/f"] = slow(BODY, '"v1"', Fault(), Fault(cut=200_000), Fault(cut=100_000))
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_what_is_durable_behind_a_hole_is_not_fetched_again(
    origin: Origin, tmp_path: Path, how: str
) -> None:
    """Offsets of each part are durable: the next run asks for the holes only."""
    book = Book.of(tmp_path, origin.url("/f"))
    running = worker_task if how == "stopped" else worker_process
    if how == "killed":
        origin.pages["/f"] = Document(
            version=Version(body=BODY * 10, etag='"v1"'), drip=0.01, drip_bytes=40_000
        )
    whole = BODY if how == "stopped" else BODY * 10
    async with running() as desk:
        await desk.start(book, settings=FRONT)
        await desk.until(book, link.Durable, lambda durable: bool(durable.parts))
        if how == "stopped":
            await desk.stop(book)
        else:
            os.kill(desk.pid, signal.SIGKILL)
    there = coverage_of(book.files[0])
    assert there.parts
    document = origin.pages["/f"]
    assert isinstance(document, Document)
    document.drip = 0.0
    before = len(origin.seen)
    async with worker_task() as desk:
        assert isinstance(await desk.carry(book, settings=PLAIN), link.Drained)
    assert book.temporary().read_bytes() == whole
    asked = [seen for seen in origin.seen[before:] if seen.range_start != len(whole) - 1]
    fetched = sum((each.range_end or len(whole)) - (each.range_start or 0) for each in asked)
    assert fetched == len(whole) - there.size


async def test_stop_ends_all_parts(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """Everything that came over any connection is saved, and the file is free."""
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book, settings=FRONT)
    await desk.until(book, link.Durable, lambda durable: bool(durable.parts))
    await desk.stop(book)
    assert coverage_of(book.files[0]).size > 0
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_a_connection_that_was_asked_too_late_helps_with_the_next_file(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A file may be whole before a server answers for a part of it; nothing is used up by that."""
    document, asked = slow(), asyncio.Event()

    async def slow_to_share(seen: Seen, wire: Wire) -> None:
        if seen.range_start is not None and seen.range_start != len(BODY) - 1:
            asked.set()
            await asyncio.Event().wait()
        await document(seen, wire)

    origin.pages["/late"] = slow_to_share
    book = Book.of(tmp_path, origin.url("/late"), origin.url("/f"))
    later = book.files.pop(1)
    await desk.start(book, settings=replace(FRONT, streams=2))
    await desk.until(book, link.Drained)
    assert asked.is_set()
    book.files[1] = later
    before = len(origin.seen)
    await desk.channel.send(link.Extend(book.job, desk.run, (later,)))
    assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary(1).read_bytes() == BODY
    helped = [
        seen for seen in origin.seen[before:] if seen.range_start not in (None, len(BODY) - 1)
    ]
    assert helped


async def test_a_server_that_is_wrong_about_parts_is_asked_for_the_whole(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Its parts bear every mark of the file, and other bytes: a checksum finds that out."""
    right, wrong = slow(), slow(OTHER)

    async def mixed(seen: Seen, wire: Wire) -> None:
        await (right if seen.range_start is None else wrong)(seen, wire)

    origin.pages["/f"] = mixed
    book = Book.of(tmp_path, origin.url("/f"), checksum=expecting(BODY))
    assert isinstance(await desk.carry(book, settings=FRONT), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert ranges(origin)
    assert [seen.range_start for seen in origin.seen].count(None) == 2
