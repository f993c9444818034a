"""Runs in the worker: what it asks, keeps and reports, on a real origin."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.origin import (
    DAY_BEFORE,
    Document,
    Fault,
    Origin,
    Version,
    fixed,
    in_turn,
)
from tests.support.runs import BODY, expecting, failure, limits
from tests.support.worker import Book, Desk, credential, header, worker_task
from transferd.model.credentials import Scheme
from transferd.model.job import File, FileSpec, Inode, JobId
from transferd.wire import chores, link
from transferd.worker.dispatcher import Dispatcher
from transferd.worker.partfile import DigestStopped, PartFile

OTHER_JOB = JobId("00000000-0000-4000-8000-000000000002")


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


# ── whole files ────────────────────────────────────────────────────────────────────────────


async def test_files_arrive_in_order_and_the_run_can_be_extended(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """One run carries many files; Drained asks for more, Extend brings them, Finish ends it."""
    origin.pages["/g"] = Document(version=Version(body=b"g" * 10))
    book = Book.of(tmp_path, origin.url("/f"), origin.url("/g"))
    await desk.start(book)
    await desk.until(book, link.Drained)
    later = Book.of(tmp_path, *[origin.url("/f")] * 3).files[2]
    book.files[2] = later
    await desk.channel.send(link.Extend(book.job, desk.run, (later,)))
    assert isinstance(await desk.end(book), link.Drained)
    assert [message.file for message in desk.of(link.FileDone)] == [0, 1, 2]
    assert len(desk.of(link.Connected)) == 1
    assert [book.temporary(index).read_bytes() for index in range(3)] == [BODY, b"g" * 10, BODY]
    assert origin.connections == 1
    assert all(file.inode is not None and not file.length_unverified for file in book.open)


@pytest.mark.parametrize("size", [0, 1, 1_048_576, 2_500_001])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_every_size_arrives_whole_in_every_framing(
    desk: Desk, origin: Origin, tmp_path: Path, size: int, framing: str
) -> None:
    """Only a body that ends with its connection is marked as one whose length nobody verified."""
    origin.pages["/f"] = Document(version=Version(body=BODY[:size]), framing=framing)
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == BODY[:size]
    (done,) = desk.of(link.FileDone)
    assert (done.size, done.length_unverified) == (size, framing == "close")


async def test_the_file_gets_the_time_of_its_version(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Last-Modified becomes the time of the file on disk (BITS)."""
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.carry(book)
    expected = datetime(2026, 1, 5, 10, tzinfo=UTC).timestamp()
    assert DAY_BEFORE.startswith("Mon, 05 Jan 2026 10")
    assert book.temporary().stat().st_mtime == expected


async def test_the_first_request_is_a_get_without_a_range(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """No HEAD, no Range, identity coding: what presigned URLs and plain servers accept."""
    book = Book.of(tmp_path, origin.url("/f?sig=a%2Bb"))
    await desk.carry(book)
    (seen,) = origin.seen
    assert (seen.method, seen.target) == ("GET", "/f?sig=a%2Bb")
    assert {name for name, _ in seen.headers} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
    }
    assert seen.get("accept-encoding") == "identity"


async def test_progress_is_told_no_more_often_than_asked(origin: Origin, tmp_path: Path) -> None:
    """Progress is for people; a fast body does not flood the link."""
    async with worker_task(limits(progress_seconds=3600.0)) as desk:
        book = Book.of(tmp_path, origin.url("/f"))
        await desk.carry(book)
    (progress,) = desk.of(link.Progress)
    assert 0 < progress.received <= len(BODY)
    assert progress.total == len(BODY)


# ── durability ─────────────────────────────────────────────────────────────────────────────


