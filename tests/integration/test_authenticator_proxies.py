"""Proxies and passwords in the clear: who hears what on the way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.acceptors import Acceptor, Basic, Digest, guarded
from tests.support.identities import (
    BODY,
    BOTH,
    document,
    failed,
    held,
    nothing_secret,
    sent,
)
from tests.support.origin import Origin, Seen, Wire, fixed, redirect
from tests.support.proxy import ForwardProxy
from tests.support.sticky import StickyProxy
from tests.support.tls import Authority
from tests.support.worker import (
    PASSWORD,
    PLAIN,
    USER,
    Book,
    Desk,
    credential,
    worker_task,
)
from transferd.model.credentials import Target
from transferd.wire import link


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


# ── cleartext ──────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def far_away(*acceptors: Acceptor) -> AsyncIterator[tuple[Origin, ForwardProxy, str]]:
    """An origin behind a proxy under a name that is no loopback address."""
    async with Origin().running() as origin, ForwardProxy().running() as proxy:
        proxy.hosts["files.example.org"] = "127.0.0.1"
        origin.pages["/f"] = guarded(document(), *acceptors)
        yield origin, proxy, f"http://files.example.org:{origin.port}/f"


async def test_basic_does_not_travel_in_the_clear(desk: Desk, tmp_path: Path) -> None:
    """Over plain http to another host: cleartext_refused, unless the job allows it."""
    async with far_away(Basic(USER, PASSWORD)) as (origin, proxy, url):
        book = Book.of(tmp_path, url)
        settings = replace(PLAIN, proxy=proxy.url)
        end = failed(await desk.carry(book, credentials=held(*BOTH), settings=settings))
        assert end.failure.code == "cleartext_refused"
        assert nothing_secret(origin.said, repr(proxy.seen))
        allowed = replace(settings, allow_cleartext=True)
        assert isinstance(
            await desk.carry(book, credentials=held(*BOTH), settings=allowed), link.Drained
        )


async def test_digest_travels_in_the_clear(desk: Desk, tmp_path: Path) -> None:
    """Digest shows no password, so plain http will do, and it is preferred anyway."""
    async with far_away(Basic(USER, PASSWORD), Digest(USER, PASSWORD)) as (origin, proxy, url):
        settings = replace(PLAIN, proxy=proxy.url)
        book = Book.of(tmp_path, url)
        end = await desk.carry(book, credentials=held(*BOTH), settings=settings)
        assert isinstance(end, link.Drained)
        assert sent(origin) == [None, "Digest"]


# ── proxies ────────────────────────────────────────────────────────────────────────────────


def both_targets() -> Iterable[link.LinkCredential]:
    """Other identities for the server and for the proxy."""
    return [
        *held(*BOTH),
        *(credential(scheme, "proxyuser", "proxypass", Target.PROXY) for scheme in BOTH),
    ]


def own_values(seen: Iterable[Seen], name: str) -> list[str | None]:
    """Which schemes a header carried."""
    values = [request.get(name) for request in seen]
    return [None if value is None else value.partition(" ")[0] for value in values]


PROXY_ACCEPTORS: list[Acceptor] = [
    Basic("proxyuser", "proxypass"),
    Digest("proxyuser", "proxypass"),
]


@pytest.mark.parametrize("acceptor", PROXY_ACCEPTORS)
async def test_a_proxy_and_the_server_behind_it_are_told_apart(
    desk: Desk, origin: Origin, tmp_path: Path, acceptor: Acceptor
) -> None:
    """Plain http: each gets its own identity, after its own challenge, and never the other's."""
    origin.pages["/f"] = guarded(document(), Digest(USER, PASSWORD))
    async with ForwardProxy(replace(acceptor)).running() as proxy:
        book = Book.of(tmp_path, *[origin.url("/f")] * 2)
        settings = replace(PLAIN, proxy=proxy.url)
        end = await desk.carry(book, credentials=both_targets(), settings=settings)
    assert isinstance(end, link.Drained)
    scheme = type(acceptor).__name__
    values = own_values(proxy.seen, "proxy-authorization")
    # One more where the proxy closed a connection just as it was to be used again.
    assert values[0] is None
    assert set(values[1:]) == {scheme}
    assert "proxy-authorization" not in origin.said
    assert "proxyuser" not in origin.said
    assert sorted((m.target, m.accepted) for m in desk.of(link.Audited)) == [
        (Target.PROXY, True),
        (Target.SERVER, True),
    ]


@pytest.mark.parametrize("acceptor", PROXY_ACCEPTORS)
async def test_a_tunnel_is_opened_once_and_keeps_the_proxys_identity_out(
    desk: Desk, tmp_path: Path, acceptor: Acceptor
) -> None:
    """https: 407 to CONNECT is answered on a new connection; one tunnel serves all files."""
    authority = Authority(tmp_path)
    async with (
        Origin(tls=authority.server()).running() as secure,
        ForwardProxy(replace(acceptor)).running() as proxy,
    ):
        secure.pages["/f"] = guarded(document(), Basic(USER, PASSWORD))
        book = Book.of(tmp_path, *[secure.url("/f")] * 3)
        settings = replace(PLAIN, proxy=proxy.url, cacert=authority.cacert)
        end = await desk.carry(book, credentials=both_targets(), settings=settings)
        assert isinstance(end, link.Drained)
    assert [seen.method for seen in proxy.seen] == ["CONNECT"] * 2
    assert own_values(proxy.seen, "proxy-authorization") == [None, type(acceptor).__name__]
    assert own_values(proxy.seen, "authorization") == [None, None]
    assert "proxy-authorization" not in secure.said
    assert sent(secure) == [None, "Basic", "Basic", "Basic"]


