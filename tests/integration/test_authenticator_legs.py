"""Handshakes whose legs count on one connection: servers and proxies that keep it, or do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.acceptors import Basic, Digest, guarded
from tests.support.origin import Origin, Page, Seen, Wire, in_turn
from tests.support.scripted import (
    FILE,
    NTLM,
    Legs,
    Scripted,
    Stage,
    asking,
    behind_legs,
    closing,
    dropping,
    identity,
    open_gate,
    refused,
    values,
)
from tests.support.sticky import StickyProxy
from tests.support.tls import Authority
from tests.support.worker import PASSWORD, USER
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    Conversation,
    RequestLine,
)
from transferd.model.credentials import Scheme, Target
from transferd.model.errors import TransferFailed
from transferd.worker.answer import Answer
from transferd.worker.exchange import Exchange
from transferd.worker.request import Request


async def test_the_legs_of_a_handshake_share_a_connection(stage: Stage, origin: Origin) -> None:
    """The last leg goes where the one before it was answered; later requests need none."""
    origin.pages["/f"] = behind_legs(FILE)
    async with open_gate(NTLM) as gate:
        assert [await gate.status(origin.url("/f")) for _ in range(2)] == [200, 200]
    assert values(origin) == [None, "NTLM one", "NTLM three", None]
    assert {seen.connection for seen in origin.seen} == {1}
    assert gate.audits == [(True, Target.SERVER, Scheme.NTLM, "127.0.0.1", "scripted")]
    assert [session.closed for session in stage.sessions] == [1]


async def test_a_connection_that_was_replaced_is_authenticated_again(
    stage: Stage, origin: Origin
) -> None:
    """A later request that lands on another connection is challenged, and answers in full."""
    origin.pages["/f"] = behind_legs(closing(FILE))
    async with open_gate(NTLM) as gate:
        assert [await gate.status(origin.url("/f")) for _ in range(2)] == [200, 200]
    assert values(origin) == [None, "NTLM one", "NTLM three"] * 2
    assert origin.connections == 2
    assert len(gate.audits) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_handshake_that_lost_its_connection_is_begun_anew(
    stage: Stage, origin: Origin, times: int
) -> None:
    """From a fresh challenge, not with a token that no connection knows (BITS.md 4.7)."""
    legs = Legs()
    behind = behind_legs(FILE, legs)
    left = times

    async def breaking(seen: Seen, wire: Wire) -> None:
        nonlocal left
        await behind(seen, wire)
        if seen.get("authorization") == "NTLM one" and left:
            left -= 1
            wire.close()

    origin.pages["/f"] = breaking
    async with open_gate(NTLM) as gate:
        assert await gate.status(origin.url("/f")) == 200
    assert values(origin) == [None, "NTLM one"] * times + [None, "NTLM one", "NTLM three"]
    assert legs.admitted == {times + 1}
    assert gate.audits == [(True, Target.SERVER, Scheme.NTLM, "127.0.0.1", "scripted")]


async def test_a_server_that_never_keeps_a_connection_is_given_up(
    stage: Stage, origin: Origin
) -> None:
    """After two more handshakes: a failure that says what is wrong, and that time may heal."""
    origin.pages["/f"] = closing(behind_legs(FILE))
    async with open_gate(NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert (failure.code, failure.kind.transient) == ("connection_lost", True)
    assert "the server closes the connection between the legs of the handshake" in failure.message
    # A connection whose end has come is not taken for the second request.
    assert values(origin).count("NTLM one") == 3
    assert "NTLM three" not in values(origin)
    assert gate.audits == []
    assert all(session.closed == 1 for session in stage.sessions)


async def test_an_answer_from_another_connection_answers_no_leg(
    stage: Stage, origin: Origin
) -> None:
    """Should the exchange ever answer a pinned leg from elsewhere, the handshake is void."""

    class Careless(Exchange):
        def __init__(self, exchange: Exchange) -> None:
            self.__dict__ = exchange.__dict__

        async def send(self, request: Request) -> Answer:
            return await super().send(replace(request, connection=None))

    legs = Legs()
    origin.pages["/f"] = closing(behind_legs(FILE, legs))
    async with open_gate(NTLM, kind=Careless) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == "connection_lost"
    assert "between the legs" in failure.message


async def test_a_request_that_met_a_dead_connection_is_sent_anew(
    stage: Stage, origin: Origin
) -> None:
    """A connection may end just as it is used again; twice at most."""
    origin.pages["/a"] = FILE
    origin.pages["/f"] = in_turn(dropping, FILE)
    async with open_gate() as gate:
        await gate.status(origin.url("/a"))
        assert await gate.status(origin.url("/f")) == 200
    assert origin.connections == 2


async def test_what_may_not_be_repeated_is_not_sent_anew(origin: Origin) -> None:
    """POST: nobody knows what the server did with the first one (RFC 9110 9.2.2)."""
    origin.pages["/a"] = FILE
    origin.pages["/f"] = in_turn(dropping, FILE)
    async with open_gate() as gate:
        await gate.status(origin.url("/a"))
        with pytest.raises(TransferFailed) as caught:
            await gate.ask(origin.url("/f"), method="POST")
    assert caught.value.failure.code == "connection_lost"
    assert len(origin.requests("/f")) == 1


async def test_a_token_is_never_sent_twice(stage: Stage, origin: Origin) -> None:
    """Not even where its connection was gone: the server may have seen it, and call it a replay."""
    numbers = iter(range(100))

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        reply = yield Attempt(authorization=f"Negotiate {next(numbers)}")
        if reply.status == 401:
            raise AuthRejected("no")

    stage.play(Scheme.NEGOTIATE, script)
    origin.pages["/f"] = in_turn(asking("Negotiate"), FILE, dropping, FILE)
    async with open_gate(identity(Scheme.NEGOTIATE)) as gate:
        assert await gate.status(origin.url("/f")) == 200
        assert await gate.status(origin.url("/f")) == 200
    assert values(origin) == [None, "Negotiate 0", "Negotiate 1", "Negotiate 2"]


@pytest.mark.parametrize("scheme", [Scheme.BASIC, Scheme.DIGEST, Scheme.NTLM])
async def test_head_and_get_are_both_authenticated(
    stage: Stage, origin: Origin, scheme: Scheme
) -> None:
    """The method is part of what is authenticated; HEAD is a request like GET."""
    origin.pages["/f"] = {
        Scheme.BASIC: guarded(_bodiless(FILE), Basic(USER, PASSWORD), body=b""),
        Scheme.DIGEST: guarded(_bodiless(FILE), Digest(USER, PASSWORD), body=b""),
        Scheme.NTLM: behind_legs(_bodiless(FILE)),
    }[scheme]
    async with open_gate(identity(scheme)) as gate:
        assert await gate.status(origin.url("/f"), method="HEAD") == 200
        assert await gate.status(origin.url("/f"), method="GET") == 200
        assert await gate.status(origin.url("/f"), method="HEAD") == 200
    assert origin.seen[0].method == "HEAD"
    assert len(gate.audits) == 1


def _bodiless(page: Page) -> Page:
    async def short(seen: Seen, wire: Wire) -> None:
        if seen.method == "HEAD":
            await wire.head(200, [("Content-Length", "9")])
        else:
            await page(seen, wire)

    return short


# ── through proxies ────────────────────────────────────────────────────────────────────────


def proxy_of(kind: str) -> tuple[Callable[[int, str | None], str | None] | None, Scheme]:
    """Return the guard of a proxy, and the scheme that gets past it."""
    if kind == "per connection":
        return Legs().answer, Scheme.NTLM
    if kind == "per request":
        return lambda _, value: None if value else 'Basic realm="p"', Scheme.BASIC
    return None, Scheme.BASIC


@pytest.mark.parametrize("kind", ["open", "per connection", "per request"])
@pytest.mark.parametrize("tls", [False, True])
async def test_pinned_legs_pass_a_proxy_with_legs_of_its_own(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, kind: str, tls: bool
) -> None:
    """The proxy's conversation comes first, on the connection that then carries the server's."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    guard, scheme = proxy_of(kind)
    async with (
        Origin(tls=authority.server() if tls else None).running() as server,
        StickyProxy(guard).running() as proxy,
        open_gate(NTLM, identity(scheme, Target.PROXY), cacert=authority.cacert) as gate,
    ):
        server.pages["/f"] = behind_legs(FILE)
        for _ in range(2):
            assert await gate.status(server.url("/f"), proxy=proxy.url) == 200
    assert values(server) == [None, "NTLM one", "NTLM three", None]
    assert server.connections == proxy.connections == 1
    assert "proxy-authorization" not in server.said


