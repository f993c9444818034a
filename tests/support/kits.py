"""Jobs with one kind of secret each, and the servers and proxies that ask for it.

A kit is what a job is given: credentials, headers, settings. Its `guard` stands before the pages of
the servers that may ask for it; its `traces` are what such a server hears of it.
"""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from tests.support.acceptors import Basic, Digest, guarded
from tests.support.gss_acceptors import Acceptor, KerberosAcceptor, NtlmAcceptor
from tests.support.identities import document
from tests.support.kdc import REALM
from tests.support.origin import Origin, Page, Seen, Wire
from tests.support.passport import KIM, Cookies, Partner, passport_servers
from tests.support.proxy import ForwardProxy
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER
from tests.support.sticky import StickyProxy
from tests.support.worker import PLAIN, credential, header
from transferd.auth.flow import Attempt
from transferd.model.credentials import NegotiateOptions, Scheme, Target
from transferd.model.job import Settings
from transferd.wire.link import LinkCredential, LinkHeader

PROXY_USER, PROXY_PASSWORD = "proxyuser", "pr0xy-p4ss"
KEY, SESSION = "s3cr3t-key", "own3r-session"
#: Of ODD_USER, as `gss_acceptors.ntlm_users` has it.
NTLM_ODD_PASSWORD = 'p-ä, "q\\ ß日本€'
#: The service whose key acceptors in this process have.
SPN = "HTTP/localhost"

#: What must never be seen by others than those that it is for.
CANARIES = {
    "password": PASSWORD,
    "user": USER,
    "mail address": KIM,
    "key": KEY,
    "session": SESSION,
    "ticket": "cket&p=",
    "login cookie": "LabAS",
    "partner cookie": "LabPP",
    "proxy password": PROXY_PASSWORD,
    "proxy user": PROXY_USER,
    "odd user": ODD_USER,
}
#: What shows that a secret for a server, or one for a proxy, came to somebody else.
FOR_SERVERS = {f"field {name}" for name in ("authorization", "cookie", "x-api-key")} | {
    *("password", "user", "mail address", "key", "session"),
    *("ticket", "login cookie", "partner cookie"),
}
FOR_PROXIES = {"field proxy-authorization", "proxy user", "proxy password", "odd user"}

#: Stands before a page.
Guard: TypeAlias = Callable[[Page], Page]


@dataclass(frozen=True, kw_only=True)
class Kit:
    """One kind of secret."""

    #: What whoever it is for hears, as `recorder.traces` calls it.
    traces: frozenset[str]
    hold: Callable[[], Sequence[LinkCredential]] = tuple
    headers: Callable[[], Sequence[LinkHeader]] = tuple
    settings: Settings = PLAIN
    #: Makes the guard of one server.
    guard: Callable[[], Guard] = lambda: _open
    proxy: StickyProxy | ForwardProxy | None = None
    #: As the server calls who shows it; None: it does not.
    user: str | None = None
    #: Others that the job talks to about the server.
    confidants: tuple[Origin, ...] = ()
    #: Whether servers, not proxies, are to get it.
    armed: bool = True
    #: Servers are to speak https, so that proxies are asked for tunnels.
    tls: bool = False


def _open(page: Page) -> Page:
    return page


def _accepting(acceptor: Basic | Digest) -> Guard:
    return lambda page: guarded(page, acceptor)


@dataclass
class Sentry:
    """Asks each connection of a server for a token, and remembers whose it is."""

    make: Callable[[], NtlmAcceptor | KerberosAcceptor]
    acceptors: dict[int, NtlmAcceptor | KerberosAcceptor] = field(default_factory=dict)

    def __call__(self, page: Page) -> Page:
        """Stand before *page*."""

        async def guard(seen: Seen, wire: Wire) -> None:
            acceptor = self.acceptors.setdefault(seen.connection, self.make())
            reply = acceptor.reply(Attempt(authorization=seen.get("authorization")))
            lines = [("WWW-Authenticate", line) for line in reply.authenticate]
            if reply.status == 401:
                await wire.answer(401, lines, b"who are you?\n")
            else:
                wire.extra = lines
                await page(seen, wire)

        return guard

    def users(self, connections: Iterable[int]) -> set[str | None]:
        """Who the peers of connections are to this server."""
        return {self._user(number) for number in connections}

    def _user(self, connection: int) -> str | None:
        match self.acceptors.get(connection):
            case NtlmAcceptor(user=user):
                return user
            case KerberosAcceptor(users=users):
                return users[-1] if users else None
            case None:
                return None


# ── for servers ────────────────────────────────────────────────────────────────────────────


def _held(
    scheme: Scheme, username: str = USER, password: str = PASSWORD
) -> Callable[[], Sequence[LinkCredential]]:
    return lambda: [credential(scheme, username, password)]


def basic() -> Kit:
    """RFC 7617."""
    return Kit(
        traces=frozenset({"field authorization", "user", "password"}),
        hold=_held(Scheme.BASIC),
        guard=lambda: _accepting(Basic(USER, PASSWORD)),
    )


def digest() -> Kit:
    """RFC 7616."""
    return Kit(
        traces=frozenset({"field authorization", "user"}),
        hold=_held(Scheme.DIGEST),
        guard=lambda: _accepting(Digest(USER, PASSWORD)),
    )