@pytest.mark.parametrize("acceptor", PROXY_ACCEPTORS)
async def test_a_tunnel_that_was_lost_is_opened_again(
    desk: Desk, tmp_path: Path, acceptor: Acceptor
) -> None:
    """The value of the first tunnel may not do for the second: then the proxy is asked anew."""
    authority = Authority(tmp_path)
    async with (
        Origin(tls=authority.server()).running() as secure,
        ForwardProxy(replace(acceptor)).running() as proxy,
    ):

        async def closing(seen: Seen, wire: Wire) -> None:
            await wire.answer(200, [("Connection", "close")], BODY)
            wire.close()

        secure.pages["/f"] = closing
        book = Book.of(tmp_path, *[secure.url("/f")] * 3)
        settings = replace(PLAIN, proxy=proxy.url, cacert=authority.cacert)
        end = await desk.carry(book, credentials=both_targets(), settings=settings)
    assert isinstance(end, link.Drained)
    assert len(secure.seen) == 3


@pytest.mark.parametrize("tls", [True, False])
async def test_a_refused_proxy_password_is_tried_once(
    desk: Desk, tmp_path: Path, tls: bool
) -> None:
    """http_407, once, whether the proxy forwards or tunnels; the server hears nothing."""
    authority = Authority(tmp_path)
    acceptor = Basic("proxyuser", "another")
    async with (
        Origin(tls=authority.server() if tls else None).running() as server,
        ForwardProxy(acceptor).running() as proxy,
    ):
        settings = replace(PLAIN, proxy=proxy.url, cacert=authority.cacert)
        book = Book.of(tmp_path, server.url("/f"))
        end = failed(await desk.carry(book, credentials=both_targets(), settings=settings))
    assert end.failure.code == "http_407"
    assert "proxy http://127.0.0.1" in end.failure.message
    assert acceptor.attempts == 1
    assert server.seen == []


async def test_a_407_out_of_a_tunnel_is_the_servers_and_gets_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    """The proxy's identity would be shown to the server."""
    authority = Authority(tmp_path)
    async with (
        Origin(tls=authority.server()).running() as secure,
        ForwardProxy().running() as proxy,
    ):
        secure.pages["/f"] = fixed(407, [("Proxy-Authenticate", 'Basic realm="r"')])
        settings = replace(PLAIN, proxy=proxy.url, cacert=authority.cacert)
        book = Book.of(tmp_path, secure.url("/f"))
        end = failed(await desk.carry(book, credentials=both_targets(), settings=settings))
    assert end.failure.code == "http_407"
    assert len(secure.seen) == 1
    assert "authorization" not in secure.said


async def test_the_proxys_identity_follows_to_the_proxy_only(
    desk: Desk, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    """A redirect to another origin goes through the same proxy, with its identity and no other."""
    origin.pages["/f"] = guarded(redirect(other.url("/g")), Basic(USER, PASSWORD))
    other.pages["/g"] = document()
    async with ForwardProxy(Basic("proxyuser", "proxypass")).running() as proxy:
        settings = replace(PLAIN, proxy=proxy.url)
        book = Book.of(tmp_path, origin.url("/f"))
        end = await desk.carry(book, credentials=both_targets(), settings=settings)
    assert isinstance(end, link.Drained)
    assert "authorization" not in other.said
    assert own_values(proxy.seen, "proxy-authorization") == [None, "Basic", "Basic", "Basic"]


async def test_no_connection_is_lent_to_a_redirect(
    desk: Desk, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    """What a proxy or server admitted for the owner carries nothing that leads elsewhere."""
    origin.pages["/f"] = guarded(redirect(other.url("/g")), Basic(USER, PASSWORD))
    other.pages["/g"] = redirect(origin.url("/h"))
    origin.pages["/h"] = document()
    async with StickyProxy().running() as proxy:
        settings = replace(PLAIN, proxy=proxy.url)
        book = Book.of(tmp_path, origin.url("/f"))
        end = await desk.carry(book, credentials=held(*BOTH), settings=settings)
    assert isinstance(end, link.Drained)
    lent = {seen.connection for seen in proxy.seen if seen.target == other.url("/g")}
    own = {seen.connection for seen in proxy.seen if seen.target != other.url("/g")}
    assert len(proxy.seen) == 4
    assert not lent & own


async def test_an_identity_in_the_environments_proxy_url_answers_the_proxy(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """http_proxy=http://user:password@host works, after a challenge like any other identity."""
    origin.pages["/f"] = document()
    monkeypatch.delenv("no_proxy", raising=False)
    async with ForwardProxy(Digest("proxyuser", "proxypass")).running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://proxyuser:proxypass@127.0.0.1:{proxy.port}")
        book = Book.of(tmp_path, origin.url("/f"))
        end = await desk.carry(book, settings=replace(PLAIN, proxy=None))
    assert isinstance(end, link.Drained)
    assert own_values(proxy.seen, "proxy-authorization") == [None, "Digest"]
