"""No mixed file, ever: whatever the origin does, the bytes of one version are kept together."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import (
    DAY_BEFORE,
    TODAY,
    Document,
    Fault,
    Origin,
    Seen,
    Version,
    Wire,
    fixed,
    in_turn,
)
from tests.support.worker import Book, Desk, worker_task
from transferd.wire import link
from transferd.worker.partfile import PartFile

SIZE = 300_000
CUT = 200_000
LATER = "Mon, 05 Jan 2026 11:00:00 GMT"


def bytes_of(seed: int, size: int = SIZE) -> bytes:
    """Bytes that no other seed has."""
    return random.Random(seed).randbytes(size)  # noqa: S311


#: Kind → the validators of the first version and those of the second.
KINDS: dict[str, tuple[dict[str, str | None], dict[str, str | None]]] = {
    "strong tag": (
        {"etag": '"v1"', "last_modified": None},
        {"etag": '"v2"', "last_modified": None},
    ),
    "strong tag and date": (
        {"etag": '"v1"', "last_modified": DAY_BEFORE},
        {"etag": '"v2"', "last_modified": LATER},
    ),
    "strong tag, date unchanged": (
        {"etag": '"v1"', "last_modified": DAY_BEFORE},
        {"etag": '"v2"', "last_modified": DAY_BEFORE},
    ),
    "weak tag": (
        {"etag": 'W/"v1"', "last_modified": DAY_BEFORE},
        {"etag": 'W/"v2"', "last_modified": LATER},
    ),
    "weak tag unchanged": (
        {"etag": 'W/"v"', "last_modified": DAY_BEFORE},
        {"etag": 'W/"v"', "last_modified": DAY_BEFORE},
    ),
    "date only": (
        {"etag": None, "last_modified": DAY_BEFORE},
        {"etag": None, "last_modified": LATER},
    ),
    "date of the same second": (
        {"etag": None, "last_modified": TODAY},
        {"etag": None, "last_modified": TODAY},
    ),
    "nothing": ({"etag": None, "last_modified": None}, {"etag": None, "last_modified": None}),
}
#: Kinds whose first version can be recognised again.
RESUMABLE = {"strong tag", "strong tag and date", "strong tag, date unchanged", "date only"}
SIZES = {"same size": SIZE, "smaller": CUT // 2, "as long as the part": CUT, "larger": SIZE * 2}


def version(kind: str, number: int, size: int = SIZE) -> Version:
    """One of the two versions of a kind."""
    marks = KINDS[kind][number - 1]
    return replace(
        Version(body=bytes_of(number, size)),
        etag=marks["etag"],
        last_modified=marks["last_modified"],
    )


async def interrupted(desk: Desk, book: Book, document: Document) -> None:
    """Run until the first answer breaks off after CUT bytes."""
    document.faults = deque([Fault(cut=CUT)])
    failed = await desk.carry(book)
    assert isinstance(failed, link.Failed)
    assert failed.failure.code == "connection_lost"


@pytest.mark.parametrize(
    ("kind", "size", "manner"),
    list(itertools.product(KINDS, SIZES, ["honours", "ignores If-Range", "has no ranges"])),
)
async def test_a_file_that_changed_between_two_answers_is_fetched_anew(
    tmp_path: Path, kind: str, size: str, manner: str
) -> None:
    """Whatever marks the versions, and whatever the origin makes of conditions: never a mix."""
    second = version(kind, 2, SIZES[size])
    document = Document(version=version(kind, 1), if_range=manner != "ignores If-Range")
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        await interrupted(desk, book, document)
        assert book.files[0].bytes_transferred == (CUT if kind in RESUMABLE else 0)
        document.version, document.ranges = second, manner != "has no ranges"
        assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == second.body
    assert book.files[0].completed
    if kind in RESUMABLE:
        assert len(desk.of(link.Reset)) == 1


@pytest.mark.parametrize("kind", sorted(RESUMABLE))
@pytest.mark.parametrize("honours", [True, False])
async def test_a_file_that_did_not_change_goes_on_where_it_was(
    tmp_path: Path, kind: str, honours: bool
) -> None:
    """Only the rest is asked for, if it is still the same version; nothing is reset."""
    document = Document(version=version(kind, 1), if_range=honours)
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        await interrupted(desk, book, document)
        assert isinstance(await desk.carry(book), link.Drained)
    first, second = origin.seen
    assert (first.get("range"), first.get("if-range")) == (None, None)
    assert second.get("range") == f"bytes={CUT}-"
    assert second.get("if-range") == (document.version.etag or document.version.last_modified)
    assert desk.of(link.Reset) == []
    assert book.temporary().read_bytes() == document.version.body


@pytest.mark.parametrize("kind", sorted(set(KINDS) - RESUMABLE))
async def test_an_offset_that_could_not_be_continued_is_never_called_durable(
    tmp_path: Path, kind: str
) -> None:
    """Bytes of a version that cannot be recognised again are worth nothing to a later run."""
    document = Document(version=version(kind, 1), drip=0.001, drip_bytes=20_000)
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        assert isinstance(await desk.carry(book), link.Drained)
    assert desk.of(link.Durable) == []
    assert book.temporary().read_bytes() == document.version.body


async def test_a_change_during_an_answer_leaves_that_answer_whole(tmp_path: Path) -> None:
    """One answer is one version, even if the origin has another one by its end."""
    document = Document(version=version("strong tag", 1))
    document.faults = deque([Fault(change_to=version("strong tag", 2))])
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == bytes_of(1)


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_file_that_is_overwritten_during_an_answer_is_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    """A server that reads while somebody writes sends two versions in one answer."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    document = Document(version=version("strong tag", 1), ranges=ranges)
    document.faults = deque([Fault(overwrite_with=version("strong tag", 2))])
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == bytes_of(2)


