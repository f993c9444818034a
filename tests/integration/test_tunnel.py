"""The dialogue with a proxy that is asked for a tunnel, and TLS through the tunnel."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import spnego
from yarl import URL

from tests.support.acceptors import Basic
from tests.support.exchanges import (
    body_of,
    cancelled_after,
    failure,
    open_exchange,
    sockets_to,
    until,
)
from tests.support.origin import Origin, Page, Seen, Wire, fixed, in_turn, raw_answer
from tests.support.proxy import ForwardProxy, tunnel_to
from tests.support.servers import PASSWORD, USER, free_ports
from tests.support.squid import Squid
from tests.support.tls import Authority
from transferd.model.errors import ConnectionGone, TransferFailed
from transferd.worker.exchange import Exchange
from transferd.worker.request import Request

WHO = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=r\r\n"
OPEN = b"HTTP/1.1 200 Tunnel\r\n\r\n"


@dataclass
class Stage:
    """A server that has TLS, and an origin that plays the proxy before it."""

    secure: Origin
    proxy: Origin
    authority: Authority
    scheme: str = "http"
    request: Request = field(init=False)

    def __post_init__(self) -> None:
        self.secure.pages["/"] = fixed(200, body=b"secret")
        proxy = URL(f"{self.scheme}://127.0.0.1:{self.proxy.port}")
        self.request = Request(url=self.secure.url("/"), proxy=proxy)

    def script(self, *pages: Page) -> None:
        """Answer CONNECT with these, in turn."""
        self.proxy.pages[f"127.0.0.1:{self.secure.port}"] = in_turn(*pages)

    def lets_through(self, answer: bytes = OPEN) -> Page:
        """Open the tunnel."""
        return tunnel_to(self.secure.port, answer=answer)

    async def fetch(self, exchange: Exchange, request: Request | None = None) -> bytes:
        """Send through the tunnel that stands."""
        return await body_of(await exchange.send(request or self.request))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A proxy without TLS."""
    authority = Authority(tmp_path)
    async with (
        Origin(tls=authority.server()).running() as secure,
        Origin().running() as proxy,
    ):
        yield Stage(secure, proxy, authority)


