"""Servers that try to get bytes, or the worker, where they do not belong."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import (
    Document,
    Fault,
    Origin,
    Page,
    Seen,
    Version,
    Wire,
    fixed,
    in_turn,
    raw_answer,
)
from tests.support.runs import BODY, TOTAL, failure, limits
from tests.support.worker import LIMITS, PLAIN, Book, Desk, worker_task
from transferd.wire import link
from transferd.worker.connection import Connector
from transferd.worker.exchange import Exchange
from transferd.worker.request import Request


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


class Injector:
    """A page that sends a second answer when it is told to, after the first is done with."""

    def __init__(self) -> None:
        self._wire: Wire | None = None

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer the request, and remember the connection."""
        self._wire = wire
        await wire.answer(200, [("ETag", '"a"')], b"one")

    def inject(self, body: bytes) -> None:
        """Send an answer that nobody asked for; the kernel has it at once."""
        assert self._wire is not None
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        self._wire.writer.write(answer)


async def test_an_answer_that_nobody_asked_for_is_not_the_next_file(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """What comes over an idle connection is not taken for the answer to the next request."""
    page = Injector()
    origin.pages |= {"/one": page, "/two": fixed(200, body=b"two")}
    book = Book.of(tmp_path, origin.url("/one"))
    await desk.start(book)
    await desk.until(book, link.FileDone)
    while not isinstance(await desk.next(book), link.Drained):
        pass
    page.inject(b"odd")
    book.files |= {1: Book.of(tmp_path, origin.url("/one"), origin.url("/two")).files[1]}
    await desk.channel.send(link.Extend(book.job, desk.run, (book.files[1],)))
    assert isinstance(await desk.end(book), link.Drained)
    assert book.temporary(1).read_bytes() == b"two"
    assert origin.connections == 2


async def test_an_answer_that_waits_unread_is_not_the_next_one(origin: Origin) -> None:
    """Bytes that the kernel holds for an idle connection end its use as well."""
    page = Injector()
    origin.pages |= {"/one": page, "/two": fixed(200, body=b"two")}
    exchange = Exchange(Connector(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), LIMITS)
    try:
        await (await exchange.send(Request(url=origin.url("/one")))).drain()
        page.inject(b"odd")
        assert await (await exchange.send(Request(url=origin.url("/two")))).read() == b"two"
    finally:
        await exchange.close()


@pytest.mark.parametrize(
    "coding", ["gzip", "gzip, chunked", "chunkedfoo", "chunked, identity", "chunked;q=1"]
)
async def test_a_body_in_an_unknown_transfer_coding_is_refused(
    desk: Desk, origin: Origin, tmp_path: Path, coding: str
) -> None:
    """Else it would be stored wrapped, or taken for whole where the connection broke."""
    head = f'HTTP/1.1 200 OK\r\nETag: "v"\r\nTransfer-Encoding: {coding}\r\n\r\n'
    origin.pages["/f"] = raw_answer(head.encode() + b"5\r\nhello\r\n0\r\n\r\n")
    book = Book.of(tmp_path, origin.url("/f"))
    assert (await failure(desk, book)).failure.code == "protocol_error"
    assert not book.temporary().exists()


@pytest.mark.parametrize(
    ("name", "code"),
    [("Content-Encoding", "content_encoded"), ("Date", "connection_lost")],
)
async def test_header_bytes_that_are_no_text_harm_nobody_but_their_sender(
    desk: Desk, origin: Origin, tmp_path: Path, name: str, code: str
) -> None:
    """They go to the daemon in a failure or a version, and must not end the worker on their way."""
    head = b'HTTP/1.1 200 OK\r\nETag: "v"\r\nContent-Length: 9\r\n%b: \xff\xfe\r\n\r\n'
    origin.pages["/f"] = raw_answer(head % name.encode() + b"hello")
    book = Book.of(tmp_path, origin.url("/f"))
    assert (await failure(desk, book)).failure.code == code
    kept = 5 if code == "connection_lost" else 0
    assert book.files[0].bytes_transferred == kept
    origin.pages["/f"] = fixed(200, body=b"mended")
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == b"mended"


async def test_a_large_file_is_checked_however_fast_it_came(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """On a fast link, too, a server can read a file while somebody writes to it."""
    old, new = Version(body=BODY * 2, etag='"old"'), Version(body=BODY[::-1] * 2, etag='"new"')
    origin.pages["/f"] = Document(version=old, faults=deque([Fault(overwrite_with=new)]))
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == new.body


@pytest.mark.parametrize("trouble", [fixed(503), raw_answer(b"")], ids=["busy", "gone"])
async def test_a_check_that_fails_for_now_is_made_again_once(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Page
) -> None:
    """A passing trouble at the wrong moment must not let two versions pass as one file."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    new = Version(body=BODY[::-1], etag='"new"')
    document = Document(version=Version(body=BODY), faults=deque([Fault(overwrite_with=new)]))
    origin.pages["/f"] = in_turn(document, trouble, trouble, document)
    book = Book.of(tmp_path, origin.url("/f"))
    assert (await failure(desk, book)).failure.kind.transient
    assert book.files[0].bytes_transferred == TOTAL
    origin.pages["/f"] = document
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == new.body


async def test_a_server_that_is_gone_for_good_does_not_keep_a_file_back(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are here and their version is unknown twice: the file is the owner's."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    origin.pages["/f"] = in_turn(origin.pages["/f"], fixed(503))
    book = Book.of(tmp_path, origin.url("/f"))
    assert (await failure(desk, book)).failure.http_status == 503
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


async def test_stop_in_mid_reset_revives_nothing(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Reset no offset is told of the bytes that it was about, whatever is flushed then."""
    monkeypatch.setattr("transferd.worker.fetch.CHANGE_SECONDS", 0.0)
    new = Version(body=BODY[::-1], etag='"new"')
    fault = Fault(overwrite_with=new, stall=1_000_000)
    document = Document(version=Version(body=BODY), faults=deque([fault]))
    origin.pages["/f"] = document
    async with worker_task(limits(durable_seconds=0.2)) as desk:
        book = Book.of(tmp_path, origin.url("/f"))
        desk.records = False
        await desk.start(book)
        await desk.until(book, link.Durable)
        document.go.set()
        await desk.until(book, link.Reset)
        await desk.stop(book)
    assert book.files[0].bytes_transferred == 0


async def test_a_ca_file_that_nobody_writes_to_holds_up_nothing(desk: Desk, tmp_path: Path) -> None:
    """A FIFO in its place would take one thread of all files with every try."""
    fifo = tmp_path / "ca.pem"
    os.mkfifo(fifo)
    book = Book.of(tmp_path, "https://127.0.0.1:1/f")
    failed = await failure(desk, book, replace(PLAIN, cacert=str(fifo)))
    assert failed.failure.code == "tls_failed"