async def test_a_file_that_never_stands_still_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 1 before progress: no version was whole."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    document = Document(version=Version(body=bytes_of(1), etag='"v1"'))
    document.faults = deque(
        Fault(overwrite_with=Version(body=bytes_of(n), etag=f'"v{n}"'))
        for n in range(2, 20)
        for _ in range(2)
    )
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        end = await desk.carry(book)
    assert isinstance(end, link.Failed)
    assert end.failure.code == "remote_unstable"


async def test_a_check_that_cannot_be_made_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes came in one answer of the right length; a server that is gone now is no news."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    document = Document(version=version("strong tag", 1))
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = in_turn(document, fixed(404), document)
        book = Book.of(tmp_path, origin.url("/f"))
        assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == bytes_of(1)


async def test_a_file_that_changes_at_every_break_ends_as_the_last_version(tmp_path: Path) -> None:
    """Reset after reset, the books and the bytes stay of one version."""
    document = Document(version=version("strong tag", 1))
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        for number in range(1, 5):
            document.version = Version(body=bytes_of(number), etag=f'"v{number}"')
            await interrupted(desk, book, document)
            kept = book.files[0]
            assert kept.validator is not None
            assert kept.validator.etag == f'"v{number}"'
            part = book.temporary().read_bytes()[: kept.bytes_transferred]
            assert part == document.version.body[:CUT]
        assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == bytes_of(4)


async def test_old_bytes_are_overwritten_only_after_the_queue_has_forgotten_them(
    tmp_path: Path,
) -> None:
    """A crash between Reset and Recorded must find the old version under its old offset."""
    document = Document(version=version("strong tag", 1))
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        await interrupted(desk, book, document)
        document.version = version("strong tag", 2)
        desk.records = False
        await desk.start(book)
        reset = await desk.until(book, link.Reset)
        await origin.saw(2)
        assert book.temporary().read_bytes() == bytes_of(1)[:CUT]
        assert desk.of(link.Progress)[-1].run == 1
        await desk.channel.send(link.Recorded(reset.job, reset.run, reset.file))
        assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary().read_bytes() == bytes_of(2)


async def test_no_old_offset_is_told_after_it_was_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush of old bytes that ends late must not revive what a Reset has just thrown away."""
    first, second = version("strong tag", 1), version("strong tag", 2)
    flush = PartFile.sync

    def slow(part: PartFile) -> None:
        threading.Event().wait(0.3)
        flush(part)

    async def portion_then_change(seen: Seen, wire: Wire) -> None:
        if seen.range_start != CUT:
            await wire.answer(200, second.headers(), second.body)
            return
        place = ("Content-Range", f"bytes {CUT}-{CUT + 49_999}/{SIZE}")
        await wire.head(206, [*first.headers(), place, ("Content-Length", "50000")])
        for start in range(CUT, CUT + 50_000, 10_000):
            await asyncio.sleep(0.02)
            await wire.raw(first.body[start : start + 10_000])

    document = Document(version=first)
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        await interrupted(desk, book, document)
        monkeypatch.setattr(PartFile, "sync", slow)
        origin.pages["/f"] = portion_then_change
        assert isinstance(await desk.carry(book), link.Drained)
    reset = desk.heard.index(desk.of(link.Reset)[0])
    old = [m for m in desk.of(link.Durable) if m.validator and m.validator.etag == '"v1"']
    assert old[-1].offset > CUT
    assert desk.heard.index(old[-1]) < reset
    assert book.temporary().read_bytes() == second.body


@pytest.mark.parametrize("loss", ["gone", "shorter", "replaced"])
async def test_partial_data_that_is_not_what_it_was_is_forgotten_first(
    tmp_path: Path, loss: str
) -> None:
    """The queue's offset counts only with the very file that it was counted in."""
    document = Document(version=version("strong tag", 1))
    async with Origin().running() as origin, worker_task() as desk:
        origin.pages["/f"] = document
        book = Book.of(tmp_path, origin.url("/f"))
        await interrupted(desk, book, document)
        part = book.temporary()
        if loss == "shorter":
            os.truncate(part, CUT - 1)
        else:
            part.rename(tmp_path / "elsewhere")
        if loss == "replaced":
            part.write_bytes(b"x" * SIZE)
        assert isinstance(await desk.carry(book), link.Drained)
    assert [seen.get("range") for seen in origin.seen] == [None, None]
    first, second = (desk.heard.index(message) for message in desk.of(link.Opened))
    assert first < desk.heard.index(desk.of(link.Reset)[0]) < second
    assert part.read_bytes() == bytes_of(1)
