"""Whole bodies, on every way that a body may go from its connection to its file."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Fault, Seen, Version, Wire, in_turn
from tests.support.runs import BODY, broken_off, expecting, limits
from tests.support.ways import Way
from tests.support.worker import Book
from transferd.wire import link
from transferd.worker.flow import PlainFlow, SecureFlow
from transferd.worker.handler import LONG

#: Several times as much as any buffer holds.
LARGE = random.Random(13).randbytes(9_000_001)  # noqa: S311
#: What a flow copies at once, and what a pipe holds.
BUFFER, PIPE = 128 * 1024, 1024 * 1024
#: After a file that is larger, its server is asked whether it has changed.
SETTLED = 4 * 1024 * 1024

FLOWS = {
    "splice": (PlainFlow, True),
    "copy": (PlainFlow, False),
    "copy-socket": (PlainFlow, False),
    "tls": (SecureFlow, False),
}


async def test_a_long_body_goes_its_way_and_arrives_whole(way: Way, tmp_path: Path) -> None:
    """Many buffers full, byte for byte; and it does go that way, or these tests prove nothing."""
    way.serve(LARGE)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary().read_bytes() == LARGE
    assert way.flows == ([FLOWS[way.name]] if way.pumped else [])
    (done,) = desk.of(link.FileDone)
    assert (done.size, done.length_unverified) == (len(LARGE), False)


async def test_every_size_around_a_border_arrives_whole(way: Way, tmp_path: Path) -> None:
    """One byte more or less than what is long, than a buffer, than a pipe or a TLS record."""
    borders = (LONG, LONG + BUFFER, PIPE, PIPE + LONG, 2 * PIPE, LONG + 16 * 1024)
    sizes = [border + more for border in borders for more in (-1, 0, 1)]
    for size in sizes:
        way.serve(LARGE[:size], path=f"/{size}")
    book = way.book(tmp_path, *(f"/{size}" for size in sizes))
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert [book.temporary(n).read_bytes() for n in range(len(sizes))] == [
        LARGE[:size] for size in sizes
    ]
    assert way.origin.connections == 1


async def test_a_connection_is_kept_after_a_long_body(way: Way, tmp_path: Path) -> None:
    """Taken past the parser or not, the next answer begins where the body ended."""
    way.serve(b"small", path="/small")
    book = way.book(tmp_path, "/f", "/small", "/f", "/f", "/small")
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    wanted = [BODY, b"small", BODY, BODY, b"small"]
    assert [book.temporary(n).read_bytes() for n in range(5)] == wanted
    assert way.origin.connections == 1


async def test_a_connection_is_kept_whenever_the_loop_looks_at_the_body(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread may be found to have left at any turn: nothing is asked before all is given back.

    The loop looks all the time here, so that some look falls on each of these turns.
    """
    monkeypatch.setattr("transferd.worker.body._LOOK", 0.0)
    way.serve(BODY[: LONG + 1])
    book = way.book(tmp_path, *["/f"] * 60)
    async with way.worker(limits(stall_window=3.0)) as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert {book.temporary(n).read_bytes() for n in range(60)} == {BODY[: LONG + 1]}
    assert way.origin.connections == 1


