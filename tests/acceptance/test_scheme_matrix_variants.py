"""Five schemes by the cases of BITS.md 4.7: what Digest has of its own, and channel bindings."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support import acceptors
from tests.support.gss_acceptors import (
    KerberosAcceptor,
    NtlmAcceptor,
    ntlm_users,
    require_module,
)
from tests.support.kdc import Kdc
from tests.support.matrix import Cell
from tests.support.origin import Document, Origin, Seen, Version, Wire
from tests.support.owner import Owner
from tests.support.relay import Relay
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server
from tests.support.sites import (
    BODY,
    DIGEST,
    FIVE,
    NEGOTIATE,
    NEGOTIATE_NTLM,
    NTLM,
    Place,
    Site,
    each,
    leg,
)
from tests.support.tls import Authority
from transferd.auth.flow import Attempt
from transferd.model.credentials import Scheme

ROW = "11 Digest: "


def document() -> Document:
    """The file."""
    return Document(version=Version(body=BODY))


# ── Digest ─────────────────────────────────────────────────────────────────────────────────


def proof(place: Place, index: int = -1) -> str:
    """The credentials that a request carried."""
    value = place.record[index].seen.get("authorization")
    assert value is not None
    return value


def nonce(value: str) -> str:
    """The nonce in credentials."""
    found = re.search(r'\bnonce="([^"]*)"', value)
    assert found is not None
    return found[1]


@each(DIGEST)
async def test_digest_in_utf_8_at_lighttpd(
    owner: Owner, place: Place, lighttpd: Server, cell: Cell
) -> None:
    """`charset=UTF-8`: a name that is not ASCII goes out as username* (RFC 7616 3.4)."""
    url = place.turn_to(lighttpd.port, "/sha256" + lighttpd.put(BODY))
    await owner.fetch(await owner.make(ODD_USER, ODD_PASSWORD, url=url))
    assert "username*=UTF-8''j%C3%BCrgen" in proof(place)
    cell(FIVE, ROW + "UTF-8", "digest", f"{place}; username*")


@each(DIGEST)
async def test_digest_with_a_hashed_name_at_lighttpd(
    owner: Owner, place: Place, lighttpd: Server, cell: Cell
) -> None:
    """`userhash=true`: the name is not shown (RFC 7616 3.4.4)."""
    url = place.turn_to(lighttpd.port, "/userhash" + lighttpd.put(BODY))
    await owner.fetch(await owner.make_right(url=url))
    assert "userhash=true" in proof(place)
    assert USER not in proof(place)
    cell(FIVE, ROW + "userhash", "digest", f"{place}; name hashed")


@each(DIGEST)
async def test_digest_whose_nonce_is_stale_at_apache(
    owner: Owner, place: Place, apache_gssapi: Server, cell: Cell
) -> None:
    """`stale=true` is no refusal: the newer nonce is answered (RFC 7616 3.3)."""
    url = place.turn_to(apache_gssapi.port, "/every" + apache_gssapi.put(BODY))
    await owner.fetch(await owner.make_right(url=url))
    assert place.legs == ("bare", "Digest 1", "Digest 1")
    assert nonce(proof(place, 1)) != nonce(proof(place, 2))
    cell(FIVE, ROW + "stale", "digest", str(place))


@each(DIGEST)
async def test_digest_with_a_next_nonce_at_apache(
    owner: Owner, place: Place, apache: Server, cell: Cell
) -> None:
    """`nextnonce` is what the next request goes out with, counted from one (RFC 7616 3.5)."""
    url = place.turn_to(apache.port, "/shortnonce" + apache.put(BODY))
    job = await owner.make_right(url=url)
    await owner.add(job, url)
    await owner.fetch(job)
    assert place.legs[:3] == ("bare", "Digest 1", "Digest 1")
    assert nonce(proof(place, 1)) != nonce(proof(place, 2))
    cell(FIVE, ROW + "nextnonce", "digest", str(place))


#: Case → what no server of Debian speaks.
ACCEPTORS = {
    "-sess": acceptors.Digest(USER, PASSWORD, algorithms=("SHA-256-sess",)),
    "auth-int": acceptors.Digest(USER, PASSWORD, qop="auth-int"),
}


@each(DIGEST)
@pytest.mark.parametrize("case", sorted(ACCEPTORS))
async def test_digest_that_servers_do_not_speak(
    owner: Owner, place: Place, case: str, cell: Cell
) -> None:
    """Session keys, and bodies in the proof: an acceptor that was written from RFC 7616 agrees."""
    acceptor = replace(ACCEPTORS[case])
    async with Origin().running() as origin:
        origin.pages["/f"] = acceptors.guarded(document(), acceptor)
        url = place.turn_to(origin.port, "/f")
        job = await owner.make_right(url=url)
        await owner.add(job, url)
        await owner.fetch(job)
    assert place.legs == (*DIGEST.legs, *DIGEST.again)
    assert case in proof(place)
    cell(FIVE, ROW + case, "digest", str(place))


# ── channel bindings ───────────────────────────────────────────────────────────────────────

_Acceptor: TypeAlias = NtlmAcceptor | KerberosAcceptor

#: As the acceptor of NTLM knows him.
CORPORATE = r"CORP\alice"
BOUND_SITES = (
    replace(NTLM, user=CORPORATE),
    replace(NEGOTIATE_NTLM, user=CORPORATE),
    NEGOTIATE,
)


@dataclass
class Protected:
    """A page behind acceptors, one for each connection, that demand a binding to its own TLS."""

    make: Callable[[], _Acceptor]
    secure: Origin
    #: The same page where there is no TLS.
    plain: Origin
    authority: Authority
    known: dict[int, _Acceptor] = field(default_factory=dict)

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        acceptor = self.known.setdefault(seen.connection, self.make())
        reply = acceptor.reply(Attempt(authorization=seen.get("authorization")))
        fields = [("WWW-Authenticate", line) for line in reply.authenticate]
        if reply.status == 200:
            wire.extra = fields
            await Document(version=Version(body=BODY))(seen, wire)
        else:
            await wire.answer(reply.status, fields, b"who are you?\n")

    @property
    def errors(self) -> list[Exception]:
        """Why somebody was not admitted."""
        return [error for acceptor in self.known.values() for error in acceptor.errors]


@pytest.fixture
async def protected(
    site: Site, place: Place, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Protected]:
    """Extended protection, as no server of Debian has it."""
    require_module("gssapi")
    for name, value in kdc.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KRB5RCACHENAME", f"file2:{tmp_path}/seen")
    authority = Authority(tmp_path)
    identity = authority.identity("rsa-sha384")
    place.cacert = authority.cacert
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    _, _, certificate = identity.read_text().partition("-----END PRIVATE KEY-----\n")
    digest = hashlib.sha384(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    binding = b"tls-server-end-point:" + digest

    def make() -> _Acceptor:
        if site is NEGOTIATE:
            return KerberosAcceptor(kdc.keytab, binding=binding)
        scheme = "NTLM" if site.scheme is Scheme.NTLM else "Negotiate"
        return NtlmAcceptor(scheme, binding=binding)

    async with Origin(tls=context).running() as secure, Origin().running() as plain:
        page = Protected(make, secure, plain, authority)
        secure.pages["/f"] = plain.pages["/f"] = page
        with ntlm_users():
            yield page


def _row(way: str) -> str:
    return f"12 EPA {way}"


@each(*BOUND_SITES)
async def test_a_bound_credential_is_admitted(
    owner: Owner, site: Site, protected: Protected, cell: Cell
) -> None:
    """The binding is the hash of the server's certificate, by the hash of its signature."""
    url = f"https://{site.host}:{protected.secure.port}/f"
    await owner.fetch(await owner.make_right(url=url))
    assert protected.errors == []
    legs = tuple(map(leg, protected.secure.seen))
    assert legs == site.legs
    cell(site.table, _row("directly"), site.column, f"200: {', '.join(legs)}")