def ntlm() -> Kit:
    """Of the connection; `gss_acceptors.ntlm_users` has to run."""
    return Kit(
        traces=frozenset({"field authorization", "NTLM token", "user"}),
        hold=_held(Scheme.NTLM, f"CORP\\{USER}"),
        guard=lambda: Sentry(NtlmAcceptor),
        user=f"CORP\\{USER}",
    )


def negotiate(keytab: Path) -> Kit:
    """Kerberos, with the key of SPN in *keytab*."""
    return Kit(
        traces=frozenset({"field authorization", "SPNEGO token", "Kerberos token"}),
        hold=_held(Scheme.NEGOTIATE),
        settings=replace(PLAIN, negotiate=NegotiateOptions(spn=SPN)),
        guard=lambda: Sentry(lambda: KerberosAcceptor(keytab)),
        user=f"{USER}@{REALM}",
    )


@contextlib.asynccontextmanager
async def passport(shown: frozenset[str], tls: ssl.SSLContext | None) -> AsyncIterator[Kit]:
    """Passport, of whose secrets *shown* is what a partner hears; its own servers speak *tls*."""
    async with passport_servers(document(), PASSWORD, tls) as servers:

        def guard() -> Guard:
            cookies = Cookies("LabPP")
            return lambda page: Partner(login=servers.login, page=page, cookies=cookies)

        yield Kit(
            traces=shown,
            hold=_held(Scheme.PASSPORT, KIM),
            settings=replace(PLAIN, passport=servers.options),
            guard=guard,
            confidants=(servers.login_origin, servers.configuration_origin),
        )


def key() -> Kit:
    """A header of the owner's."""
    return _header("X-Api-Key", KEY, "key")


def session() -> Kit:
    """A cookie of the owner's."""
    return _header("Cookie", f"sid={SESSION}", "session")


def _header(name: str, value: str, canary: str) -> Kit:
    def guard(page: Page) -> Page:
        async def admit(seen: Seen, wire: Wire) -> None:
            if value in (seen.get(name) or ""):
                await page(seen, wire)
            else:
                await wire.answer(403, body=b"not without it\n")

        return admit

    return Kit(
        traces=frozenset({f"field {name.lower()}", canary}),
        headers=lambda: [header(name, value)],
        guard=lambda: guard,
    )


# ── for proxies ────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def proxy_basic() -> AsyncIterator[Kit]:
    """A proxy that asks for Basic."""
    expected = base64.b64encode(f"{PROXY_USER}:{PROXY_PASSWORD}".encode()).decode()

    def guard(connection: int, value: str | None) -> str | None:
        return None if value == f"Basic {expected}" else 'Basic realm="proxy"'

    shown = frozenset({"field proxy-authorization", "proxy user", "proxy password"})
    async with StickyProxy(guard).running() as proxy:
        yield _for_proxy(proxy, shown, Scheme.BASIC, PROXY_USER, PROXY_PASSWORD)


@contextlib.asynccontextmanager
async def proxy_digest() -> AsyncIterator[Kit]:
    """A proxy that asks for Digest."""
    shown = frozenset({"field proxy-authorization", "proxy user"})
    async with ForwardProxy(Digest(PROXY_USER, PROXY_PASSWORD)).running() as proxy:
        yield _for_proxy(proxy, shown, Scheme.DIGEST, PROXY_USER, PROXY_PASSWORD)


@contextlib.asynccontextmanager
async def proxy_ntlm() -> AsyncIterator[Kit]:
    """A proxy that asks each connection for NTLM; `gss_acceptors.ntlm_users` has to run."""
    shown = frozenset({"field proxy-authorization", "NTLM token", "odd user"})
    async with _asking(lambda: NtlmAcceptor(target=Target.PROXY)) as proxy:
        kit = _for_proxy(proxy, shown, Scheme.NTLM, ODD_USER, NTLM_ODD_PASSWORD)
        yield replace(kit, tls=True)


@contextlib.asynccontextmanager
async def proxy_negotiate(keytab: Path) -> AsyncIterator[Kit]:
    """A proxy that asks for Kerberos, once for each tunnel."""
    shown = frozenset({"field proxy-authorization", "Kerberos token", "SPNEGO token"})
    async with _asking(lambda: KerberosAcceptor(keytab)) as proxy:
        kit = _for_proxy(proxy, shown, Scheme.NEGOTIATE, ODD_USER, ODD_PASSWORD)
        yield replace(
            kit, settings=replace(kit.settings, negotiate=NegotiateOptions(proxy_spn=SPN))
        )


@contextlib.asynccontextmanager
async def _asking(make: Callable[[], Acceptor]) -> AsyncIterator[StickyProxy]:
    acceptors: dict[int, Acceptor] = {}

    def guard(connection: int, value: str | None) -> str | None:
        acceptor = acceptors.setdefault(connection, make())
        reply = acceptor.reply(Attempt(authorization=value))
        return None if reply.status == 200 else reply.authenticate[0]

    async with StickyProxy(guard).running() as proxy:
        yield proxy


def _for_proxy(
    proxy: StickyProxy | ForwardProxy,
    shown: frozenset[str],
    scheme: Scheme,
    username: str,
    password: str,
) -> Kit:
    return Kit(
        traces=shown,
        hold=lambda: [credential(scheme, username, password, Target.PROXY)],
        settings=replace(PLAIN, proxy=proxy.url),
        proxy=proxy,
        armed=False,
    )
