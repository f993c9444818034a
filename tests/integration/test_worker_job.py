"""Runs in the worker: what it asks, keeps, reports and survives, on a real origin."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from tests.support.origin import (
    DAY_BEFORE,
    Document,
    Fault,
    Origin,
    Seen,
    Version,
    Wire,
    fixed,
    in_turn,
    redirect,
)
from tests.support.worker import LIMITS, PLAIN, Book, Desk, credential, header, worker_task
from transferd.model.credentials import Scheme
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Checksum, File, FileSpec, Inode, JobId, Settings
from transferd.wire import link
from transferd.worker.dispatcher import Dispatcher
from transferd.worker.partfile import DigestStopped, PartFile

BODY = random.Random(7).randbytes(3_000_000)  # noqa: S311
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
    assert 0 < durable.offset == sizes[0] < book.temporary().stat().st_size
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


# ── what servers get wrong ─────────────────────────────────────────────────────────────────

Rewrite: TypeAlias = Callable[[int, dict[str, str]], tuple[int, dict[str, str]]]


def lie(status: int | None = None, **changes: str | None) -> Rewrite:
    """Change the headers of a 206; None takes one away."""

    def rewrite(true: int, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        if true != 206:
            return true, headers
        told = headers | {name.replace("_", "-"): value for name, value in changes.items()}
        return status or true, {name: value for name, value in told.items() if value is not None}

    return rewrite


async def broken_off(desk: Desk, origin: Origin, directory: Path, at: int = 1_000_000) -> Book:
    """A job whose only file has *at* durable bytes; its document is at /f."""
    document = origin.pages["/f"]
    assert isinstance(document, Document)
    document.faults = deque([Fault(cut=at)])
    book = Book.of(directory, origin.url("/f"))
    await failure(desk, book)
    assert book.files[0].bytes_transferred == at
    return book


TOTAL = len(BODY)
LIES: dict[str, Rewrite] = {
    "another start": lie(Content_Range=f"bytes 0-{TOTAL - 1}/{TOTAL}"),
    "another start, right length": lie(Content_Range=f"bytes 999999-{TOTAL - 2}/{TOTAL}"),
    "another total": lie(Content_Range=f"bytes 1000000-{TOTAL}/{TOTAL + 1}"),
    "no total": lie(Content_Range=f"bytes 1000000-{TOTAL - 1}/*"),
    "no range": lie(Content_Range=None),
    "nonsense for a range": lie(Content_Range="bytes 3-1/2"),
    "several parts": lie(Content_Type="multipart/byteranges; boundary=x"),
    "an encoding": lie(Content_Encoding="gzip"),
    "another version": lie(ETag='"v2"'),
    "no version": lie(ETag=None, Last_Modified=None),
    "all of it, under 200": lie(status=200, Content_Range=None),
}


@pytest.mark.parametrize("name", sorted(set(LIES) - {"all of it, under 200"}))
async def test_a_lying_range_costs_one_restart_and_no_wrong_byte(
    desk: Desk, origin: Origin, tmp_path: Path, name: str
) -> None:
    """A 206 that is not what was asked is thrown away unread; the file is asked for whole, once."""
    book = await broken_off(desk, origin, tmp_path)
    document = origin.pages["/f"]
    assert isinstance(document, Document)
    document.rewrite = LIES[name]
    assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.get("range") for seen in origin.seen] == [None, "bytes=1000000-", None]
    assert book.temporary().read_bytes() == BODY


async def test_a_server_that_sends_ranges_nobody_asked_for_is_given_up(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """After one restart there is no second: protocol_error, and what is on disk stays as it was."""
    book = await broken_off(desk, origin, tmp_path)
    part = BODY[5:]
    origin.pages["/f"] = fixed(206, [("Content-Range", f"bytes 5-{TOTAL - 1}/{TOTAL}")], part)
    failed = await failure(desk, book)
    assert failed.failure.code == "protocol_error"
    assert len(origin.seen) == 3
    assert book.files[0].bytes_transferred == 1_000_000
    assert desk.of(link.Reset) == []


async def test_a_range_may_come_in_portions(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """A server may send less than was asked; the rest is asked for again."""
    book = await broken_off(desk, origin, tmp_path)

    async def portion(seen: Seen, wire: Wire) -> None:
        start = seen.range_start
        assert start is not None
        end = min(start + 700_000, TOTAL)
        place = ("Content-Range", f"bytes {start}-{end - 1}/{TOTAL}")
        await wire.answer(206, [place, ("ETag", '"v1"')], BODY[start:end])

    origin.pages["/f"] = portion
    assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.range_start for seen in origin.seen[1:]] == [1_000_000, 1_700_000, 2_400_000]
    assert book.temporary().read_bytes() == BODY


async def test_a_body_longer_than_its_range_is_cut_off_before_it_is_written(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Chunked framing can bring more than was announced: protocol_error, and not a byte of it."""
    book = await broken_off(desk, origin, tmp_path)
    document = origin.pages["/f"]
    assert isinstance(document, Document)
    document.framing = "chunked"
    document.rewrite = lie(Content_Range=f"bytes 1000000-1000009/{TOTAL}")
    failed = await failure(desk, book)
    assert failed.failure.code == "protocol_error"
    assert book.temporary().stat().st_size <= 1_000_010


