"""A file behind each scheme, at servers that others wrote where there are any, and who may have it.

In front of each stands a relay, which sees every request and can break in.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.apache_gssapi import NTLM_ODD_USER
from tests.support.kdc import Kdc
from tests.support.origin import Document, Page, Seen, Version, Wire
from tests.support.passport import KIM, Passport, passport_servers
from tests.support.relay import Passed, Relay
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER
from transferd.client.options import JobOptions
from transferd.model.credentials import NegotiateOptions, PassportOptions, Scheme

#: The file.
BODY = b"what only they may have who prove it\n" * 10_000
FIVE = "schemes and cases"
FURTHER = "schemes and cases, further servers and identities"

#: Given the test's request, finds the port of a server, and puts the file there under a path.
Find = Callable[[pytest.FixtureRequest], tuple[int, str]]

_COUNT = re.compile(r"\bnc=([0-9a-f]{8})")


def _at(fixture: str, prefix: str) -> Find:
    def find(request: pytest.FixtureRequest) -> tuple[int, str]:
        server = request.getfixturevalue(fixture)
        return server.port, prefix + server.put(BODY)

    return find


def _at_squid(port: str) -> Find:
    def find(request: pytest.FixtureRequest) -> tuple[int, str]:
        squid = request.getfixturevalue("squid")
        return squid.ports[port], request.getfixturevalue("nginx").put(BODY)

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A server that asks for one scheme."""

    table: str
    column: str
    scheme: Scheme
    #: None: the three servers of Passport.
    find: Find | None
    #: What the requests carry that it takes to get the file…
    legs: tuple[str, ...]
    #: …and to get the next one in the same job.
    again: tuple[str, ...]
    #: Who may have it; None: whoever the owner is already.
    user: str | None = USER
    password: str | None = PASSWORD
    #: Who may have it as well, by a password with everything in it; None: nobody.
    odd: tuple[str, str] | None = (ODD_USER, ODD_PASSWORD)
    host: str = "localhost"
    negotiate: Callable[[Kdc], NegotiateOptions] = lambda _: NegotiateOptions()
    #: The server sees the credential before it is refused; a KDC would not let it come so far.
    shown: bool = True

    def __str__(self) -> str:
        return self.column.replace(" ", "-")

    @property
    def pinned(self) -> bool:
        """Whether it takes several legs on one connection."""
        return len(self.legs) > 2

    @property
    def explicit(self) -> bool:
        """Whether there is a password."""
        return self.user is not None


BASIC = Site(
    table=FIVE,
    column="basic",
    scheme=Scheme.BASIC,
    find=_at("apache", "/basic"),
    legs=("bare", "Basic"),
    again=("Basic",),
)
DIGEST = Site(
    table=FIVE,
    column="digest",
    scheme=Scheme.DIGEST,
    find=_at("apache", "/digest"),
    legs=("bare", "Digest 1"),
    again=("Digest 2",),
)
NTLM = Site(
    table=FIVE,
    column="ntlm",
    scheme=Scheme.NTLM,
    find=_at("apache_gssapi", "/ntlm"),
    legs=("bare", "NTLM 1", "NTLM 3"),
    again=("bare",),
    odd=(NTLM_ODD_USER, ODD_PASSWORD),
)
NEGOTIATE = Site(
    table=FIVE,
    column="negotiate",
    scheme=Scheme.NEGOTIATE,
    find=_at("apache_gssapi", "/kerberos"),
    legs=("bare", "Kerberos"),
    again=("Kerberos",),
    shown=False,
)
PASSPORT = Site(
    table=FIVE,
    column="passport",
    scheme=Scheme.PASSPORT,
    find=None,
    legs=("bare", "ticket"),
    again=("cookie",),
    user=KIM,
    odd=(KIM, ODD_PASSWORD),
    host="127.0.0.1",
)


def _further(site: Site, column: str, find: Find, **more: Any) -> Site:
    return replace(site, table=FURTHER, column=column, find=find, **more)


