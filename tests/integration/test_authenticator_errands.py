"""Errands of a conversation: where they may go, and what they may carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.origin import Origin, fixed, in_turn
from tests.support.proxy import ForwardProxy
from tests.support.scripted import (
    FILE,
    NTLM,
    Legs,
    Scripted,
    Stage,
    asking,
    dropping,
    identity,
    once,
    open_gate,
    refused,
    values,
)
from tests.support.sticky import StickyProxy
from tests.support.worker import PLAIN
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    Conversation,
    Errand,
    RequestLine,
)
from transferd.model.credentials import Scheme, Target
from transferd.worker.visit import MAX_ERRANDS


def errands(
    *wishes: Errand | Attempt, final: str | None = "NTLM token"
) -> Callable[..., Conversation]:
    """A script that runs errands, and then sends the request."""

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        for wish in wishes:  # noqa: UP028
            yield wish
        yield Attempt(authorization=final)

    return script


async def test_an_errand_carries_nothing_of_the_request(
    stage: Stage, origin: Origin, other: Origin
) -> None:
    """Its own URL and credentials, the cookies of that place, and nothing else."""
    stage.play(
        Scheme.NTLM,
        errands(
            Errand(url=other.url("/a"), authorization="NTLM errand"),
            Errand(url=other.url("/b/c")),
            Errand(url=other.url("/b/c"), forget=True),
        ),
    )
    set_cookies = [("Set-Cookie", "k=v/=; Path=/b"), ("Set-Cookie", "all=1; Path=/; HttpOnly")]
    other.pages["/a"] = fixed(401, set_cookies, b"x" * 100)
    origin.pages["/f"] = in_turn(asking(), FILE)
    async with open_gate(NTLM) as gate:
        assert await gate.status(origin.url("/f")) == 200
    assert values(other) == ["NTLM errand", None, None]
    assert [seen.get("cookie") for seen in other.seen] == [None, "all=1; k=v/=", None]
    assert [seen.target for seen in other.seen] == ["/a", "/b/c", "/b/c"]
    assert "cookie" not in origin.said


async def test_an_errand_has_a_connection_of_its_own(stage: Stage, origin: Origin) -> None:
    """Not even to the file's own origin does it go over what was authenticated for the owner."""
    stage.play(Scheme.PASSPORT, errands(Errand(url=origin.url("/login"))))
    origin.pages["/a"] = FILE
    origin.pages["/login"] = FILE
    origin.pages["/f"] = in_turn(asking("Passport1.4 a=b"), FILE)
    async with open_gate(identity(Scheme.PASSPORT)) as gate:
        assert await gate.status(origin.url("/a")) == 200
        assert await gate.status(origin.url("/f")) == 200
    (errand,) = origin.requests("/login")
    assert errand.connection not in {seen.connection for seen in origin.requests("/a")}
    assert errand.connection not in {seen.connection for seen in origin.requests("/f")}


async def test_the_reply_of_an_errand_is_told_whole(
    stage: Stage, origin: Origin, other: Origin
) -> None:
    """Status and every field, a redirect included: it is the scheme's to follow."""
    heard = []

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        heard.append((yield Errand(url=other.url("/a"))))
        yield Attempt(authorization="NTLM token")

    stage.play(Scheme.NTLM, script)
    fields = [("Location", "/elsewhere"), ("Authentication-Info", "x"), ("PassportURLs", "y")]
    other.pages["/a"] = fixed(302, fields)
    origin.pages["/f"] = in_turn(asking(), FILE)
    async with open_gate(NTLM) as gate:
        await gate.status(origin.url("/f"))
    (reply,) = heard
    assert (reply.status, reply.values("location")) == (302, ("/elsewhere",))
    assert reply.authentication_info == reply.values("authentication-info") == ("x",)
    assert reply.values("passporturls") == ("y",)


