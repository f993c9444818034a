"""Descriptors that a peer sends along: closing them must not stop a loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.api import running_api
from transferd.wire import ancillary, codec, link
from transferd.wire.ancillary import refuse_descriptors
from transferd.wire.channel import Channel

#: An option that no kernel knows, as the real one is to kernels before 6.16.
UNKNOWN_OPTION = 30_000
LINGER_SECONDS = 60


@pytest.fixture(params=["kernel", "guard"])
def refusing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[socket.socket], socket.socket]:
    """What refuses descriptors: the kernel where it can, and what stands in for it."""
    if request.param == "guard":
        monkeypatch.setattr(ancillary, "_SO_PASSRIGHTS", UNKNOWN_OPTION)
    return refuse_descriptors


@pytest.fixture
def lingering() -> Iterator[int]:
    """A descriptor whose last close takes a minute: a TCP socket with bytes that nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(b"x" * 65536)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
        yield sender.detach()
        # Its reset ends the wait of whoever closes the other end.
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        receiver.close()


def send(theirs: socket.socket, data: bytes, descriptor: int) -> None:
    """Send a descriptor, if the kernel lets us, and keep none."""
    with contextlib.suppress(PermissionError):
        socket.send_fds(theirs, [data], [descriptor])
        os.close(descriptor)


async def test_a_descriptor_ends_the_link_and_not_the_loop(
    refusing: Callable[[socket.socket], socket.socket], lingering: int
) -> None:
    """Whoever hands one over is gone, or has not sent a byte; nobody waits for its close."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await Channel.open(refusing(ours), codec.decode_from_worker)
        send(theirs, codec.encode(link.Hello(1)), lingering)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS / 4):
            assert await channel.receive() is None
            await channel.close()


async def test_a_descriptor_that_was_never_read_does_not_delay_the_end(
    refusing: Callable[[socket.socket], socket.socket], lingering: int
) -> None:
    """It is closed with the socket, by somebody whom nobody waits for."""
    ours, theirs = socket.socketpair()
    with theirs:
        guarded = refusing(ours)
        send(theirs, b"x", lingering)
        closing = asyncio.create_task(asyncio.to_thread(guarded.close))
        async with asyncio.timeout(LINGER_SECONDS / 4):
            await closing


def test_bytes_without_a_descriptor_arrive(
    refusing: Callable[[socket.socket], socket.socket],
) -> None:
    """Nothing else is different."""
    ours, theirs = socket.socketpair()
    with theirs, refusing(ours) as guarded:
        theirs.sendall(b"hello")
        buffer = bytearray(3)
        assert guarded.recv_into(buffer, 2) == 2
        assert guarded.recv_into(buffer) == 3
        theirs.sendall(b"world")
        assert (bytes(buffer), guarded.recv(100)) == (b"llo", b"world")
        guarded.setblocking(False)
        with pytest.raises(BlockingIOError):
            guarded.recv(1)
        guarded.sendall(b"back")
        assert theirs.recv(4) == b"back"
    guarded.close()


def test_a_connection_is_as_the_socket_that_listens(
    refusing: Callable[[socket.socket], socket.socket], tmp_path: Path
) -> None:
    """Also what is sent before anybody accepts."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        listening = refusing(server)
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        client.connect(str(tmp_path / "s"))
        sent = True
        try:
            socket.send_fds(client, [b"x"], [0])
        except PermissionError:
            sent = False
        accepted, _ = listening.accept()
        with refusing(accepted) as guarded:
            if sent:
                with pytest.raises(PermissionError):
                    guarded.recv(1)
            client.sendall(b"y")
            assert guarded.recv(1) == b"y"
        listening.close()


async def test_a_caller_who_sends_a_descriptor_stops_nobody_elses_requests(
    refusing: Callable[[socket.socket], socket.socket], lingering: int
) -> None:
    """Everybody may connect; what he sends along is nobody's business."""
    async with running_api() as api:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(api.path))
            send(caller, b"GET ", lingering)
            async with asyncio.timeout(LINGER_SECONDS / 4):
                for _ in range(10):
                    assert (await api.send("GET", "/v1/version")).status == 200
