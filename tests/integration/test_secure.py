"""TLS on sockets of our own: whom it trusts, what it says of others, and what it remembers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.exchanges import body_of, failure, open_exchange, until
from tests.support.origin import Document, Origin, Seen, Version, Wire, fixed
from tests.support.renegotiator import OPENSSL, renegotiator
from tests.support.runs import BODY, limits
from tests.support.tls import Authority
from tests.support.worker import PLAIN, Book, worker_task
from transferd.wire import link
from transferd.worker.request import Request
from transferd.worker.secure import SecureTransport

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

#: What is wrong with a server → its context, what OpenSSL says of it.
MISFITS: dict[str, tuple[Callable[[Authority, Path], ssl.SSLContext], str]] = {
    "unknown CA": (
        lambda ours, elsewhere: Authority(elsewhere).server(),
        "unable to get local issuer certificate",
    ),
    "self-signed": (
        lambda ours, elsewhere: ours.custom(self_signed=True),
        "self-signed certificate",
    ),
    "another host": (
        lambda ours, elsewhere: ours.custom(names=("192.0.2.1", "example.org")),
        "IP address mismatch, certificate is not valid for '127.0.0.1'.",
    ),
    "expired": (
        lambda ours, elsewhere: ours.custom(valid=(NOW - 2 * DAY, NOW - DAY)),
        "certificate has expired",
    ),
    "not yet valid": (
        lambda ours, elsewhere: ours.custom(valid=(NOW + DAY, NOW + 2 * DAY)),
        "certificate is not yet valid",
    ),
    "for clients only": (
        lambda ours, elsewhere: ours.custom(client_only=True),
        "unsuitable certificate purpose",
    ),
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whom jobs trust."""
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def secure(context: ssl.SSLContext) -> AsyncIterator[Origin]:
    """An origin with a small page and a long file."""
    async with Origin(tls=context).running() as origin:
        origin.pages["/"] = fixed(200, body=b"hello")
        origin.pages["/f"] = Document(version=Version(body=BODY))
        yield origin


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
) -> AsyncIterator[int]:
    """A server that need not speak TLS; gives its port."""
    server = await asyncio.start_server(serve, "127.0.0.1")  # type: ignore[arg-type]
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[int]:
    """A server that refuses whoever comes, and says why, which asyncio's do not."""

    def serve() -> None:
        peer, _ = listener.accept()
        with context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False) as tls:
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            socket.socket.shutdown(tls, socket.SHUT_WR)
            # Bytes that nobody has read would make its end a reset.
            while socket.socket.recv(tls, 1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        serving = threads.submit(serve)
        yield listener.getsockname()[1]
        serving.result(10)


# ── whom it does not trust ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", MISFITS)
async def test_a_server_that_cannot_be_trusted_is_refused(
    authority: Authority, tmp_path: Path, what: str
) -> None:
    """tls_failed, with the reason in OpenSSL's words; it never sees a request."""
    make, reason = MISFITS[what]
    (tmp_path / "elsewhere").mkdir()
    async with (
        secure(make(authority, tmp_path / "elsewhere")) as origin,
        open_exchange(cacert=authority.cacert) as exchange,
    ):
        failed = await failure(exchange, Request(url=origin.url("/")))
    assert failed.failure.code == "tls_failed"
    place = f"127.0.0.1:{origin.port}"
    assert str(failed) == f"cannot trust the certificate of {place}: {reason}"
    assert origin.seen == []


async def test_another_name_of_the_same_server_is_refused(authority: Authority) -> None:
    """A name counts by itself, also beside one that has just been trusted."""
    async with (
        secure(authority.custom(names=("127.0.0.1",))) as origin,
        open_exchange(cacert=authority.cacert) as exchange,
    ):
        assert await body_of(await exchange.send(Request(url=origin.url("/")))) == b"hello"
        other = origin.url("/").replace("127.0.0.1", "localhost")
        failed = await failure(exchange, Request(url=other))
    assert failed.failure.code == "tls_failed"
    assert "Hostname mismatch" in failed.failure.message
    assert len(origin.seen) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_our_certificate_refuses_us(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """tls_failed, whether it says so within the handshake, or behind it as TLS 1.3 does."""
    context = authority.server()
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cacert)
    with refusing(context) as port:
        async with open_exchange(cacert=authority.cacert) as exchange:
            failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "tls_failed"
    old = version is ssl.TLSVersion.TLSv1_2
    reason = "handshake failure" if old else "certificate required"
    assert reason in failed.failure.message


async def test_plain_http_where_tls_should_be_is_named() -> None:
    """tls_failed: the port is a wrong one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with listening(answer) as port, open_exchange() as exchange:
        failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "tls_failed"
    assert "wrong version number" in failed.failure.message


async def test_a_server_with_an_old_tls_is_refused(authority: Authority) -> None:
    """Nothing below TLS 1.2 is spoken."""
    context = authority.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with refusing(context) as port:
        async with open_exchange(cacert=authority.cacert) as exchange:
            failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "tls_failed"
    assert "protocol version" in failed.failure.message


# ── handshakes that come to nothing ────────────────────────────────────────────────────────


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("heard", [False, True])
async def test_a_server_that_leaves_in_the_handshake_was_lost(reset: bool, heard: bool) -> None:
    """connection_lost, which is tried again: closed or reset, before our hello or after it."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if heard:
            await reader.read(1)
        if reset:
            linger = b"\x01\0\0\0\0\0\0\0"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        writer.close()

    async with listening(leave) as port, open_exchange() as exchange:
        failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "connection_lost"


async def test_a_silent_handshake_ends_in_time_and_holds_up_nobody(authority: Authority) -> None:
    """connect_timeout; meanwhile others shake hands, though there are more silent ones than threads
    that do the arithmetic.
    """
    let_go = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await let_go.wait()
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(silent))
        origin = await stack.enter_async_context(secure(authority.server()))
        stuck = [
            await stack.enter_async_context(open_exchange(connect_timeout=1.0)) for _ in range(8)
        ]
        good = await stack.enter_async_context(open_exchange(cacert=authority.cacert))
        request = Request(url=f"https://127.0.0.1:{port}/")
        tasks = [asyncio.create_task(failure(exchange, request)) for exchange in stuck]
        assert await body_of(await good.send(Request(url=origin.url("/")))) == b"hello"
        assert not any(task.done() for task in tasks)
        codes = {(await task).failure.code for task in tasks}
        let_go.set()
    assert codes == {"connect_timeout"}