async def test_offsets_become_durable_while_bytes_move(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A durable offset comes every durable_seconds, with the version that it belongs to."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=2_000_000)]))
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await desk.until(book, link.Durable, lambda durable: durable.offset == 2_000_000)
    document.go.set()
    assert isinstance(await desk.end(book), link.Drained)
    for durable in desk.of(link.Durable):
        assert durable.total == len(BODY)
        assert durable.validator is not None
        assert durable.validator.etag == '"v1"'
    offsets = [durable.offset for durable in desk.of(link.Durable)]
    assert offsets == sorted(set(offsets))


async def test_an_offset_is_told_only_after_the_flush_that_began_after_its_bytes(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written while a flush is under way is not covered by it."""
    sizes: list[int] = []
    flush, go = PartFile.sync, threading.Event()

    def sync(part: PartFile) -> None:
        sizes.append(part.size)
        go.wait(20)
        flush(part)

    monkeypatch.setattr(PartFile, "sync", sync)
    origin.pages["/f"] = Document(version=Version(body=BODY), drip=0.01, drip_bytes=100_000)
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.start(book)
    await desk.until(book, link.Progress, lambda progress: progress.received == len(BODY))
    assert desk.of(link.Durable) == []
    go.set()
    durable = await desk.until(book, link.Durable)
    assert 0 < durable.offset <= sizes[0] < book.temporary().stat().st_size
    await desk.end(book)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_truncated_body_is_a_lost_connection_and_what_came_is_kept(
    desk: Desk, origin: Origin, tmp_path: Path, framing: str
) -> None:
    """Every byte that arrived counts; a later run asks for the rest only, where it can."""
    document = Document(version=Version(body=BODY), framing=framing)
    document.faults = deque([Fault(cut=1_234_567)])
    origin.pages["/f"] = document
    book = Book.of(tmp_path, origin.url("/f"))
    failed = await failure(desk, book)
    assert failed.failure.code == "connection_lost"
    assert failed.failure.file == book.files[0].spec.local
    assert book.temporary().stat().st_size == 1_234_567
    document.framing = "length"
    assert isinstance(await desk.carry(book), link.Drained)
    expected = "bytes=1234567-" if framing == "length" else None
    assert origin.seen[-1].get("range") == expected
    assert book.temporary().read_bytes() == BODY


async def test_all_bytes_on_disk_need_no_request(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that finds the last byte there verifies and finishes; the server is not bothered."""
    reading = threading.Event()

    def endless(part: PartFile, algorithm: str, stop: threading.Event) -> str:
        reading.set()
        stop.wait(20)
        raise DigestStopped("stopped")

    book = Book.of(tmp_path, origin.url("/f"), checksum=expecting(BODY))
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "digest", endless)
        await desk.start(book)
        await asyncio.to_thread(reading.wait, 20)
        await desk.stop(book)
    assert book.files[0].bytes_transferred == len(BODY)
    assert isinstance(await desk.carry(book), link.Drained)
    assert len(origin.seen) == 1
    assert book.temporary().read_bytes() == BODY


# ── one job and the others ─────────────────────────────────────────────────────────────────


async def test_a_fault_of_ours_fails_its_job_and_no_other(
    desk: Desk, origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """worker_fault names the kind of the exception; its text, which may hold a secret, stays."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=9)]))
    origin.pages["/f"] = document
    good = Book.of(tmp_path, origin.url("/f"))
    await desk.start(good)
    await document.stalled.wait()
    local = str(tmp_path / "bad")
    bad = Book(
        files={0: File(index=0, spec=FileSpec(remote="http://h:hunter2/", local=local))},
        job=OTHER_JOB,
    )
    failed = await desk.carry(bad)
    assert isinstance(failed, link.Failed)
    assert failed.job == OTHER_JOB
    assert failed.failure.code == "worker_fault"
    assert "ValueError" in failed.failure.message
    assert "hunter2" not in caplog.text + repr(caplog.records) + repr(desk.heard)
    document.go.set()
    await desk.channel.send(link.Finish(good.job, 1))
    assert isinstance(await desk.end(good), link.Drained)


async def test_the_secrets_of_a_run_are_wiped_when_it_is_over(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finish, Failed and Stopped alike: what was revealed for the run is zeros afterwards."""
    starts: list[link.Start] = []
    take = Dispatcher._take

    def noting(dispatcher: Dispatcher, message: link.ToWorker) -> None:
        if isinstance(message, link.Start):
            starts.append(message)
        take(dispatcher, message)

    monkeypatch.setattr(Dispatcher, "_take", noting)
    document = Document(version=Version(body=BODY))
    origin.pages["/f"] = in_turn(document, fixed(404), document)
    for ending in ("drained", "failed", "stopped"):
        book = Book.of(tmp_path, origin.url("/f"))
        document.faults = deque([Fault(stall=9 if ending == "stopped" else None)])
        await desk.start(book, credentials=[credential(Scheme.BASIC)], headers=[header("X-K", "k")])
        if ending == "stopped":
            await document.stalled.wait()
            await desk.stop(book)
        else:
            await desk.end(book)
        # An answer to a question shows that the worker has handled everything before it.
        await desk.channel.send(chores.Inspect(1, ()))
        await desk.until(book, chores.Inspected)
        assert [len(c.password) for c in starts[-1].credentials] == [0]
        assert [len(h.value) for h in starts[-1].headers] == [0]


async def test_questions_are_answered_beside_the_runs(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Inspect, Publish, Discard and RunCommand come back under their numbers."""
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.carry(book)
    file = book.files[0]
    assert file.inode is not None
    local, temporary = file.spec.local, str(book.temporary())
    await desk.channel.send(chores.Inspect(11, (local, str(tmp_path / "no" / "f"))))
    inspected = await desk.until(book, chores.Inspected)
    assert inspected.request == 11
    assert [(r.number, r.code) for r in inspected.refusals] == [(1, "local_directory_missing")]
    publication = chores.Publication(0, local, temporary, file.inode, True)
    await desk.channel.send(chores.Publish(12, (publication,)))
    published = await desk.until(book, chores.Published)
    assert published == chores.Published(12, ())
    assert (tmp_path / "0-f").read_bytes() == BODY
    await desk.channel.send(chores.Discard(13, (chores.Leftover(5, temporary),)))
    assert await desk.until(book, chores.Discarded) == chores.Discarded(13, ())
    said = tmp_path / "said"
    argv = ("/bin/sh", "-c", f"cat > {said}; exit 3")
    await desk.channel.send(chores.RunCommand(14, argv, {}, '{"a": 1}'))
    ended = await desk.until(book, chores.CommandEnded)
    assert (ended.request, ended.status, said.read_text()) == (14, 3, '{"a": 1}')


async def test_a_question_is_answered_even_by_a_faulty_worker(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked waits for the answer: a fault refuses everything that was asked."""

    def faulty(files: object, overwrite: bool) -> tuple[chores.Refusal, ...]:
        raise RuntimeError("boom")

    monkeypatch.setattr("transferd.worker.dispatcher.publish", faulty)
    publication = chores.Publication(4, "/a", "/b", Inode(device=1, number=2), True)
    await desk.channel.send(chores.Publish(1, (publication,)))
    published = await desk.until(Book(), chores.Published)
    assert [(r.number, r.code) for r in published.refusals] == [(4, "worker_fault")]
