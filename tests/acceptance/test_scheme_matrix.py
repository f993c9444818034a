"""Five schemes by the cases of BITS.md 4.7: who may have a file, and who may not.

A real daemon and the servers of Debian; `tests/support/sites.py` says which. What happens to
connections, ranges and redirects is in test_scheme_matrix_connections.py.
"""

from __future__ import annotations

import pytest

from tests.support.kdc import Kdc
from tests.support.matrix import Cell
from tests.support.owner import Machine, Owner
from tests.support.servers import Server
from tests.support.sites import FIVE, SITES, Place, Site, each
from transferd import BadRequest, Scheme, Target

EXPLICIT = [site for site in SITES if site.explicit]


# ── passwords ──────────────────────────────────────────────────────────────────────────────


@each(*SITES)
async def test_the_right_credential_opens_the_door(
    owner: Owner, place: Place, site: Site, cell: Cell
) -> None:
    """Nothing is sent before it is asked for, and then no more than the scheme needs."""
    ended = await owner.fetch(await owner.make_right())
    assert ended.error_count == 0
    assert place.legs == site.legs
    assert place.relay.connections == 1
    cell(site.table, "01 right password", site.column, f"{place}; 1 connection")


def _tries(place: Place, kdc: Kdc) -> int:
    """How often somebody who can judge it was shown a password, or a proof of it."""
    site = place.site
    if place.passport is not None:
        return len(place.passport.login.sign_ins)
    if not site.shown:
        log = (kdc.directory / "kdc.log").read_text(errors="replace")
        return log.count(": PREAUTH_FAILED: ")
    return place.legs.count(site.legs[-1])


@each(*EXPLICIT)
async def test_a_wrong_password_is_tried_once(
    owner: Owner, place: Place, site: Site, kdc: Kdc, cell: Cell
) -> None:
    """One attempt, then http_401 for the owner to mend (BITS.md A7, H2)."""
    before = _tries(place, kdc)
    job = await owner.make(site.user, "wrong")
    error = await owner.fail(job)
    assert (error.code, error.http_status) == ("http_401", 401), error
    assert "set the right credentials" in await owner.remedy(job)
    assert _tries(place, kdc) - before == 1
    judge = "KDC" if not site.shown else "login server" if place.passport else "server"
    cell(site.table, "02 wrong password", site.column, f"{error.code}; 1 try at the {judge}")
    # The job is mended with the right one, and goes on.
    await job.set_credentials(Target.SERVER, site.scheme, site.user, site.password)
    await owner.fetch(job)


@each(*SITES)
async def test_a_scheme_that_is_not_offered_is_not_spoken(
    owner: Owner, place: Place, site: Site, apache: Server, cell: Cell
) -> None:
    """The scheme must be asked for and set; otherwise nothing of a credential is sent (A5)."""
    prefix = "/digest" if site.scheme is Scheme.BASIC else "/basic"
    url = place.turn_to(apache.port, prefix + apache.put(b"for others"))
    error = await owner.fail(await owner.make_right(url=url))
    assert error.code == "http_401"
    assert f"held: {site.scheme}; tried: nothing" in error.message
    assert place.legs == ("bare",)
    cell(site.table, "03 scheme not offered", site.column, f"{error.code}; {place}")


@each(*(site for site in SITES if site.table == FIVE and site.scheme is not Scheme.NEGOTIATE))
async def test_null_credentials_are_refused_where_nobody_could_use_them(
    owner: Owner, site: Site, cell: Cell
) -> None:
    """Without user or password a scheme has nothing to say; that is told at once (A8, A9)."""
    job = await owner.manager.create_job("null")
    owner.jobs.append(job)
    for user, password in ((None, None), (site.user, None), (None, site.password)):
        with pytest.raises(BadRequest) as caught:
            await job.set_credentials(Target.SERVER, site.scheme, user, password)
        assert caught.value.code == "credentials_incomplete"
    cell(site.table, "04 NULL credentials", site.column, "refused: credentials_incomplete")


@each(*(site for site in SITES if site.column == "negotiate"))
async def test_null_credentials_are_the_tickets_of_the_owner(
    owner: Owner, place: Place, site: Site, machine: Machine, kdc: Kdc, cell: Cell
) -> None:
    """NULL and NULL for Negotiate is the owner's own ticket cache, or a word on `kinit` (NG7)."""
    job = await owner.make(None, None)
    error = await owner.fail(job)
    assert error.code == "http_401"
    assert "kinit" in await owner.remedy(job)
    assert place.legs == ("bare",)
    kdc.kinit(ccache=machine.ccache)
    try:
        await owner.fetch(job)
    finally:
        machine.ccache.unlink()
    assert place.legs == ("bare", *site.legs)
    cell(site.table, "04 NULL credentials", site.column, "no ticket: http_401; kinit: 200")


@each(*(site for site in SITES if site.odd is not None))
async def test_a_password_may_hold_anything(
    owner: Owner, place: Place, site: Site, machine: Machine, cell: Cell
) -> None:
    """Non-ASCII, colon, comma, quote, backslash, space, percent, plus: each server admits it."""
    assert site.odd is not None
    user, password = site.odd
    if place.passport is not None:
        place.passport.login.password = password
    await owner.fetch(await owner.make(user, password))
    assert place.legs == site.legs
    assert password not in machine.logged()
    cell(site.table, "10 odd password", site.column, str(place))


@each(*SITES)
async def test_without_the_credential_the_next_file_is_refused(
    owner: Owner, place: Place, site: Site, cell: Cell
) -> None:
    """A credential that was removed is gone, with connections, cookies and tickets of its."""
    job = await owner.make_right()
    await job.resume()
    await job.wait(30)
    await job.remove_credentials(Target.SERVER, site.scheme)
    await owner.add(job)
    place.turn_over()
    error = await owner.fail(job)
    assert error.code == "http_401"
    assert place.legs == ("bare",)
    cell(site.table, "13 credential removed", site.column, f"{error.code}; {place}")