@each(*BOUND_SITES)
async def test_a_credential_is_worth_nothing_to_who_ends_tls_in_between(
    owner: Owner, site: Site, protected: Protected, cell: Cell
) -> None:
    """A relay with a certificate of its own, which is believed, gets no farther (NT7)."""
    authority = protected.authority
    tls = authority.server("ecdsa-sha256")
    trust = ssl.create_default_context(cafile=authority.cacert)
    between = Relay(server=protected.secure.port, tls=tls, trust=trust)
    async with between.running():
        url = f"https://{site.host}:{between.port}/f"
        await _refused(owner, url, protected)
    cell(site.table, _row("with TLS ended in between"), site.column, "http_401")


@each(*BOUND_SITES)
async def test_a_credential_without_a_binding_is_refused(
    owner: Owner, site: Site, protected: Protected, cell: Cell
) -> None:
    """Where there is no TLS there is nothing to be bound to."""
    await _refused(owner, f"http://{site.host}:{protected.plain.port}/f", protected)
    cell(site.table, _row("without TLS"), site.column, "http_401")


async def _refused(owner: Owner, url: str, protected: Protected) -> None:
    """Be refused once, for want of the right binding, and hear that this may be why."""
    job = await owner.make_right(url=url)
    error = await owner.fail(job)
    assert error.code == "http_401"
    told = f"{error.message}; {await owner.remedy(job)}"
    assert re.search("binding|Extended Protection", told), told
    assert len(protected.errors) == 1
