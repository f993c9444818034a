"""What servers get wrong, and what the worker makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.origin import (
    Document,
    Origin,
    Seen,
    Version,
    Wire,
    fixed,
    in_turn,
    raw_answer,
    redirect,
)
from tests.support.runs import BODY, TOTAL, broken_off, expecting, failure, limits
from tests.support.worker import LIMITS, PLAIN, Book, Desk, worker_task
from transferd.service.testimony import examine_run
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


Rewrite: TypeAlias = Callable[[int, dict[str, str]], tuple[int, dict[str, str]]]


def lie(status: int | None = None, **changes: str | None) -> Rewrite:
    """Change the headers of a 206; None takes one away."""

    def rewrite(true: int, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        if true != 206:
            return true, headers
        told = headers | {name.replace("_", "-"): value for name, value in changes.items()}
        return status or true, {name: value for name, value in told.items() if value is not None}

    return rewrite


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
        (429, "99999", 86_400.0),
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
    assert origin.seen[1].range_start == kept
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


async def test_headers_without_an_end_are_no_trouble_for_the_worker(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """What a server sends is cut to what the daemon believes before it is told."""
    version = Version(body=BODY, etag=f'"{"v" * 5000}"')
    origin.pages["/f"] = Document(version=version)
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book), link.Drained)
    validators = [durable.validator for durable in desk.of(link.Durable)]
    assert [v.etag for v in validators if v is not None] == [None] * len(validators)
    for message in desk.heard:
        examine_run(message)  # type: ignore[arg-type]


async def test_a_size_beyond_all_files_is_refused_before_it_is_told(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """The daemon would not believe it; and its sums would not hold it."""
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {10**17}\r\nETag: "v1"\r\n\r\nx'
    origin.pages["/f"] = raw_answer(head.encode())
    failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
    assert failed.failure.code == "size_limit"