async def test_a_body_that_comes_in_crumbs_arrives_whole(way: Way, tmp_path: Path) -> None:
    """A pipe has room for so many pieces only, whatever their size; and so has a TLS record."""
    body = BODY[: LONG + 50_000]

    async def crumbs(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", str(len(body))), ("ETag", '"v1"')])
        for start in range(0, len(body), 97):
            await wire.raw(body[start : start + 97])
            if start % 50 == 0:
                await asyncio.sleep(0)

    way.origin.pages["/f"] = crumbs
    book = way.book(tmp_path)
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary().read_bytes() == body


async def test_a_body_is_gone_on_with_in_its_middle(way: Way, tmp_path: Path) -> None:
    """The rest of a file is a long body of its own, at a place of its own."""
    async with way.worker() as desk:
        book = await broken_off(desk, way.origin, tmp_path, 1_234_567, settings=way.settings)
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert [seen.range_start for seen in way.origin.seen] == [None, 1_234_567]
    assert book.temporary().read_bytes() == BODY


async def test_a_range_may_come_in_long_portions(way: Way, tmp_path: Path) -> None:
    """Each portion is a body that ends before the file does; the connection goes on."""

    async def portion(seen: Seen, wire: Wire) -> None:
        start = seen.range_start
        assert start is not None
        end = min(start + 700_000, len(BODY))
        place = ("Content-Range", f"bytes {start}-{end - 1}/{len(BODY)}")
        await wire.answer(206, [place, ("ETag", '"v1"')], BODY[start:end])

    async with way.worker() as desk:
        book = await broken_off(desk, way.origin, tmp_path, settings=way.settings)
        way.origin.pages["/f"] = portion
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert [seen.range_start for seen in way.origin.seen[1:]] == [1_000_000, 1_700_000, 2_400_000]
    assert way.origin.connections == 2
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["once", "asked again"])
async def test_what_follows_a_body_unasked_is_no_answer(
    way: Way, tmp_path: Path, body: bytes
) -> None:
    """A second answer smuggled in behind a long body is not taken for that of the next request.

    Also where TLS has decrypted it together with the end of the body already, so that nothing of
    it waits in the kernel.
    """
    smuggled = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\nwrong'

    async def talkative(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", str(len(body))), ("ETag", '"v1"')])
        await wire.raw(body[:-100])
        await wire.raw(body[-100:] + smuggled)

    way.origin.pages["/f"] = in_turn(talkative, Document(version=Version(body=body)))
    way.serve(b"right", path="/g")
    book = way.book(tmp_path, "/f", "/g")
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary(0).read_bytes() == body
    assert book.temporary(1).read_bytes() == b"right"
    assert [seen.connection for seen in way.origin.seen][:2] == [1, 2]
    assert len(way.origin.requests("/f")) == 1 + (len(body) > SETTLED)


async def test_a_long_body_that_nobody_wants_is_no_trouble(way: Way, tmp_path: Path) -> None:
    """An error may have a long page: it is read, or given up with its connection."""

    async def page(seen: Seen, wire: Wire) -> None:
        await wire.answer(302, [("Location", "/g")], BODY)

    way.origin.pages["/f"] = page
    way.serve(path="/g")
    book = way.book(tmp_path, "/f", "/f")
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert [book.temporary(n).read_bytes() for n in range(2)] == [BODY, BODY]


@pytest.mark.parametrize("wrong", [1, 2])
async def test_a_checksum_is_verified_on_every_way(way: Way, tmp_path: Path, wrong: int) -> None:
    """Wrong once: fetched once more. Wrong twice: checksum_mismatch, and nothing is kept."""
    damaged = Document(version=Version(body=BODY[:-1] + bytes([BODY[-1] ^ 1])))
    way.origin.pages["/f"] = in_turn(*[damaged] * wrong, Document(version=Version(body=BODY)))
    book = Book.of(tmp_path, way.origin.url("/f"), checksum=expecting(BODY))
    async with way.worker() as desk:
        ended = await way.carry(desk, book)
    assert len(way.origin.seen) == 2
    if wrong == 1:
        assert isinstance(ended, link.Drained)
        assert book.temporary().read_bytes() == BODY
    else:
        assert isinstance(ended, link.Failed)
        assert ended.failure.code == "checksum_mismatch"
        assert book.files[0].bytes_transferred == 0


async def test_offsets_become_durable_while_a_body_moves(way: Way, tmp_path: Path) -> None:
    """What came is durable before the rest comes, and is told with its version."""
    document = way.serve(BODY, Fault(stall=2_000_000))
    book = way.book(tmp_path)
    async with way.worker() as desk:
        await way.start(desk, book)
        await desk.until(book, link.Durable, lambda durable: durable.offset == 2_000_000)
        document.go.set()
        assert isinstance(await desk.end(book), link.Drained)
    offsets = [durable.offset for durable in desk.of(link.Durable)]
    assert offsets == sorted(set(offsets))
    assert {durable.total for durable in desk.of(link.Durable)} == {len(BODY)}


@pytest.mark.parametrize("missing", ["dup", "eventfd"])
async def test_without_descriptors_a_body_is_read_by_the_parser(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """What a thread would need besides the connection is not to be had: it arrives all the same."""

    def none_left(*_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(f"os.{missing}", none_left)
    async with way.worker() as desk:
        book = way.book(tmp_path)
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary().read_bytes() == BODY
    if missing == "eventfd":
        assert way.flows == []


async def test_more_bodies_than_threads_all_move(way: Way, tmp_path: Path) -> None:
    """Those that find no thread go through the parser, and nobody waits for another."""
    count, half = 12, 1_500_000
    everyone = set(range(count))
    paths = [f"/{n}" for n in range(count)]
    documents = [way.serve(BODY, Fault(stall=half), path=path) for path in paths]
    book = way.book(tmp_path, *paths)
    async with way.worker() as desk:
        await desk.start(book, settings=replace(way.settings, streams=count))
        # Every one of them is in the middle of its body at the same time.
        while {told.file for told in desk.of(link.Durable) if told.offset == half} != everyone:
            await desk.next(book)
        for document in documents:
            document.go.set()
        await desk.until(book, link.Drained)
        await desk.stop(book)
    assert {book.temporary(n).read_bytes() for n in range(count)} == {BODY}
    assert len(way.flows) == min(way.bodies, count)
