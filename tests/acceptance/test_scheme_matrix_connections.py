"""Five schemes by the cases of BITS.md 4.7: what becomes of connections, ranges and redirects."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.exchanges import body_of
from tests.support.kdc import Kdc
from tests.support.matrix import Cell
from tests.support.origin import Document, Origin, Version, fixed
from tests.support.owner import Machine, Owner, reach
from tests.support.passport import CHALLENGE
from tests.support.relay import Cut
from tests.support.scripted import open_gate
from tests.support.sites import (
    BODY,
    FIVE,
    NEGOTIATE_CCACHE,
    NEGOTIATE_NTLM,
    SITES,
    Place,
    Site,
    each,
)
from tests.support.worker import PLAIN
from transferd.model.credentials import Credential, Scheme, Secret, Target

#: Where a body stalls until the daemon is killed.
SOME = len(BODY) // 3 * 2
#: So many are begun for one request at most.
HANDSHAKES = 3

EVERY_OFFER = (
    'Basic realm="r"',
    'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256',
    "NTLM",
    "Negotiate",
    f"Passport1.4 {CHALLENGE}",
)


LEGGED = [site for site in SITES if site.scheme in (Scheme.NTLM, Scheme.NEGOTIATE)]


def _cut(site: Site, times: int, *, early: bool = False) -> Cut:
    """Break connections before the leg that would open the door."""
    return Cut(after=len(site.legs) - 2, times=times, early=early)


# ── connections ────────────────────────────────────────────────────────────────────────────


@each(*LEGGED)
@pytest.mark.parametrize("early", [True, False], ids=["hung up", "torn down"])
async def test_a_connection_that_breaks_between_the_legs_costs_one_more_handshake(
    owner: Owner, place: Place, site: Site, early: bool, cell: Cell
) -> None:
    """What was said on a lost connection is worth nothing: it begins again with leg 1 (NT1)."""
    place.relay.cut = _cut(site, 1, early=early)
    ended = await owner.fetch(await owner.make_right())
    assert ended.error_count == 0
    begun = site.legs[:-1] if early else site.legs
    rest = place.legs[len(begun) :]
    assert place.legs[: len(begun)] == begun
    # A ticket is not bound to the connection over which it was asked for: when the end of that has
    # been noticed in time, it is shown on another one.
    elsewhere = early and not site.pinned and rest == site.legs[-1:]
    assert elsewhere or rest == site.legs
    assert place.relay.connections == 2
    row = f"05 {'hung up' if early else 'torn down'} between legs"
    told = "leg 2 elsewhere" if elsewhere else "again from leg 1"
    cell(site.table, row, site.column, f"{told}: 200; 2 connections")


@each(*LEGGED)
async def test_a_server_that_always_breaks_off_between_the_legs_is_given_up(
    owner: Owner, place: Place, site: Site, cell: Cell
) -> None:
    """A few handshakes, then connection_lost; never one after the other for ever."""
    place.relay.cut = _cut(site, 1000)
    job = await owner.make_right()
    # The next try is long after this test.
    await job.change(min_retry_delay=3600)
    error = await owner.stumble(job)
    assert error.code == "connection_lost"
    assert place.legs == site.legs * HANDSHAKES
    assert place.relay.connections == HANDSHAKES
    row = "05 always torn down between legs"
    cell(site.table, row, site.column, f"{error.code}; {HANDSHAKES} handshakes")


@each(*SITES)
async def test_the_next_file_of_a_job_needs_no_new_handshake(
    owner: Owner, place: Place, site: Site, cell: Cell
) -> None:
    """A job goes on with what its scheme remembers: header, count, ticket, connection, cookie."""
    job = await owner.make_right()
    await owner.add(job)
    await owner.fetch(job)
    assert place.legs == (*site.legs, *site.again)
    assert place.relay.connections == 1
    place.turn_over()
    cell(site.table, "06 second file", site.column, f"{site.again[0]} 200; same connection")


# ── ranges ─────────────────────────────────────────────────────────────────────────────────


@each(*(site for site in SITES if site.table == FIVE), NEGOTIATE_NTLM, NEGOTIATE_CCACHE)
async def test_a_killed_daemon_resumes_and_authenticates_anew(
    owner: Owner, place: Place, site: Site, machine: Machine, cell: Cell
) -> None:
    """SIGKILL in mid-file: the rest is asked for as a range, by who can prove it again."""
    place.relay.stall = SOME
    job = await owner.make_right()
    await job.resume()
    await reach(machine, owner.manager, job, SOME)
    place.turn_over()
    await asyncio.to_thread(machine.kill)
    await asyncio.to_thread(machine.start)
    await owner.finish(job)
    assert place.legs == site.legs
    assert place.statuses[-1] == 206
    assert {passed.seen.range_start for passed in place.record} == {SOME}
    cell(site.table, "07 killed and resumed", site.column, f"from {SOME}: {place}")


# ── requests ───────────────────────────────────────────────────────────────────────────────


@each(*SITES)
async def test_head_is_authenticated_as_get_is(
    place: Place, site: Site, kdc: Kdc, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    """Either may be challenged, and what one has learnt is good for the other."""
    for name, value in kdc.environment().items():
        monkeypatch.setenv(name, value)
    settings = replace(PLAIN, negotiate=place.negotiate, passport=place.trusted)
    for methods in (("HEAD", "GET"), ("GET", "HEAD")):
        place.turn_over()
        identity = Credential(
            target=Target.SERVER,
            scheme=site.scheme,
            username=site.user,
            password=Secret(site.password or ""),
        )
        async with open_gate(identity, settings=settings) as gate:
            for method in methods:
                answer = await gate.ask(place.url, method=method)
                assert answer.status == 200
                assert await body_of(answer) == (BODY if method == "GET" else b"")
        assert place.legs == (*site.legs, *site.again)
        assert [passed.seen.method for passed in place.record] == [
            *(methods[0] for _ in site.legs),
            methods[1],
        ]
    cell(site.table, "08 HEAD and GET", site.column, "both challenged: 200")


# ── redirects ──────────────────────────────────────────────────────────────────────────────


@each(*SITES)
async def test_another_origin_learns_nothing(
    owner: Owner, place: Place, site: Site, cell: Cell
) -> None:
    """Where an admitted request is sent elsewhere, no credential follows, even if asked (H4)."""
    async with Origin().running() as other:
        # The same host, at which the same Kerberos service would be believed, but another port.
        elsewhere = f"http://{site.host}:{other.port}"
        other.pages["/open"] = Document(version=Version(body=BODY))
        other.pages["/asks"] = fixed(401, [("WWW-Authenticate", line) for line in EVERY_OFFER])
        place.relay.moved = f"{elsewhere}/open"
        await owner.fetch(await owner.make_right())
        place.relay.moved = f"{elsewhere}/asks"
        error = await owner.fail(await owner.make_right())
        assert error.code == "http_401"
        assert "credentials go to the origin of the file's URL only" in error.message
        assert [seen.path for seen in other.seen] == ["/open", "/asks"]
        for seen in other.seen:
            assert {name for name, _ in seen.headers}.isdisjoint({"authorization", "cookie"})
    told = "bare there: 200, or http_401"
    cell(site.table, "09 redirect to another origin", site.column, told)
