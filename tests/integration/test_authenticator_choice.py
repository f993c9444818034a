"""Which scheme speaks, when it makes room for the next, and what is told when none is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.origin import Origin, Seen, Wire, in_turn
from tests.support.scripted import (
    FILE,
    NTLM,
    Scripted,
    Stage,
    asking,
    behind_legs,
    identity,
    once,
    open_gate,
    refused,
    values,
)
from tests.support.tls import Authority
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    CannotStart,
    Conversation,
    NotMutual,
    RequestLine,
)
from transferd.model.credentials import Scheme
from transferd.worker.visit import MAX_ATTEMPTS


def unable(code: str | None = None, advice: str | None = None) -> Callable[..., Conversation]:
    """A script of a scheme that cannot start."""

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        if challenge is None:
            yield Attempt(authorization=None)
        raise CannotStart("there is no ticket", code=code, advice=advice)
        yield  # a generator

    return script


async def test_a_scheme_that_cannot_start_makes_room(stage: Stage, origin: Origin) -> None:
    """Nobody refused anything, so the next one may be tried; the server hears of it alone."""
    stage.play(Scheme.NEGOTIATE, unable())
    page = behind_legs(FILE)

    async def both(seen: Seen, wire: Wire) -> None:
        wire.extra = [("WWW-Authenticate", "Negotiate")]
        await page(seen, wire)

    origin.pages["/f"] = both
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM) as gate:
        assert await gate.status(origin.url("/f")) == 200
    assert values(origin) == [None, "NTLM one", "NTLM three"]
    assert [scheme for _, _, scheme, _, _ in gate.audits] == [Scheme.NTLM]


@pytest.mark.parametrize(
    ("code", "advice", "expected", "remedy"),
    [
        (None, None, "http_401", "set the right credentials, then resume"),
        (None, "run kinit", "http_401", "run kinit"),
        ("kdc_unreachable", None, "kdc_unreachable", "wait: it is tried again by itself"),
        ("kdc_unreachable", "plug it in", "kdc_unreachable", "plug it in"),
    ],
)
async def test_what_kept_a_scheme_from_starting_is_the_failure(
    stage: Stage,
    origin: Origin,
    code: str | None,
    advice: str | None,
    expected: str,
    remedy: str,
) -> None:
    """Where nothing else is left, with the mechanism's own words, code and advice."""
    stage.play(Scheme.NEGOTIATE, unable(code, advice))
    origin.pages["/f"] = asking("Negotiate")
    async with open_gate(identity(Scheme.NEGOTIATE)) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == expected
    assert failure.http_status == (401 if code is None else None)
    assert failure.message.endswith(
        "offered: Negotiate; held: negotiate; tried: negotiate; there is no ticket"
    )
    assert failure.remedy.startswith(remedy)
    assert gate.audits == []


async def test_a_reason_that_passes_counts_before_one_that_does_not(
    stage: Stage, origin: Origin
) -> None:
    """The KDC may be back tomorrow, whatever is wrong with the other credentials."""
    stage.play(Scheme.NEGOTIATE, unable("kdc_unreachable"))
    stage.play(Scheme.NTLM, unable(None, "no such user"))
    origin.pages["/f"] = asking("Negotiate, NTLM")
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == "kdc_unreachable"
    assert "tried: negotiate, ntlm" in failure.message


async def test_a_refusal_by_the_kdc_is_a_refusal(stage: Stage, origin: Origin) -> None:
    """No other scheme shows the same wrong password to the same account once more."""

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        raise AuthRejected("the KDC refuses it", advice="ask the KDC")
        yield  # a generator

    stage.play(Scheme.NEGOTIATE, script)
    origin.pages["/f"] = asking("Negotiate, NTLM")
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert (failure.code, failure.advice) == ("http_401", "ask the KDC")
    assert values(origin) == [None]
    assert [accepted for accepted, *_ in gate.audits] == [False]


async def test_a_session_that_cannot_go_on_is_forgotten(stage: Stage, origin: Origin) -> None:
    """A ticket that ran out in mid-job: the next scheme takes over, from a fresh challenge."""
    tickets = iter([True])

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        if not next(tickets, False):
            raise CannotStart("the ticket has expired")
        yield Attempt(authorization="Negotiate ticket")

    stage.play(Scheme.NEGOTIATE, script)
    asks = asking("Negotiate, NTLM")
    origin.pages["/f"] = in_turn(asks, FILE, asks, behind_legs(FILE))
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM) as gate:
        assert await gate.status(origin.url("/f")) == 200
        assert await gate.status(origin.url("/f")) == 200
    assert values(origin) == [None, "Negotiate ticket", None, "NTLM one", "NTLM three"]
    assert stage.sessions[0].closed == 1


async def test_a_session_that_remembers_nothing_makes_room_for_a_new_one(
    stage: Stage, origin: Origin
) -> None:
    """A later request that was sent without credentials was refused to nobody: ask, and begin."""

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        return once(Attempt(authorization=None if challenge is None else "Negotiate x"))

    stage.play(Scheme.NEGOTIATE, script)
    asks = asking("Negotiate")
    origin.pages["/f"] = in_turn(asks, FILE, asks, FILE)
    async with open_gate(identity(Scheme.NEGOTIATE)) as gate:
        assert await gate.status(origin.url("/f")) == 200
        assert await gate.status(origin.url("/f")) == 200
    assert values(origin) == [None, "Negotiate x"] * 2
    assert [session.closed for session in stage.sessions] == [1, 1]


async def test_a_conversation_is_bounded(stage: Stage, origin: Origin) -> None:
    """A scheme that comes to no end is given up, whatever it is (BITS.md H2)."""

    def endless(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        while True:
            yield Attempt(authorization="NTLM again")

    stage.play(Scheme.NTLM, endless)
    origin.pages["/f"] = asking()
    async with open_gate(NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert failure.code == "http_401"
    assert "ntlm comes to no end" in failure.message
    assert len(origin.seen) == 1 + MAX_ATTEMPTS


async def test_a_wrong_proof_of_the_server_ends_the_run(stage: Stage, origin: Origin) -> None:
    """server_not_authenticated, whatever else could be tried, and no byte of the body is read."""

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        yield Attempt(authorization="Negotiate ticket")
        raise NotMutual("its final token is wrong")

    stage.play(Scheme.NEGOTIATE, script)
    origin.pages["/f"] = in_turn(asking("Negotiate, NTLM"), FILE)
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
    assert (failure.code, failure.http_status) == ("server_not_authenticated", 200)
    assert gate.audits == []


async def test_a_line_names_what_is_asked_and_what_it_is_bound_to(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The method, the URL, and the certificate of the connection that the challenge came over."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    async with (
        Origin(tls=authority.server()).running() as secure,
        open_gate(NTLM, cacert=authority.cacert) as gate,
    ):
        secure.pages["/f"] = behind_legs(FILE)
        url = secure.url("/f?a=%20b")
        for _ in range(2):
            await gate.status(url)
    (session,) = stage.sessions
    assert len(session.lines) == 2
    for line in session.lines:
        assert (line.method, line.target, line.url) == ("GET", "/f?a=%20b", url)
        assert line.channel_binding is not None
        assert line.channel_binding.startswith(b"tls-server-end-point:")