async def test_a_proxy_that_hangs_up_between_its_legs_is_told(stage: Stage) -> None:
    """connection_lost, and it is the proxy that closes the connection."""
    async with (
        Origin().running() as origin,
        StickyProxy(Legs().answer, hangs_up=True).running() as proxy,
        open_gate(identity(Scheme.NTLM, Target.PROXY)) as gate,
    ):
        with pytest.raises(TransferFailed) as caught:
            await gate.ask(origin.url("/f"), proxy=proxy.url)
    assert caught.value.failure.code == "connection_lost"
    assert "the proxy closes the connection between the legs" in caught.value.failure.message
    assert origin.seen == []


async def test_a_proxy_that_asks_in_mid_handshake_is_answered_there(
    stage: Stage, origin: Origin
) -> None:
    """A 407 to a pinned leg is answered on the same connection, or the leg would be lost."""
    asked: list[int] = []

    def guard(connection: int, value: str | None) -> str | None:
        if value is None and asked.count(connection) != 1:
            asked.append(connection)
            return None
        asked.append(connection)
        return None if value else 'Basic realm="p"'

    origin.pages["/f"] = behind_legs(FILE)
    async with (
        StickyProxy(guard).running() as proxy,
        open_gate(NTLM, identity(Scheme.BASIC, Target.PROXY)) as gate,
    ):
        assert await gate.status(origin.url("/f"), proxy=proxy.url) == 200
    assert values(origin) == [None, "NTLM one", "NTLM three"]
    assert proxy.connections == 1