# ── sessions ───────────────────────────────────────────────────────────────────────────────


async def fetch(origin: Origin, directory: Path, cacert: str, *hosts: str) -> None:
    """Fetch a long file by one run of one worker for each host."""
    async with worker_task() as desk:
        for host in hosts:
            book = Book.of(directory, origin.url("/f").replace("127.0.0.1", host))
            ended = await desk.carry(book, settings=replace(PLAIN, cacert=cacert))
            assert isinstance(ended, link.Drained)
            assert book.temporary().read_bytes() == BODY
            book.temporary().unlink()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_run_resumes_the_session(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A second handshake with the same server costs it no signature; bodies arrive all the same."""
    context = authority.server()
    context.minimum_version = context.maximum_version = version
    async with secure(context) as origin:
        await fetch(origin, tmp_path, authority.cacert, *["127.0.0.1"] * 3)
    assert origin.connections == 3
    assert context.session_stats()["hits"] == 2


async def test_a_session_is_no_other_names(authority: Authority, tmp_path: Path) -> None:
    """What was verified under one name says nothing of another."""
    context = authority.server()
    async with secure(context) as origin:
        await fetch(origin, tmp_path, authority.cacert, "127.0.0.1", "localhost")
    assert context.session_stats()["hits"] == 0


async def test_a_session_is_no_other_authoritys(authority: Authority, tmp_path: Path) -> None:
    """A job with another CA file, or with one that has changed, trusts nobody for the old one."""
    context = authority.server()
    (tmp_path / "elsewhere").mkdir()
    other = Authority(tmp_path / "elsewhere")
    async with secure(context) as origin, worker_task() as desk:
        for cacert, trusted in ((authority.cacert, True), (other.cacert, False)):
            book = Book.of(tmp_path, origin.url("/f"))
            ended = await desk.carry(book, settings=replace(PLAIN, cacert=cacert))
            assert isinstance(ended, link.Drained) is trusted
        shutil.copyfile(other.cacert, authority.cacert)
        book = Book.of(tmp_path / "elsewhere", origin.url("/f"))
        ended = await desk.carry(book, settings=replace(PLAIN, cacert=authority.cacert))
        assert isinstance(ended, link.Failed)
        assert ended.failure.code == "tls_failed"
    assert context.session_stats()["hits"] == 0
    assert len(origin.seen) == 1


# ── what comes in between ──────────────────────────────────────────────────────────────────


@pytest.mark.skipif(OPENSSL is None, reason="needs OpenSSL's command")
async def test_a_server_that_negotiates_anew_for_ever_costs_no_processor_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request waits for the server's part as for anything else, and goes out after that."""
    write, tries = SecureTransport._write, 0

    def counted(transport: SecureTransport) -> None:
        nonlocal tries
        tries += 1
        write(transport)

    identity = str(authority.identity("ecdsa-sha256"))
    async with renegotiator(identity) as server, open_exchange(cacert=authority.cacert) as exchange:

        async def ask() -> bytes:
            request = Request(url=f"https://127.0.0.1:{server.port}/")
            return await body_of(await exchange.send(request))

        _, first = await asyncio.gather(server.answer(b"one"), ask())
        await server.renegotiate()
        monkeypatch.setattr(SecureTransport, "_write", counted)
        asking = asyncio.create_task(ask())
        await until(lambda: tries > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert tries < 10
        server.hears.set()
        await server.answer(b"two")
        assert (first, await asking) == (b"one", b"two")


# ── what ends a body ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", [1000, 1_500_000])
async def test_an_end_without_a_farewell_is_a_loss(
    authority: Authority, tmp_path: Path, at: int
) -> None:
    """Anybody can end a TCP connection: connection_lost, and what came is kept."""

    async def abrupt(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", str(len(BODY))), ("ETag", '"v1"')])
        await wire.raw(BODY[:at])
        wire.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        wire.close()

    async with secure(authority.server()) as origin, worker_task(limits()) as desk:
        origin.pages["/f"] = abrupt
        book = Book.of(tmp_path, origin.url("/f"))
        ended = await desk.carry(book, settings=replace(PLAIN, cacert=authority.cacert))
    assert isinstance(ended, link.Failed)
    assert ended.failure.code == "connection_lost"
    assert book.temporary().stat().st_size <= at


async def test_a_body_without_a_length_ends_with_a_farewell(
    authority: Authority, tmp_path: Path
) -> None:
    """Where the end of the connection is the end of the body, TLS says which end is one
    (RFC 9112 9.8): without a farewell it was lost.
    """

    async def endless(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Connection", "close")])
        await wire.raw(b"half of it")
        wire.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        wire.close()

    async with secure(authority.server()) as origin, worker_task() as desk:
        settings = replace(PLAIN, cacert=authority.cacert)
        origin.pages["/f"] = endless
        ended = await desk.carry(Book.of(tmp_path, origin.url("/f")), settings=settings)
        assert isinstance(ended, link.Failed)
        assert ended.failure.code == "connection_lost"
        origin.pages["/f"] = Document(version=Version(body=BODY), framing="close")
        book = Book.of(tmp_path, origin.url("/f"))
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
        assert book.temporary().read_bytes() == BODY