@pytest.fixture(params=["http", "https"])
async def either(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A proxy without TLS, and one with."""
    authority = Authority(tmp_path)
    tls = authority.server() if request.param == "https" else None
    async with (
        Origin(tls=authority.server()).running() as secure,
        Origin(tls=tls).running() as proxy,
    ):
        yield Stage(secure, proxy, authority, request.param)


async def refusal(exchange: Exchange, request: Request) -> TransferFailed:
    """Ask for a tunnel, and return the failure that came of it."""
    with pytest.raises(TransferFailed) as caught:
        await exchange.tunnel(request)
    return caught.value


# ── the dialogue ───────────────────────────────────────────────────────────────────────────


async def test_the_legs_of_a_dialogue_travel_on_one_connection(either: Stage) -> None:
    """407 and 200 come over one connection, and so does what goes through the tunnel."""
    either.script(fixed(407, [("Proxy-Authenticate", "X")], b"who?" * 1000), either.lets_through())
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        assert not exchange.reaches(either.request)
        asked = await exchange.tunnel(either.request)
        assert (asked.status, asked.from_proxy) == (407, True)
        assert asked.values("proxy-authenticate") == ("X",)
        assert await body_of(asked) == b""
        assert not exchange.reaches(either.request)
        leg = replace(either.request, connection=asked.connection, proxy_authorization="Y z")
        opened = await exchange.tunnel(leg)
        assert (opened.status, opened.from_proxy) == (200, True)
        assert exchange.reaches(either.request)
        answers = [await exchange.send(either.request) for _ in range(2)]
        assert not answers[0].from_proxy
        connections = {answer.connection for answer in (asked, opened, *answers)}
        assert connections == {asked.connection}
        assert [await body_of(answer) for answer in answers] == [b"secret"] * 2
    assert either.proxy.connections == either.secure.connections == 1


async def test_the_proxy_sees_connect_and_nothing_else(either: Stage) -> None:
    """The server's headers stay in the tunnel; the proxy's credentials stay out of it."""
    either.script(either.lets_through())
    request = replace(
        either.request,
        headers=(("Cookie", "hunter2"),),
        authorization="Basic hunter2",
        proxy_authorization="Basic hunter3",
    )
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        await exchange.tunnel(request)
        await either.fetch(exchange, request)
    (connect,) = either.proxy.seen
    place = f"127.0.0.1:{either.secure.port}"
    assert (connect.method, connect.target) == ("CONNECT", place)
    assert dict(connect.headers) == {
        "host": place,
        "user-agent": "transferd/test",
        "proxy-authorization": "Basic hunter3",
    }
    assert "proxy" not in either.secure.said
    assert "hunter3" not in either.secure.said
    assert either.secure.seen[0].get("authorization") == "Basic hunter2"


async def test_the_channel_binding_is_the_servers(either: Stage, tmp_path: Path) -> None:
    """Never the proxy's certificate, even where there is one; nor is the proxy's leg bound."""
    either.script(either.lets_through())
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        tunnel = await exchange.tunnel(either.request)
        through = await exchange.send(either.request)
        await through.drain()
        direct = await exchange.send(Request(url=either.secure.url("/")))
        await direct.drain()
    assert tunnel.channel_binding is None
    assert through.channel_binding == direct.channel_binding
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", either.secure.port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
    assert through.channel_binding == b"tls-server-end-point:" + digest


async def test_plain_requests_go_to_a_proxy_over_tls_unbound(tmp_path: Path) -> None:
    """TLS with the proxy is not TLS with the server."""
    authority = Authority(tmp_path)
    async with (
        Origin().running() as origin,
        ForwardProxy(tls=authority.server()).running() as proxy,
        open_exchange(cacert=authority.cacert) as exchange,
    ):
        origin.pages["/"] = fixed(200, body=b"plain")
        answer = await exchange.send(Request(url=origin.url("/"), proxy=URL(proxy.url)))
        assert await body_of(answer) == b"plain"
    assert answer.channel_binding is None


@pytest.mark.parametrize(
    "refused",
    [
        WHO + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        WHO + b"Proxy-Connection: Close\r\nContent-Length: 0\r\n\r\n",
        WHO + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
        WHO + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        WHO + b"Content-Length: 3\r\n\r\nwhoHTTP/1.1 200 OK\r\n\r\n",
        WHO.replace(b"1.1", b"1.0") + b"Content-Length: 0\r\n\r\n",
    ],
    ids=["close", "old close", "long body", "broken body", "something more", "HTTP/1.0"],
)
async def test_a_connection_that_cannot_be_kept_is_gone(stage: Stage, refused: bytes) -> None:
    """The challenge counts; the next leg needs another connection, or cannot be pinned."""
    stage.script(raw_answer(refused, close=False), stage.lets_through())
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        asked = await exchange.tunnel(stage.request)
        assert asked.status == 407
        assert asked.values("Proxy-Authenticate") == ("Basic realm=r",)
        await until(lambda: sockets_to(stage.proxy.port) == 0)
        with pytest.raises(ConnectionGone):
            await exchange.tunnel(replace(stage.request, connection=asked.connection))
        assert len(stage.proxy.seen) == 1
        assert (await exchange.tunnel(stage.request)).connection != asked.connection
        assert await stage.fetch(exchange) == b"secret"


@pytest.mark.parametrize(
    "refused",
    [
        WHO + b"Content-Length: 60000\r\n\r\n" + b"x" * 60_000,
        WHO + b"Transfer-Encoding: chunked\r\n\r\n3\r\nwho\r\n0\r\n\r\n",
        WHO.replace(b"1.1", b"1.0") + b"Proxy-Connection: Keep-Alive\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 3 + WHO + b"Content-Length: 0\r\n\r\n",
    ],
    ids=["some body", "chunks", "HTTP/1.0 that says so", "interim answers"],
)
async def test_a_connection_that_can_be_kept_is_kept(stage: Stage, refused: bytes) -> None:
    """Whatever the proxy writes under its challenge is read away."""
    stage.script(raw_answer(refused, close=False), stage.lets_through())
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        asked = await exchange.tunnel(stage.request)
        leg = replace(stage.request, connection=asked.connection)
        assert (await exchange.tunnel(leg)).connection == asked.connection
        assert await stage.fetch(exchange) == b"secret"
    assert stage.proxy.connections == 1


async def test_a_slow_body_costs_its_connection_not_our_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A challenge whose body drips is given up after a moment."""
    monkeypatch.setattr("transferd.worker.tunnel.DRAIN_SECONDS", 0.1)

    async def dripping(seen: Seen, wire: Wire) -> None:
        await wire.raw(WHO + b"Content-Length: 100\r\n\r\n")
        await asyncio.Event().wait()

    stage.script(dripping, stage.lets_through())
    async with open_exchange(cacert=stage.authority.cacert) as exchange, asyncio.timeout(3):
        asked = await exchange.tunnel(stage.request)
        assert asked.status == 407
        with pytest.raises(ConnectionGone):
            await exchange.tunnel(replace(stage.request, connection=asked.connection))


async def test_a_proxy_may_answer_byte_by_byte(either: Stage) -> None:
    """Where a packet ends says nothing about where a header does."""

    async def bytewise(seen: Seen, wire: Wire) -> None:
        for byte in WHO + b"Content-Length: 3\r\n\r\nwho":
            await wire.raw(bytes([byte]))
            await asyncio.sleep(0)

    either.script(bytewise, either.lets_through())
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        asked = await exchange.tunnel(either.request)
        await exchange.tunnel(replace(either.request, connection=asked.connection))
        assert await either.fetch(exchange) == b"secret"


# ── between the legs ───────────────────────────────────────────────────────────────────────


@dataclass
class Asking:
    """A page that asks who it is, keeps the connection, and does something later."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    last_words: bytes = b""

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        await wire.raw(WHO + b"Content-Length: 0\r\n\r\n")
        await self.go.wait()
        await wire.raw(self.last_words)
        wire.close()


@pytest.mark.parametrize("last_words", [b"", OPEN], ids=["closed", "spoke"])
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_proxy_that_closes_or_speaks_between_the_legs(
    either: Stage, pinned: bool, last_words: bytes
) -> None:
    """A pinned leg hears of it before anything is sent; another one gets a new connection."""
    page = Asking(last_words=last_words)
    either.script(page, either.lets_through())
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        asked = await exchange.tunnel(either.request)
        page.go.set()
        port = either.proxy.port
        await until(lambda: either.proxy.served == 1)
        await until(lambda: sockets_to(port) <= 1)
        if pinned:
            with pytest.raises(ConnectionGone):
                await exchange.tunnel(replace(either.request, connection=asked.connection))
            assert len(either.proxy.seen) == 1
            assert sockets_to(port) == 0
        else:
            assert (await exchange.tunnel(either.request)).connection != asked.connection
            assert await either.fetch(exchange) == b"secret"


async def leave(seen: Seen, wire: Wire) -> None:
    """Hear a request, and leave without a word."""
    wire.close()


async def test_a_leg_is_never_sent_twice(either: Stage) -> None:
    """A proxy that closes as the leg arrives: the connection is gone, pinned or not."""
    for pinned in (True, False):
        either.script(fixed(407), leave, either.lets_through())
        async with open_exchange(cacert=either.authority.cacert) as exchange:
            asked = await exchange.tunnel(either.request)
            seen = len(either.proxy.seen)
            connection = asked.connection if pinned else None
            with pytest.raises(ConnectionGone):
                await exchange.tunnel(replace(either.request, connection=connection))
            assert len(either.proxy.seen) == seen + 1
            await exchange.tunnel(either.request)
            assert await either.fetch(exchange) == b"secret"


async def test_a_proxy_that_never_answered_was_lost(stage: Stage) -> None:
    """A fresh connection was not to be used again: connection_lost."""
    stage.script(leave)
    async with open_exchange() as exchange:
        failed = await refusal(exchange, stage.request)
    assert failed.failure.code == "connection_lost"
    assert not isinstance(failed, ConnectionGone)


async def test_a_dialogue_belongs_to_one_identity_and_one_proxy(stage: Stage) -> None:
    """Another identity's leg gets a connection of its own, and the old one is closed."""
    stage.script(fixed(407))
    connections = []
    async with open_exchange() as exchange:
        for identity in (None, "alice", "alice", "bob", None):
            asked = await exchange.tunnel(replace(stage.request, identity=identity))
            connections.append(asked.connection)
        await until(lambda: sockets_to(stage.proxy.port) == 1)
    assert [seen.connection for seen in stage.proxy.seen] == [1, 2, 2, 3, 4]
    assert len(set(connections)) == 4


# ── answers that are none ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code"), [(403, "http_403"), (503, "http_503"), (302, "protocol_error")]
)
async def test_a_refused_tunnel_never_passes_for_the_servers_answer(
    stage: Stage, status: int, code: str
) -> None:
    """Whatever a proxy says instead of a tunnel, it is not followed, read or stored."""
    stage.script(fixed(status, [("Location", "http://elsewhere.invalid/")], b"page"))
    async with open_exchange() as exchange:
        failed = await refusal(exchange, stage.request)
        await until(lambda: sockets_to(stage.proxy.port) == 0)
    assert failed.failure.code == code
    assert f"proxy 127.0.0.1:{stage.proxy.port} answered CONNECT with {status}" in str(failed)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"220 mail.example.org ESMTP\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 407 Who\r\nContent-Length: many\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 407 Who\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "header_too_large"),
        (b"HTTP/1.1 407 Who\r\n" + b"X: y\r\n" * 20_000, "header_too_large"),
        (b"HTTP/1.1 102 Wait\r\n\r\n" * 10_000, "header_too_large"),
        (b"HTTP/1.1 407 Wh", "connection_lost"),
        (OPEN + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", "protocol_error"),
    ],
    ids=[
        "another protocol",
        "another upgrade",
        "a length that is none",
        "one huge header",
        "many headers",
        "interim answers without end",
        "half a head",
        "bytes before TLS",
        "a body",
    ],
)
async def test_a_broken_answer_to_connect_is_a_failure_with_a_code(
    stage: Stage, answer: bytes, code: str
) -> None:
    """Header bytes are bounded, and nothing of the proxy's is taken for the server's."""
    stage.script(raw_answer(answer))
    async with open_exchange() as exchange:
        failed = await refusal(exchange, stage.request)
        assert not exchange.reaches(stage.request)
        await until(lambda: sockets_to(stage.proxy.port) == 0)
    assert failed.failure.code == code
    assert not isinstance(failed, ConnectionGone)
    assert "ESMTP" not in str(failed)
    assert stage.secure.connections == 0


