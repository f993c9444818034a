"""Connections that a run without secrets leaves to the next one: to whom, and in what state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.acceptors import Basic, Digest, guarded
from tests.support.origin import Document, Fault, Origin, Seen, Version, Wire, fixed
from tests.support.proxy import ForwardProxy
from tests.support.runs import BODY, failure
from tests.support.tls import Authority
from tests.support.worker import (
    PASSWORD,
    PLAIN,
    USER,
    Book,
    Desk,
    credential,
    header,
    worker_task,
)
from transferd.model.credentials import Scheme
from transferd.model.job import Settings
from transferd.wire import link

#: What another run brings that must have a connection of its own.
OWN: dict[str, Settings] = {
    "another proxy setting": replace(PLAIN, proxy=None),
    "cleartext allowed": replace(PLAIN, allow_cleartext=True),
}


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin with small files."""
    async with Origin().running() as running:
        running.pages["/f"] = fixed(200, [("ETag", '"f"')], b"one")
        running.pages["/g"] = fixed(200, [("ETag", '"g"')], b"two")
        yield running


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


async def carry(desk: Desk, book: Book, settings: Settings = PLAIN) -> None:
    """Carry a job to its end, and wait until its run has left."""
    assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    await left(desk)


async def left(desk: Desk) -> None:
    """Wait until the worker has done what it was told, Finish among it."""
    await desk.channel.send(link.Ping(1))
    while not isinstance(await desk.channel.receive(), link.Pong):
        pass
    for _ in range(5):
        await asyncio.sleep(0)


# ── to whom ────────────────────────────────────────────────────────────────────────────────


async def test_the_next_run_takes_up_the_connection(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Where neither has a secret, and both would make it alike."""
    for path in ("/f", "/g", "/f"):
        await carry(desk, Book.of(tmp_path, origin.url(path)))
    assert origin.connections == 1


@pytest.mark.parametrize("what", OWN)
async def test_a_run_that_would_connect_otherwise_does(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """No connection of another making."""
    monkeypatch.setenv("no_proxy", "*")
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    await carry(desk, Book.of(tmp_path, origin.url("/g")), OWN[what])
    assert origin.connections == 2


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("secret", ["credential", "unasked credential", "header"])
async def test_a_run_with_a_secret_shares_no_connection(
    desk: Desk, origin: Origin, tmp_path: Path, first: bool, secret: str
) -> None:
    """Neither does it leave one that may be authenticated, nor take one that was somebody's."""
    page = fixed(200, [("ETag", '"g"')], b"two")
    guard = Digest(USER, PASSWORD)
    origin.pages["/secret"] = guarded(page, guard) if secret == "credential" else page
    given = () if secret == "header" else (credential(Scheme.DIGEST),)
    named = (header("X-Key", "s3cret"),) if secret == "header" else ()

    async def secretly() -> None:
        book = Book.of(tmp_path, origin.url("/secret"))
        end = await desk.carry(book, credentials=given, headers=named)
        assert isinstance(end, link.Drained)
        await left(desk)

    if first:
        await secretly()
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    if not first:
        await secretly()
    mine = {seen.connection for seen in origin.requests("/secret")}
    assert mine.isdisjoint(seen.connection for seen in origin.requests("/f"))
    assert origin.connections == 2


async def test_a_run_that_trusts_others_shares_no_connection(desk: Desk, tmp_path: Path) -> None:
    """Whom a server was trusted by is no matter of its name alone; the file may have changed."""
    authority = Authority(tmp_path)
    async with Origin(tls=authority.server()).running() as origin:
        origin.pages["/f"] = fixed(200, [("ETag", '"f"')], b"one")
        settings = replace(PLAIN, cacert=authority.cacert)
        await carry(desk, Book.of(tmp_path, origin.url("/f")), settings)
        failed = await failure(desk, Book.of(tmp_path, origin.url("/f")))
        assert failed.failure.code == "tls_failed"
        await carry(desk, Book.of(tmp_path, origin.url("/f")), settings)
        # The refused one has not come as far as that.
        assert origin.connections == 2


async def test_credentials_of_a_proxy_are_told_of_by_the_run_that_used_them(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's are the owner's in every run; each run tells of its own use."""
    async with ForwardProxy(Basic("pat", "pw")).running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://pat:pw@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        settings = replace(PLAIN, proxy=None)
        for path in ("/f", "/g"):
            await carry(desk, Book.of(tmp_path, origin.url(path)), settings)
        assert [(told.run, told.accepted) for told in desk.of(link.Audited)] == [
            (1, True),
            (2, True),
        ]
        # Nothing is sent before it was asked for, by any run.
        assert [seen.get("proxy-authorization") is None for seen in proxy.seen] == [
            True,
            False,
            True,
            False,
        ]


# ── in what state ──────────────────────────────────────────────────────────────────────────


async def test_what_comes_between_two_runs_is_no_answer(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Bytes that nobody asked for cost the server its connection, and nobody his file."""
    wires: list[Wire] = []

    async def remember(seen: Seen, wire: Wire) -> None:
        wires.append(wire)
        await wire.answer(200, [("ETag", '"f"')], b"one")

    origin.pages["/f"] = remember
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    await wires[0].answer(200, [("ETag", '"g"')], b"bad")
    book = Book.of(tmp_path, origin.url("/g"))
    await carry(desk, book)
    assert book.temporary().read_bytes() == b"two"
    assert origin.connections == 2


async def test_a_second_answer_at_once_is_no_answer(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """In the very segment of the first one, before anybody could have asked."""

    async def twice(seen: Seen, wire: Wire) -> None:
        one = b'HTTP/1.1 200 OK\r\nETag: "f"\r\nContent-Length: 3\r\n\r\none'
        await wire.raw(one + one.replace(b"one", b"bad"))

    origin.pages["/f"] = twice
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    book = Book.of(tmp_path, origin.url("/g"))
    await carry(desk, book)
    assert book.temporary().read_bytes() == b"two"
    assert origin.connections == 2


@pytest.mark.parametrize("how", ["refused", "broken", "stopped"])
async def test_a_run_that_ends_early_leaves_no_connection(
    desk: Desk, origin: Origin, tmp_path: Path, how: str
) -> None:
    """Nobody knows what is still to come over it."""
    document = Document(version=Version(body=BODY))
    document.faults.append(Fault(cut=10_000) if how == "broken" else Fault(stall=10_000))
    origin.pages["/early"] = document if how != "refused" else fixed(404, body=b"x" * 100)
    book = Book.of(tmp_path, origin.url("/early"))
    if how == "stopped":
        await desk.start(book)
        await desk.until(book, link.Durable)
        await desk.stop(book)
    else:
        await failure(desk, book)
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    assert origin.connections == 2


async def test_a_connection_that_the_server_has_closed_meanwhile_is_no_trouble(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """The next run has one of its own."""

    async def once(seen: Seen, wire: Wire) -> None:
        await wire.answer(200, [("ETag", '"f"')], b"one")
        wire.close()

    origin.pages["/f"] = once
    await carry(desk, Book.of(tmp_path, origin.url("/f")))
    await carry(desk, Book.of(tmp_path, origin.url("/g")))
    assert origin.connections == 2