@pytest.mark.parametrize("kind", ["open", "per connection", "per request"])
async def test_a_handshake_is_begun_anew_behind_a_proxy(stage: Stage, kind: str) -> None:
    """The proxy's door does not try a pinned leg again, which no other connection knows."""
    guard, scheme = proxy_of(kind)
    behind, left = behind_legs(FILE), 1

    async def breaking(seen: Seen, wire: Wire) -> None:
        nonlocal left
        if seen.get("authorization") == "NTLM three" and left:
            left -= 1
            wire.drop()
        else:
            await behind(seen, wire)

    async with (
        Origin().running() as origin,
        StickyProxy(guard).running() as proxy,
        open_gate(NTLM, identity(scheme, Target.PROXY)) as gate,
    ):
        origin.pages["/f"] = breaking
        assert await gate.status(origin.url("/f"), proxy=proxy.url) == 200
    assert values(origin) == [None, "NTLM one", "NTLM three"] * 2


async def test_without_credentials_a_proxy_has_an_error_of_its_own(origin: Origin) -> None:
    """http_407, whatever is held for the server, and the server hears nothing (BITS.md H8)."""
    async with (
        StickyProxy(Legs().answer).running() as proxy,
        open_gate(identity(Scheme.NTLM)) as gate,
    ):
        with pytest.raises(TransferFailed) as caught:
            await gate.ask(origin.url("/f"), proxy=proxy.url)
    failure = caught.value.failure
    assert (failure.code, failure.http_status) == ("http_407", 407)
    assert "offered: NTLM; held: nothing; tried: nothing" in failure.message
    assert origin.seen == []