NEGOTIATE_NTLM = _further(
    NTLM,
    "negotiate ntlm",
    _at("apache_gssapi", "/spnego-ntlm"),
    scheme=Scheme.NEGOTIATE,
    legs=("bare", "SPNEGO NTLM 1", "SPNEGO NTLM 3"),
    # No server has a Kerberos service by its address.
    host="127.0.0.1",
    negotiate=lambda _: NegotiateOptions(ntlm=True),
)
NEGOTIATE_CCACHE = _further(
    NEGOTIATE,
    "negotiate ccache",
    _at("apache_gssapi", "/kerberos"),
    user=None,
    password=None,
    odd=None,
    negotiate=lambda kdc: NegotiateOptions(ccache=f"FILE:{kdc.kinit()}"),
)
SITES = (
    BASIC,
    DIGEST,
    NTLM,
    NEGOTIATE,
    PASSPORT,
    _further(DIGEST, "digest lighttpd", _at("lighttpd", "/sha256")),
    # Samba's ntlm_auth knows one password.
    _further(NTLM, "ntlm squid", _at_squid("origin-ntlm"), odd=None),
    NEGOTIATE_NTLM,
    _further(NEGOTIATE, "negotiate lighttpd", _at("lighttpd_kerberos", "/kerberos")),
    _further(NEGOTIATE, "negotiate bound", _at("apache_gssapi", "/bound"), again=("bare",)),
    NEGOTIATE_CCACHE,
    _further(
        NEGOTIATE,
        "negotiate keytab",
        _at("apache_gssapi", "/kerberos"),
        user=None,
        password=None,
        odd=None,
        negotiate=lambda kdc: NegotiateOptions(keytab=str(kdc.export(USER))),
    ),
)


@dataclass(kw_only=True)
class Place:
    """A site that is open for one test."""

    site: Site
    relay: Relay
    #: The file.
    url: str = ""
    negotiate: NegotiateOptions
    #: The servers behind it, where they are Passport's.
    passport: Passport | None = None
    #: Authorities that the job is to believe.
    cacert: str | None = None
    _from: int = field(default=0)

    @property
    def trusted(self) -> PassportOptions:
        """Whom a job is to trust with a Passport password."""
        return PassportOptions() if self.passport is None else self.passport.options

    @property
    def options(self) -> JobOptions:
        """What a job has to be told."""
        return JobOptions(
            priority="foreground",
            proxy="direct",
            cacert=self.cacert,
            negotiate=self.negotiate,
            passport=self.trusted,
        )

    @property
    def record(self) -> list[Passed]:
        """The requests since the site was opened, or the record was last turned over."""
        return self.relay.passed[self._from :]

    @property
    def legs(self) -> tuple[str, ...]:
        """What they carried."""
        return tuple(leg(passed.seen) for passed in self.record)

    @property
    def statuses(self) -> tuple[int | None, ...]:
        """What was answered to them."""
        return tuple(passed.status for passed in self.record)

    def turn_to(self, port: int, path: str) -> str:
        """Let the server at another port stand behind the relay; returns the URL of *path*."""
        self.relay.server = port
        return f"http://{self.site.host}:{self.relay.port}{path}"

    def turn_over(self) -> None:
        """Begin a new page of the record."""
        self._from = len(self.relay.passed)

    def __str__(self) -> str:
        said = [
            f"{carried} {status or 'lost'}"
            for carried, status in zip(self.legs, self.statuses, strict=True)
        ]
        return ", ".join(said)


@contextlib.asynccontextmanager
async def opened(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Open a site."""
    kdc = request.getfixturevalue("kdc")
    async with contextlib.AsyncExitStack() as stack:
        passport: Passport | None = None
        if site.find is None:
            page = Document(version=Version(body=BODY))
            passport = await stack.enter_async_context(passport_servers(page, PASSWORD))
            origin, path = passport.partner_origin, "/kit/app.bin"
            origin.pages[path] = headable(passport.partner)
            port = origin.port
        else:
            port, path = site.find(request)
        relay = await stack.enter_async_context(Relay(server=port).running())
        place = Place(site=site, relay=relay, negotiate=site.negotiate(kdc), passport=passport)
        place.url = place.turn_to(port, path)
        yield place


def leg(seen: Seen) -> str:
    """Say what a request carries."""
    value = seen.get("authorization")
    if value is None:
        return "bare" if seen.get("cookie") is None else "cookie"
    scheme, _, rest = value.partition(" ")
    if scheme == "Passport1.4":
        return "ticket"
    if scheme == "Basic":
        return "Basic"
    if scheme == "Digest":
        count = _COUNT.search(rest)
        return "Digest" if count is None else f"Digest {int(count[1], 16)}"
    token = base64.b64decode(rest, validate=True)
    start = token.find(b"NTLMSSP\0")
    if start < 0:
        return "Kerberos"
    return f"{'' if scheme == 'NTLM' else 'SPNEGO '}NTLM {token[start + 8]}"


class _Heads(Wire):
    """Sends heads of answers alone."""

    async def raw(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            await super().raw(data)


def headable(page: Page) -> Page:
    """Let *page* answer HEAD as GET, but for the body."""

    async def answer(seen: Seen, wire: Wire) -> None:
        if seen.method != "HEAD":
            await page(seen, wire)
            return
        heads = _Heads(wire.reader, wire.writer)
        await page(seen, heads)
        wire.open = heads.open

    return answer


def each(*sites: Site) -> pytest.MarkDecorator:
    """Run a test for each of the sites; see the fixture `place`."""
    return pytest.mark.parametrize("site", sites, ids=str)