@pytest.mark.parametrize(("size", "restarts"), [(1_000_000, False), (500_000, True)])
async def test_416_is_the_end_only_for_the_same_version(
    desk: Desk, origin: Origin, tmp_path: Path, size: int, restarts: bool
) -> None:
    """A server that has nothing from there on has either sent it all, or has another file."""
    book = await broken_off(desk, origin, tmp_path)
    if not restarts:
        # Known only from the answer: the first one had named no length.
        book.files[0] = replace(book.files[0], bytes_total=1_500_000)
    origin.pages["/f"] = Document(version=Version(body=BODY[:size]), if_range=False)
    await desk.carry(book)
    assert book.temporary().read_bytes() == BODY[:size]


async def test_an_encoded_body_is_refused(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """gzip nobody asked for would be stored as the file: content_encoded."""
    origin.pages["/f"] = fixed(200, [("Content-Encoding", "gzip")], b"gzipped")
    failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
    assert failed.failure.code == "content_encoded"


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (503, "7", 7.0),
        (429, "86400", 3600.0),
        (429, None, None),
        (503, "soon", None),
        (404, "7", None),
        (500, "7", 7.0),
    ],
)
async def test_retry_after_is_passed_on_capped_for_what_time_may_heal(
    desk: Desk, origin: Origin, tmp_path: Path, status: int, value: str | None, expected: float
) -> None:
    """The server's wish goes with a transient failure; the status is the failure's code."""
    origin.pages["/f"] = fixed(status, [("Retry-After", value)] if value else [])
    failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
    assert (failed.failure.code, failed.failure.http_status) == (f"http_{status}", status)
    assert failed.retry_after == expected


async def test_retry_after_may_be_a_date(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """RFC 9110 10.2.3 allows both forms."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    origin.pages["/f"] = fixed(503, [("Retry-After", moment)])
    failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
    assert failed.retry_after is not None
    assert 50 < failed.retry_after <= 100


async def test_a_body_that_drips_is_stalled_and_one_that_flows_slowly_is_not(
    origin: Origin, tmp_path: Path
) -> None:
    """Fewer than stall_bytes in a stall_window: given up, with what came kept."""
    document = Document(version=Version(body=BODY[:4000]), drip=0.02, drip_bytes=1)
    origin.pages["/f"] = document
    async with worker_task(limits(stall_window=0.4, stall_bytes=500)) as desk:
        book = Book.of(tmp_path, origin.url("/f"))
        failed = await failure(desk, book)
        kept = book.files[0].bytes_transferred
        assert failed.failure.code == "stalled"
        assert 0 < kept < 500
        document.drip_bytes = 100
        assert isinstance(await desk.carry(book), link.Drained)
    assert origin.seen[-1].range_start == kept
    assert book.temporary().read_bytes() == BODY[:4000]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_file_larger_than_wanted_is_refused(
    desk: Desk, origin: Origin, tmp_path: Path, framing: str
) -> None:
    """max_size holds for announced and for unannounced bytes; little more than it is fetched."""
    origin.pages["/f"] = Document(version=Version(body=BODY), framing=framing)
    book = Book.of(tmp_path, origin.url("/f"))
    failed = await failure(desk, book, replace(PLAIN, max_size=2_000_000))
    assert failed.failure.code == "size_limit"
    assert book.temporary().stat().st_size <= (0 if framing == "length" else 2_000_000)


async def test_a_checksum_that_is_wrong_once_costs_one_more_fetch(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A damaged transfer heals itself: from zero, with the old bytes forgotten first."""
    damaged = bytes(reversed(BODY))
    origin.pages["/f"] = in_turn(
        Document(version=Version(body=damaged)), Document(version=Version(body=BODY))
    )
    book = Book.of(tmp_path, origin.url("/f"), checksum=expecting(BODY))
    assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.get("range") for seen in origin.seen] == [None, None]
    assert book.temporary().read_bytes() == BODY


