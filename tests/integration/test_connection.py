"""Which connection a request travels on, and what is known of that connection."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.exchanges import (
    body_of,
    cancelled_after,
    failure,
    open_exchange,
    sockets_to,
    until,
)
from tests.support.origin import Origin, Page, Seen, Wire, fixed, in_turn, raw_answer
from tests.support.tls import KINDS, Authority
from transferd.model.errors import ConnectionGone
from transferd.worker.exchange import Exchange
from transferd.worker.request import Request


async def told(exchange: Exchange, request: Request) -> object:
    """Send, drop the body, and return the connection that it came over."""
    answer = await exchange.send(request)
    await answer.drain()
    return answer.connection


async def test_a_connection_carries_requests_of_one_identity(origin: Origin) -> None:
    """One identity per connection: None and somebody differ, in both directions."""
    identities = [None, None, "alice", "alice", "bob", None, "alice"]
    async with open_exchange() as exchange:
        connections = [
            await told(exchange, Request(url=origin.url("/"), identity=identity))
            for identity in identities
        ]
        assert sockets_to(origin.port) == 1
    assert [seen.connection for seen in origin.seen] == [1, 1, 2, 2, 3, 4, 5]
    assert len(set(connections)) == 5


async def test_a_number_is_no_other_connections(origin: Origin) -> None:
    """Two lanes never mistake their connections for each other's."""
    async with open_exchange() as one, open_exchange() as other:
        request = Request(url=origin.url("/"))
        assert await told(one, request) != await told(other, request)


async def test_a_pinned_request_travels_on_its_connection_or_not_at_all(origin: Origin) -> None:
    """Leg three of a handshake means something on the connection of leg two only."""
    origin.pages["/close"] = fixed(200, [("Connection", "close")])
    url = origin.url("/")
    async with open_exchange() as exchange:
        first = await told(exchange, Request(url=url))
        assert await told(exchange, Request(url=url, connection=first)) == first
        await told(exchange, Request(url=origin.url("/close"), connection=first))
        seen = len(origin.seen)
        for lost in (first, "of another exchange"):
            with pytest.raises(ConnectionGone):
                await exchange.send(Request(url=url, connection=lost))
        assert len(origin.seen) == seen
        assert origin.connections == 1


async def test_a_pin_does_not_lend_an_identity(origin: Origin) -> None:
    """The connection that another identity authenticated is closed, pinned or not."""
    url = origin.url("/")
    async with open_exchange() as exchange:
        first = await told(exchange, Request(url=url, identity="alice"))
        with pytest.raises(ConnectionGone):
            await exchange.send(Request(url=url, identity="bob", connection=first))
        await until(lambda: sockets_to(origin.port) == 0)
    assert len(origin.seen) == 1


async def drop(seen: Seen, wire: Wire) -> None:
    """Hear a request, and leave without a word."""
    wire.drop()


@pytest.mark.parametrize("ending", [drop, raw_answer(b"")], ids=["reset", "closed"])
async def test_nothing_is_sent_twice(origin: Origin, ending: Page) -> None:
    """A pooled connection that dies under a request is told of, not replaced in silence."""
    origin.pages["/"] = in_turn(fixed(200), ending, fixed(200))
    async with open_exchange() as exchange:
        first = await told(exchange, Request(url=origin.url("/")))
        with pytest.raises(ConnectionGone) as caught:
            await exchange.send(Request(url=origin.url("/")))
        assert caught.value.failure.code == "connection_lost"
        assert [seen.connection for seen in origin.seen] == [1, 1]
        assert await told(exchange, Request(url=origin.url("/"))) != first
    assert [seen.connection for seen in origin.seen] == [1, 1, 2]


async def test_a_fresh_connection_that_dies_was_lost(origin: Origin) -> None:
    """Nothing was to be used again there: the server is at fault, and is tried again later."""
    origin.pages["/"] = raw_answer(b"")
    async with open_exchange() as exchange:
        failed = await failure(exchange, Request(url=origin.url("/")))
    assert failed.failure.code == "connection_lost"
    assert not isinstance(failed, ConnectionGone)
    assert len(origin.seen) == 1


async def test_an_answer_that_began_was_lost(origin: Origin) -> None:
    """The server saw the request and said something: sending it anew is not for us to decide."""
    origin.pages["/"] = in_turn(fixed(200), raw_answer(b"HTTP/1.1 200 OK\r\nContent-"))
    async with open_exchange() as exchange:
        await told(exchange, Request(url=origin.url("/")))
        failed = await failure(exchange, Request(url=origin.url("/")))
    assert failed.failure.code == "connection_lost"
    assert not isinstance(failed, ConnectionGone)


async def test_a_silent_server_is_stalled_on_any_connection(origin: Origin) -> None:
    """Its connection stands: it is not gone, and asking again would take as long."""

    async def silent(seen: Seen, wire: Wire) -> None:
        await asyncio.Event().wait()

    origin.pages["/"] = in_turn(fixed(200), silent)
    async with open_exchange(stall_window=0.2) as exchange:
        await told(exchange, Request(url=origin.url("/")))
        failed = await failure(exchange, Request(url=origin.url("/")))
    assert failed.failure.code == "stalled"


