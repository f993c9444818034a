"""Background bodies on every way, paced by the windows that their connections advertise."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.origin import Fault
from tests.support.proxy import ForwardProxy
from tests.support.runs import BODY
from tests.support.ways import WAYS, Way, on_the_way
from transferd.model.job import Priority
from transferd.transfer.pacing import Pacing
from transferd.wire import link
from transferd.worker import manners
from transferd.worker.handler import Handler
from transferd.worker.window import Window


@pytest.fixture(params=WAYS)
async def way(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Way]:
    """Each way; loopback counts as a line."""
    monkeypatch.setattr(manners, "within_machine", lambda _: False)
    async with on_the_way(request.param, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def clamps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every window that is asked for."""
    found: list[int] = []

    def noting(window: Window, size: int) -> None:
        found.append(size)
        clamp(window, size)

    clamp = Window.clamp
    monkeypatch.setattr(Window, "clamp", noting)
    return found


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
async def test_a_background_body_moves_whole_within_the_windows_that_it_advertises(
    way: Way, priority: Priority, tmp_path: Path, clamps: list[int]
) -> None:
    """The kernel hears of a window with each step and each read; no byte is lost by that."""
    way.serve(BODY)
    book = way.book(tmp_path)
    settings = replace(way.settings, priority=priority)
    async with way.worker() as desk:
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert clamps
    assert min(clamps) > 0
    # Small files may follow on that connection, at which nobody looks.
    assert clamps[-1] >= 64 * 1024


async def test_a_foreground_body_is_not_paced(way: Way, tmp_path: Path, clamps: list[int]) -> None:
    """BITS.md P6: foreground competes with other traffic."""
    way.serve(BODY)
    book = way.book(tmp_path)
    settings = replace(way.settings, priority=Priority.FOREGROUND)
    async with way.worker() as desk:
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert clamps == []


async def test_what_a_connection_has_learned_serves_its_next_body(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base delay belongs to a path, and a path to a connection, not to a file."""
    met: list[Window] = []

    def meeting(run: manners.Manners, end: Handler, window: Window, target: float) -> object:
        met.append(window)
        return meet(run, end, window, target)

    meet = manners.Manners._meet
    monkeypatch.setattr(manners.Manners, "_meet", meeting)
    way.serve(BODY)
    way.serve(BODY[::-1], path="/g")
    book = way.book(tmp_path, "/f", "/g")
    async with way.worker() as desk:
        settings = replace(way.settings, streams=1)
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert book.temporary(1).read_bytes() == BODY[::-1]
    assert len(met) == 1


async def test_a_paced_body_that_breaks_off_is_gone_on_with(way: Way, tmp_path: Path) -> None:
    """Whoever paces a body lets go of its connection in whatever way that ends."""
    way.serve(BODY, Fault(cut=1_000_000))
    book = way.book(tmp_path)
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Failed)
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
    assert book.temporary().read_bytes() == BODY


@pytest.mark.parametrize("proxied", [False, True])
async def test_what_comes_from_this_machine_is_steered_if_a_proxy_sends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clamps: list[int], *, proxied: bool
) -> None:
    """There is no line within a machine, but there is one behind a proxy on it."""
    async with (
        on_the_way("splice", tmp_path, monkeypatch) as way,
        ForwardProxy().running() as proxy,
    ):
        book = way.book(tmp_path)
        settings = replace(way.settings, proxy=proxy.url if proxied else "direct")
        async with way.worker() as desk:
            assert isinstance(await desk.carry(book, settings=settings), link.Drained)
    assert book.temporary().read_bytes() == BODY
    assert bool(clamps) is proxied


def test_the_kernel_keeps_little_of_what_a_held_reader_leaves_and_may_keep_more_again() -> None:
    """A store of our own would be one more between us and the bottleneck."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        sender.setblocking(False)
        window = Window(receiver.fileno())
        window.store(little=True)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sender.send(bytes(65536))
        kept = window.unread()
        window.store(little=False)
        locked = receiver.getsockopt(socket.SOL_SOCKET, 72)
        window.close()
    assert 0 < kept <= 2 * 1024 * 1024
    assert locked == 0


async def test_who_steers_in_vain_says_so(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something in between rules the rate reads are paced, and `why` is to know of it."""
    monkeypatch.setattr(Pacing, "defeated", property(lambda pacing: pacing.phase is not None))
    way.serve(BODY)
    book = way.book(tmp_path)
    async with way.worker() as desk:
        assert isinstance(await way.carry(desk, book), link.Drained)
        if len(desk.of(link.Paced)) < 2:
            await desk.until(book, link.Paced)
        assert [told.held for told in desk.of(link.Paced)] == [True, False]