async def test_an_empty_body_that_is_announced_is_none(stage: Stage) -> None:
    """A 2xx to CONNECT has no body, whatever its header says (RFC 9110 9.3.6)."""
    stage.script(stage.lets_through(b"HTTP/1.1 299 Fine\r\nContent-Length: 9\r\n\r\n"))
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        assert (await exchange.tunnel(stage.request)).status == 299
        assert await stage.fetch(exchange) == b"secret"


async def test_a_large_challenge_within_the_limit_is_read(stage: Stage) -> None:
    """Kerberos tokens exceed what servers usually allow; the limit is the configured one."""
    stage.script(fixed(407, [("Proxy-Authenticate", "Negotiate " + "A" * 60_000)]))
    async with open_exchange() as exchange:
        asked = await exchange.tunnel(stage.request)
        assert len(asked.values("Proxy-Authenticate")[0]) == 60_010
    async with open_exchange(header_bytes=50_000) as exchange:
        failed = await refusal(exchange, stage.request)
    assert failed.failure.code == "header_too_large"


async def test_header_bytes_that_are_no_text_do_no_harm(stage: Stage) -> None:
    """They stay what they were, as in a server's answer."""
    stage.script(raw_answer(WHO + b"X: \xff\xc3\xbc\r\nContent-Length: 0\r\n\r\n", close=False))
    async with open_exchange() as exchange:
        asked = await exchange.tunnel(stage.request)
    assert asked.headers["x"] == "\udcffü"