async def test_a_head_request_has_no_body_and_keeps_its_connection(origin: Origin) -> None:
    """The length that it tells is that of the GET."""

    async def page(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", "5")])
        await wire.raw(b"hello" if seen.method == "GET" else b"")

    origin.pages["/"] = page
    async with open_exchange() as exchange:
        answer = await exchange.send(Request(url=origin.url("/"), method="HEAD"))
        assert answer.headers["Content-Length"] == "5"
        assert await body_of(answer) == b""
        assert await body_of(await exchange.send(Request(url=origin.url("/")))) == b"hello"
    assert [seen.method for seen in origin.seen] == ["HEAD", "GET"]
    assert origin.connections == 1


async def test_reaches_tells_what_send_would_find(origin: Origin) -> None:
    """A connection of the pool that lives, leads there, and is of that identity."""
    close = asyncio.Event()

    async def closing(seen: Seen, wire: Wire) -> None:
        await wire.answer(200)
        await close.wait()
        wire.close()

    origin.pages["/"] = closing
    request = Request(url=origin.url("/"), identity="alice")
    async with Origin("127.0.0.2").running() as other, open_exchange() as exchange:
        assert not exchange.reaches(request)
        number = await told(exchange, request)
        assert exchange.reaches(request)
        for unlike in (
            Request(url=origin.url("/")),
            Request(url=origin.url("/"), identity="bob"),
            Request(url=origin.url("/"), identity="alice", connection="another"),
            Request(url=other.url("/"), identity="alice"),
        ):
            assert not exchange.reaches(unlike)
        pinned = Request(url=origin.url("/"), identity="alice", connection=number)
        assert exchange.reaches(pinned)
        close.set()
        await until(lambda: not exchange.reaches(request))
        with pytest.raises(ConnectionGone):
            await exchange.send(pinned)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_channel_binding_names_the_servers_certificate(tmp_path: Path, kind: str) -> None:
    """RFC 5929 4; also of a short answer, whose connection is back in the pool at once."""
    authority = Authority(tmp_path)
    async with (
        Origin(tls=authority.server(kind)).running() as secure,
        open_exchange(cacert=authority.cacert) as exchange,
    ):
        answers = [await exchange.send(Request(url=secure.url("/"))) for _ in range(2)]
    certificate = x509.load_pem_x509_certificate((tmp_path / f"{kind}.pem").read_bytes())
    algorithm = KINDS[kind][1].name
    expected = hashlib.new(algorithm, certificate.public_bytes(Encoding.DER)).digest()
    for answer in answers:
        assert answer.channel_binding == b"tls-server-end-point:" + expected


async def test_plain_http_has_no_channel_binding(origin: Origin) -> None:
    """There is nothing to bind to."""
    async with open_exchange() as exchange:
        answer = await exchange.send(Request(url=origin.url("/")))
        await answer.drain()
    assert answer.channel_binding is None


async def test_a_connection_that_is_given_up_is_closed_at_once(tmp_path: Path) -> None:
    """The farewells of TLS would last for as long as the server likes."""
    authority = Authority(tmp_path)

    async def deaf(seen: Seen, wire: Wire) -> None:
        transport = wire.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        await wire.head(200, [("Content-Length", "10")])
        await asyncio.Event().wait()

    async with (
        Origin(tls=authority.server()).running() as secure,
        open_exchange(cacert=authority.cacert) as exchange,
    ):
        secure.pages["/"] = deaf
        answer = await exchange.send(Request(url=secure.url("/")))
        answer.close()
        async with asyncio.timeout(2):
            await until(lambda: sockets_to(secure.port) == 0)


async def test_a_server_that_leaves_in_the_handshake_was_lost(tmp_path: Path) -> None:
    """It may be about to start or to stop: connection_lost, which is tried again."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1")
    async with server, open_exchange() as exchange:
        port = server.sockets[0].getsockname()[1]
        failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "connection_lost"
    assert str(failed) == (
        f"cannot reach 127.0.0.1:{port}: the connection was closed during the TLS handshake"
    )


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_send_that_is_cancelled_anywhere_leaves_no_socket(
    tmp_path: Path, tls: bool, host: str
) -> None:
    """At every turn of the loop; and the exchange works on."""
    authority = Authority(tmp_path)
    async with Origin(tls=authority.server() if tls else None).running() as origin:
        url = origin.url("/").replace("127.0.0.1", host)
        origin.pages["/"] = fixed(200, body=b"hello")
        turns, cancelled = 0, True
        while cancelled:
            turns += 1
            async with open_exchange(cacert=authority.cacert) as exchange:
                cancelled = await cancelled_after(turns, exchange.send(Request(url=url)))
                assert await body_of(await exchange.send(Request(url=url))) == b"hello"
            assert sockets_to(origin.port) == 0
    assert turns > 5