async def test_an_errand_goes_through_its_own_proxy(stage: Stage, origin: Origin) -> None:
    """Chosen for its URL, past the proxy's own door; the request itself goes as it was to go."""
    stage.play(Scheme.PASSPORT, errands(Errand(url=origin.url("/login"))))
    origin.pages["/f"] = in_turn(asking("Passport1.4 a=b"), FILE)
    origin.pages["/login"] = FILE
    legs = Legs()
    async with StickyProxy(legs.answer).running() as proxy:
        held = [identity(Scheme.PASSPORT), identity(Scheme.NTLM, Target.PROXY)]
        async with open_gate(*held, settings=replace(PLAIN, proxy=proxy.url)) as gate:
            assert await gate.status(origin.url("/f")) == 200
    assert [urls.target for urls in proxy.seen] == [origin.url("/login")] * 3
    assert "proxy-authorization" not in origin.said


@pytest.mark.parametrize(
    "url", ["http://login.example.org/", "ftp://127.0.0.1/", "http://127.0.0.1/a b", "no url"]
)
async def test_an_errand_goes_nowhere_in_the_clear(stage: Stage, origin: Origin, url: str) -> None:
    """https, or this machine: what it carries is worth as much as a password."""
    stage.play(Scheme.NTLM, errands(Errand(url=url, authorization="NTLM secret")))
    origin.pages["/f"] = asking()
    async with (
        ForwardProxy().running() as proxy,
        open_gate(NTLM, settings=replace(PLAIN, proxy=proxy.url)) as gate,
    ):
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == "server_not_authenticated"
    assert "secret" not in failure.message
    assert proxy.seen == []


async def test_an_errand_to_nobody_fails_the_run(stage: Stage, origin: Origin) -> None:
    """As a server that is down does; time may heal it."""
    async with Origin().running() as gone:
        url = gone.url("/")
    stage.play(Scheme.NTLM, errands(Errand(url=url)))
    origin.pages["/f"] = asking()
    async with open_gate(NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == "connection_refused"
    assert [session.closed for session in stage.sessions] == [1]


async def test_errands_are_bounded(stage: Stage, origin: Origin, other: Origin) -> None:
    """A login that leads on and on is given up."""
    many = [Errand(url=other.url("/"), authorization="NTLM x")] * (MAX_ERRANDS + 1)
    stage.play(Scheme.NTLM, errands(*many))
    origin.pages["/f"] = asking()
    async with open_gate(NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert (failure.code, len(other.seen)) == ("http_401", MAX_ERRANDS)


async def test_an_errand_that_met_a_dead_connection_is_run_anew(
    stage: Stage, origin: Origin, other: Origin
) -> None:
    """That costs the conversation nothing."""
    stage.play(Scheme.NTLM, errands(*[Errand(url=other.url("/"))] * 2))
    other.pages["/"] = in_turn(FILE, dropping, FILE)
    origin.pages["/f"] = in_turn(asking(), FILE)
    async with open_gate(NTLM) as gate:
        assert await gate.status(origin.url("/f")) == 200
    assert (len(origin.seen), len(other.seen)) == (2, 3)


async def test_an_attempt_may_ask_for_another_url_of_the_origin(
    stage: Stage, origin: Origin
) -> None:
    """Where a scheme leads; the answer knows where it came from, for redirects."""
    there = origin.url("/there/f")
    stage.play(Scheme.NTLM, lambda *_: once(Attempt(authorization="NTLM x", url=there)))
    origin.pages["/f"] = asking()
    origin.pages["/there/f"] = FILE
    async with open_gate(NTLM) as gate:
        answer = await gate.ask(origin.url("/f"))
        assert answer.request.url == there
        await answer.drain()
    assert [seen.target for seen in origin.seen] == ["/f", "/there/f"]


async def test_an_attempt_never_leaves_the_origin(
    stage: Stage, origin: Origin, other: Origin
) -> None:
    """Whoever leads elsewhere with a token wants it for himself."""
    for url in (other.url("/"), "https://127.0.0.1/", f"http://127.0.0.1:{origin.port}/a b", "/"):
        stage.play(Scheme.NTLM, lambda *_, url=url: once(Attempt(authorization="x", url=url)))
        origin.pages["/f"] = asking()
        async with open_gate(NTLM) as gate:
            failure = (await refused(gate, origin.url("/f"))).failure
        assert failure.code == "server_not_authenticated"
    assert set(values(origin)) == {None}
    assert other.seen == []