async def _silent(seen: Seen, wire: Wire) -> None:
    await asyncio.Event().wait()


async def _dribbling(seen: Seen, wire: Wire) -> None:
    await wire.raw(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await wire.raw(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("page", [_silent, _dribbling])
async def test_a_proxy_has_so_long_to_answer(stage: Stage, page: Page) -> None:
    """Silence and headers without end are bounded by the same time."""
    stage.script(page)
    async with open_exchange(connect_timeout=0.2, stall_window=0.2) as exchange:
        async with asyncio.timeout(3):
            failed = await refusal(exchange, stage.request)
        await until(lambda: sockets_to(stage.proxy.port) == 0)
    assert failed.failure.code == "connect_timeout"


# ── reaching the proxy ─────────────────────────────────────────────────────────────────────


async def test_a_proxy_that_is_not_there_is_named(stage: Stage) -> None:
    """proxy_unreachable: neither its name nor its port leads anywhere."""
    (port,) = free_ports(1)
    async with open_exchange() as exchange:
        for proxy in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", "http://no.invalid"):
            failed = await refusal(exchange, replace(stage.request, proxy=URL(proxy)))
            assert failed.failure.code == "proxy_unreachable"
            assert f"cannot reach proxy {URL(proxy).host}:" in str(failed)


async def test_a_proxys_certificate_must_be_trusted(tmp_path: Path) -> None:
    """tls_failed names the proxy; nothing is asked of it."""
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    async with ForwardProxy(tls=other.server()).running() as proxy:
        async with open_exchange(cacert=authority.cacert) as exchange:
            for url in ("https://h.example/", "http://h.example/"):
                request = Request(url=url, proxy=URL(proxy.url))
                ask = exchange.tunnel if request.tunnelled else exchange.send
                with pytest.raises(TransferFailed) as caught:
                    await ask(request)
                assert caught.value.failure.code == "tls_failed"
                place = f"127.0.0.1:{proxy.port}"
                assert f"cannot trust the certificate of proxy {place}: " in str(caught.value)
        assert sockets_to(proxy.port) == 0
    assert proxy.seen == []


async def test_only_a_request_with_a_proxy_has_a_tunnel() -> None:
    """To ask nobody for a tunnel is a fault of ours."""
    async with open_exchange() as exchange:
        with pytest.raises(ValueError, match="no proxy"):
            await exchange.tunnel(Request(url="https://h.example/"))


# ── through the tunnel ─────────────────────────────────────────────────────────────────────


async def test_without_a_tunnel_nothing_is_sent(stage: Stage) -> None:
    """`send` opens none by itself: the proxy would be asked without credentials."""
    stage.script(stage.lets_through())
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        with pytest.raises(ConnectionGone):
            await exchange.send(stage.request)
        await exchange.tunnel(stage.request)
        for unlike in (
            replace(stage.request, identity="alice"),
            replace(stage.request, url="https://127.0.0.1:1/"),
            replace(stage.request, connection="another"),
        ):
            assert not exchange.reaches(unlike)
            with pytest.raises(ConnectionGone):
                await exchange.send(unlike)
        assert await stage.fetch(exchange) == b"secret"
    assert len(stage.proxy.seen) == len(stage.secure.seen) == 1


async def test_a_tunnel_that_was_lost_needs_another(either: Stage) -> None:
    """The server closed it after its answer: that is heard of before anything is sent."""
    either.secure.pages["/"] = fixed(200, [("Connection", "close")], b"secret")
    either.script(either.lets_through())
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        for _ in range(2):
            await exchange.tunnel(either.request)
            assert await either.fetch(exchange) == b"secret"
            assert not exchange.reaches(either.request)
            with pytest.raises(ConnectionGone):
                await exchange.send(either.request)
    assert len(either.secure.seen) == len(either.proxy.seen) == 2


async def test_a_new_tunnel_takes_the_place_of_the_old(stage: Stage) -> None:
    """What is sent next goes through it, and the connection of the old one is closed."""
    stage.script(stage.lets_through())
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        numbers = []
        for _ in range(2):
            tunnel = await exchange.tunnel(stage.request)
            answer = await exchange.send(stage.request)
            await answer.drain()
            assert answer.connection == tunnel.connection
            numbers.append(answer.connection)
        await until(lambda: sockets_to(stage.proxy.port) == 1)
        unused = await exchange.tunnel(stage.request)
        assert (await exchange.tunnel(stage.request)).connection != unused.connection
        await until(lambda: sockets_to(stage.proxy.port) == 1)
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["closed", "spoke"])
async def test_a_tunnel_that_speaks_before_it_is_spoken_to(
    either: Stage, last_words: bytes
) -> None:
    """Bytes before TLS are refused; an end is the end of the tunnel, and no server's fault."""
    go = asyncio.Event()

    async def treacherous(seen: Seen, wire: Wire) -> None:
        await wire.raw(OPEN)
        await go.wait()
        await wire.raw(last_words)
        wire.close()

    either.script(treacherous)
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        await exchange.tunnel(either.request)
        go.set()
        await until(lambda: either.proxy.served == 1)
        with pytest.raises(TransferFailed) as caught:
            await exchange.send(either.request)
        assert isinstance(caught.value, ConnectionGone) is not bool(last_words)
        code = "protocol_error" if last_words else "connection_lost"
        assert caught.value.failure.code == code
        await until(lambda: sockets_to(either.proxy.port) == 0)


async def test_a_server_behind_a_tunnel_must_be_trusted(either: Stage, tmp_path: Path) -> None:
    """tls_failed names the server, not the proxy which opened the tunnel."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with Origin(tls=other.server()).running() as secure:
        either.proxy.pages[f"127.0.0.1:{secure.port}"] = tunnel_to(secure.port)
        request = replace(either.request, url=secure.url("/"))
        async with open_exchange(cacert=either.authority.cacert) as exchange:
            await exchange.tunnel(request)
            failed = await failure(exchange, request)
            await until(lambda: sockets_to(either.proxy.port) == 0)
    assert failed.failure.code == "tls_failed"
    assert str(failed).startswith(f"cannot trust the certificate of 127.0.0.1:{secure.port}: ")
    assert secure.seen == []


async def test_a_name_that_no_certificate_can_have_is_the_owners_mistake(either: Stage) -> None:
    """Names behind a proxy are not looked up here: TLS is the first to see them."""
    host = f"{'a' * 70}.example"
    either.proxy.pages[f"{host}:443"] = either.lets_through()
    request = replace(either.request, url=f"https://{host}/")
    async with open_exchange(cacert=either.authority.cacert) as exchange:
        await exchange.tunnel(request)
        failed = await failure(exchange, request)
        await until(lambda: sockets_to(either.proxy.port) == 0)
    assert failed.failure.code == "tls_failed"
    assert "no certificate can be for that name" in str(failed)


# ── cancellation ───────────────────────────────────────────────────────────────────────────


async def test_a_dialogue_that_is_cancelled_anywhere_leaves_no_socket(either: Stage) -> None:
    """At every turn of the loop, in both legs and in TLS; and the exchange works on."""
    request = replace(either.request, proxy_authorization="Basic x")

    async def whole(exchange: Exchange) -> None:
        asked = await exchange.tunnel(request)
        await exchange.tunnel(replace(request, connection=asked.connection))
        await either.fetch(exchange, request)

    turns, cancelled = 0, True
    while cancelled:
        turns += 1
        async with open_exchange(cacert=either.authority.cacert) as exchange:
            either.script(fixed(407, body=b"who?" * 100), either.lets_through())
            cancelled = await cancelled_after(turns, whole(exchange))
            if cancelled:
                either.script(either.lets_through())
                await exchange.tunnel(request)
                assert await either.fetch(exchange, request) == b"secret"
        await until(lambda: sockets_to(either.proxy.port) == 0)
    assert turns > 10


# ── a real proxy ───────────────────────────────────────────────────────────────────────────


async def test_basic_at_a_real_proxy_opens_the_tunnel(stage: Stage, squid: Squid) -> None:
    """squid asks, refuses a wrong password and takes the right one, all on one connection."""
    request = replace(stage.request, proxy=URL(squid.url("basic")))
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        asked = await exchange.tunnel(request)
        answers = [asked]
        for password in ("wrong", PASSWORD):
            value = base64.b64encode(f"{USER}:{password}".encode()).decode()
            leg = replace(
                request, proxy_authorization=f"Basic {value}", connection=asked.connection
            )
            answers.append(await exchange.tunnel(leg))
        assert [answer.status for answer in answers] == [407, 407, 200]
        assert asked.values("Proxy-Authenticate")[0].startswith("Basic realm=")
        assert {answer.connection for answer in answers} == {asked.connection}
        assert await stage.fetch(exchange, request) == b"secret"
    assert "authorization" not in stage.secure.said


async def test_ntlm_at_a_real_proxy_opens_the_tunnel(stage: Stage, squid: Squid) -> None:
    """Three legs of which each means something on the connection of the one before only."""
    request = replace(stage.request, proxy=URL(squid.url("ntlm")), identity=USER)
    context = spnego.client(USER, PASSWORD, protocol="ntlm")
    token: bytes | None = None
    statuses = []
    async with open_exchange(cacert=stage.authority.cacert) as exchange:
        answer = await exchange.tunnel(request)
        first = answer.connection
        while answer.status == 407:
            value = base64.b64encode(context.step(token) or b"").decode()
            leg = replace(request, proxy_authorization=f"NTLM {value}", connection=first)
            answer = await exchange.tunnel(leg)
            statuses.append(answer.status)
            if answer.status == 407:
                token = base64.b64decode(answer.values("Proxy-Authenticate")[0].split(" ")[1])
        assert statuses == [407, 200]
        assert answer.connection == first
        assert await stage.fetch(exchange, request) == b"secret"
    assert "authorization" not in stage.secure.said


async def test_a_scripted_proxy_that_judges_agrees(stage: Stage) -> None:
    """The acceptor of other tests: no credential, then the right one."""
    async with ForwardProxy(Basic("alice", "pw")).running() as proxy:
        request = replace(stage.request, proxy=URL(proxy.url))
        async with open_exchange(cacert=stage.authority.cacert) as exchange:
            assert (await exchange.tunnel(request)).status == 407
            value = base64.b64encode(b"alice:pw").decode()
            leg = replace(request, proxy_authorization=f"Basic {value}")
            assert (await exchange.tunnel(leg)).status == 200
            assert await stage.fetch(exchange, request) == b"secret"
        assert proxy.connections == 1