async def test_a_checksum_that_stays_wrong_is_the_owners_to_mend(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Twice wrong: checksum_mismatch; nothing of it is kept as durable."""
    book = Book.of(tmp_path, origin.url("/f"), checksum=expecting(b"something else"))
    failed = await failure(desk, book)
    assert failed.failure.code == "checksum_mismatch"
    assert len(origin.seen) == 2
    assert book.files[0].bytes_transferred == 0
    assert desk.of(link.FileDone) == []


# ── the disk ───────────────────────────────────────────────────────────────────────────────


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


async def test_a_disk_that_fills_up_keeps_what_it_took(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails in its middle leaves a sound part, which is made durable and told."""
    write = PartFile.write

    def write_some(part: PartFile, *chunks: bytes) -> None:
        data = b"".join(chunks)
        room = max(1_500_000 - part.size, 0)
        write(part, data[:room])
        if len(data) > room:
            full = Failure(code="disk_full", message="cannot write: full")
            raise TransferFailed(full)

    book = Book.of(tmp_path, origin.url("/f"))
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "write", write_some)
        failed = await failure(desk, book)
    assert failed.failure.code == "disk_full"
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
    """No parents are made, and no server is asked."""
    failed = await failure(desk, Book.of(tmp_path / "nowhere", origin.url("/f")))
    assert failed.failure.code == "local_directory_missing"
    assert origin.seen == []


# ── redirects ──────────────────────────────────────────────────────────────────────────────


async def test_redirects_are_followed_with_the_range_on_board(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A resumed file may have moved; its condition is asked at the new place."""
    book = await broken_off(desk, origin, tmp_path)
    origin.pages["/moved/g"] = origin.pages["/f"]
    origin.pages["/f"] = redirect("/moved/here", 301)
    origin.pages["/moved/here"] = redirect("g", 307)
    assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.path for seen in origin.seen[1:]] == ["/f", "/moved/here", "/moved/g"]
    assert {seen.get("if-range") for seen in origin.seen[1:]} == {'"v1"'}
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("/f", "redirect_limit"),
        ("ftp://h/f", "redirect_refused"),
        ("http://user:pw@h/f", "redirect_refused"),
        ("", "redirect_invalid"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_named(
    desk: Desk, origin: Origin, tmp_path: Path, location: str, code: str
) -> None:
    """Loops are bounded, and what a redirect may not do is said."""
    origin.pages["/f"] = redirect(location)
    failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
    assert failed.failure.code == code
    assert len(origin.seen) == (LIMITS.max_redirects + 1 if code == "redirect_limit" else 1)


# ── stopping ───────────────────────────────────────────────────────────────────────────────


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
    part = PartFile.open(book.files[0].spec.local, str(book.temporary()), 1_000_001)
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

    def slow(local: str, temporary: str, offset: int, inode: Inode | None) -> PartFile:
        part = opened(local, temporary, offset, inode)
        opening.set()
        threading.Event().wait(0.2)
        return part

    opened = PartFile.open
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "open", slow)
        await desk.start(book)
        await asyncio.to_thread(opening.wait, 20)
        await desk.stop(book)
    PartFile.open(*place, 0).close()


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
        await desk.channel.send(link.Inspect(1, ()))
        await desk.until(book, link.Inspected)
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
    await desk.channel.send(link.Inspect(11, (local, str(tmp_path / "no" / "f"))))
    inspected = await desk.until(book, link.Inspected)
    assert inspected.request == 11
    assert [(r.number, r.code) for r in inspected.refusals] == [(1, "directory_missing")]
    publication = link.Publication(0, local, temporary, file.inode)
    await desk.channel.send(link.Publish(12, (publication,), True))
    published = await desk.until(book, link.Published)
    assert published == link.Published(12, ())
    assert (tmp_path / "0-f").read_bytes() == BODY
    await desk.channel.send(link.Discard(13, (link.Leftover(5, temporary),)))
    assert await desk.until(book, link.Discarded) == link.Discarded(13, ())
    said = tmp_path / "said"
    argv = ("/bin/sh", "-c", f"cat > {said}; exit 3")
    await desk.channel.send(link.RunCommand(14, argv, {}, '{"a": 1}'))
    ended = await desk.until(book, link.CommandEnded)
    assert (ended.request, ended.status, said.read_text()) == (14, 3, '{"a": 1}')


async def test_a_question_is_answered_even_by_a_faulty_worker(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked waits for the answer: a fault refuses everything that was asked."""

    def faulty(files: object, overwrite: bool) -> tuple[link.Refusal, ...]:
        raise RuntimeError("boom")

    monkeypatch.setattr("transferd.worker.dispatcher.publish", faulty)
    publication = link.Publication(4, "/a", "/b", Inode(device=1, number=2))
    await desk.channel.send(link.Publish(1, (publication,), True))
    published = await desk.until(Book(), link.Published)
    assert [(r.number, r.code) for r in published.refusals] == [(4, "worker_fault")]
