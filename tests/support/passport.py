"""The three servers of Passport 1.4, written from MS-PASS 3.2-3.4, with a knob for each error.

The partner guards a page, the login server grants tickets, the configuration server says where.
All of them are Origins: what they heard is on record there. Lifetimes are counted in uses, so that
no test has to wait.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.support.origin import Origin, Page, Seen, Wire
from transferd.model.credentials import PassportOptions

KIM = "kim@lab.test"
CHALLENGE = "site=71,kpp=9,lc=en,x='~#+'"
REALM = "lab.test"
FOREVER = 1_000_000
#: A redirect chain can be so long.
_LONGEST = 9

_ESCAPED = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*")

Pairs = list[tuple[str, str]]


def read_message(value: str | None) -> Pairs | None:
    """Read the parameters of a message of Passport's, in order, names in lower case."""
    if value is None or not value.startswith("Passport1.4 "):
        return None
    parameters = [found.strip() for found in value.removeprefix("Passport1.4").split(",")]
    pairs = (parameter.partition("=") for parameter in parameters)
    return [(name.lower(), text) for name, _, text in pairs]


def cookies(seen: Seen) -> dict[str, str]:
    """Read the cookies that a request carried."""
    values = (value for name, value in seen.headers if name == "cookie")
    pairs = (pair.strip().partition("=") for value in values for pair in value.split(";"))
    return {name: value for name, _, value in pairs}


@dataclass
class Cookies:
    """The cookies that one server has set, and how often each may still be shown."""

    name: str
    #: How often a new one may be shown.
    uses: int = FOREVER
    made: int = 0
    _left: dict[str, int] = field(default_factory=dict)

    def set_cookie(self, path: str, secure: bool) -> tuple[str, str]:
        """Make a cookie and return the header that sets it."""
        self.made += 1
        value = f"{self.name}{self.made}"
        self._left[value] = self.uses
        flags = "; Secure; HttpOnly" if secure else "; HttpOnly"
        return ("Set-Cookie", f"{self.name}={value}; Path={path}{flags}")

    def admits(self, seen: Seen) -> bool:
        """Whether a request shows one that is still good."""
        value = cookies(seen).get(self.name, "")
        left = self._left.get(value, 0)
        self._left[value] = left - 1
        return left > 0


@dataclass(kw_only=True)
class LoginServer:
    """Grants tickets (MS-PASS 3.3)."""

    password: str
    username: str = KIM
    realm: str = REALM
    #: Of the partner; any other is answered with noretry.
    challenge: str = CHALLENGE
    secure: bool = False
    #: Parameters of the challenge that are to come back.
    custom: tuple[str, ...] = ("ts=-2", "q=%2c")
    prompt: bool = False
    noretry: str = "failed-noretry"
    #: The realm that is told, instead of the right one.
    srealm: str | None = None
    #: Of a Token Response.
    status: int = 200
    #: Instead of the OrgUrl that was told.
    ru: str | None = None
    #: PassportConfig goes with each ticket.
    version: int | None = None
    #: A logout goes with each ticket.
    logout: bool = False
    #: Redirects before an answer.
    hops: int = 0
    #: Where they lead, instead of to this server: the URL of a server, without a path.
    hop_base: str = ""
    #: A password may be so many seconds old.
    max_age: int = FOREVER
    #: Every answer, and nothing else.
    broken: int | None = None
    cookies: Cookies = field(default_factory=lambda: Cookies("LabAS"))

    #: Sign-in Requests that were judged, parsed.
    sign_ins: list[dict[str, str]] = field(default_factory=list)
    token_requests: int = 0
    #: How often each ticket was shown to a partner.
    tickets: dict[str, int] = field(default_factory=dict)

    def serve(self, origin: Origin, path: str = "/tok") -> None:
        """Put the pages up."""
        for hop in range(_LONGEST):
            origin.pages[path + (f"/{hop}" if hop else "")] = self._page(path, hop)

    def _page(self, path: str, hop: int) -> Page:
        async def page(seen: Seen, wire: Wire) -> None:
            given = read_message(seen.get("authorization"))
            if self.broken is not None or given is None:
                await wire.answer(self.broken or 400, body=b"out of order\n")
            elif hop < self.hops:
                where = ("Location", f"{self.hop_base}{path}/{hop + 1}")
                info = ("Authentication-Info", "Passport1.4 da-status=redir")
                await wire.answer(302, [info, where])
            else:
                await self._judge(seen, given, wire)

        return page

    async def _judge(self, seen: Seen, given: Pairs, wire: Wire) -> None:
        """Answer by the tables of MS-PASS 3.3.5.1 and 3.3.5.2."""
        values = dict(given)
        signing = "sign-in" in values
        self.token_requests += not signing
        known = signing and self._signs_in(seen, values)
        if not self._partner_is_right(seen, values):
            await self._refuse(wire, self.noretry)
        elif known or (not signing and self.cookies.admits(seen)):
            await self._grant(values, wire)
        else:
            await self._refuse(wire, "failed")

    def _partner_is_right(self, seen: Seen, values: dict[str, str]) -> bool:
        request = "orgverb" in values and values.get("orgurl", "").startswith("http")
        return request and (seen.get("authorization") or "").endswith(f",{self.challenge}")

    def _signs_in(self, seen: Seen, values: dict[str, str]) -> bool:
        self.sign_ins.append(values)
        name, password = values["sign-in"], values.get("pwd", "")
        custom = f",{','.join(self.custom)},{self.challenge}" if self.custom else ""
        return (
            bool(_ESCAPED.fullmatch(name) and _ESCAPED.fullmatch(password))
            and (unquote(name), unquote(password)) == (self.username, self.password)
            # The worked example of the specification has none.
            and int(values.get("elapsed-time", "0")) <= self.max_age
            and (seen.get("authorization") or "").endswith(custom)
        )

    async def _refuse(self, wire: Wire, status: str) -> None:
        parts = [f"da-status={status}", f"srealm={self.srealm or self.realm}", *self.custom]
        parts += ["prompt"] if self.prompt else []
        line = f"Passport1.4 {','.join([*parts, 'cburl=https://b.test/', 'cbtxt=hello'])}"
        await wire.answer(401, [("WWW-Authenticate", line)], b"who are you?\n")

    async def _grant(self, values: dict[str, str], wire: Wire) -> None:
        ticket = f"t=T{len(self.tickets)}cket&p="
        self.tickets[ticket] = 0
        back = self.ru or values["orgurl"]
        info = f"Passport1.4 da-status=success,tname=LabAS,from-PP={ticket},ru={back}"
        headers = [("Authentication-Info", 'nextnonce="x"'), ("Authentication-Info", info)]
        headers.append(self.cookies.set_cookie("/", self.secure))
        if self.logout:
            headers.append(("Authentication-Info", "Passport1.4 da-status=logout"))
        if self.version is not None:
            headers.append(("PassportConfig", f"ConfigVersion={self.version}"))
        if self.status == 302:
            headers.append(("Location", "/for/browsers"))
        await wire.answer(self.status, headers, b"welcome\n")


@dataclass(kw_only=True)
class Partner:
    """Guards *page*: with a ticket of *login*, then with a cookie (MS-PASS 3.2)."""

    login: LoginServer
    page: Page
    secure: bool = False
    status: int = 302
    challenge: str = CHALLENGE
    #: Challenges of other schemes, each in a field of its own, around Passport's.
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    #: Where browsers are sent with a 301 or 302.
    location: str = "/for/browsers"
    #: No ticket is good enough.
    refuses: bool = False
    cookies: Cookies = field(default_factory=lambda: Cookies("LabPP"))

    challenges: int = 0
    #: Tickets that were shown a second time.
    replays: int = 0

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        if self.cookies.admits(seen):
            await self.page(seen, wire)
        elif self._ticket(seen):
            wire.extra = [
                ("Authentication-Info", "Passport1.4 tname=LabPP"),
                self.cookies.set_cookie("/", self.secure),
            ]
            await self.page(seen, wire)
        else:
            await self._challenge(wire)

    def _ticket(self, seen: Seen) -> bool:
        given = read_message(seen.get("authorization")) or []
        ticket = dict(given).get("from-pp")
        if ticket is None or ticket not in self.login.tickets:
            return False
        self.login.tickets[ticket] += 1
        replayed = self.login.tickets[ticket] > 1
        self.replays += replayed
        return not replayed and not self.refuses

    async def _challenge(self, wire: Wire) -> None:
        self.challenges += 1
        lines = [*self.before, f"Passport1.4 {self.challenge}", *self.after]
        headers = [("WWW-Authenticate", line) for line in lines]
        if self.status != 401:
            headers.append(("Location", self.location))
        await wire.answer(self.status, headers, b"log in first\n")


@dataclass(kw_only=True)
class ConfigurationServer:
    """Says where to log in (MS-PASS 3.4)."""

    login_url: str
    realm: str | None = REALM
    version: int = 3
    status: int = 200
    #: Say nothing.
    silent: bool = False

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer any GET."""
        pairs = [
            ("DARealm", self.realm),
            ("DALogin", self.login_url),
            ("DAReg", "https://id.lab.test/reg"),
            ("ConfigVersion", self.version),
        ]
        urls = ",".join(f"{name}={value}" for name, value in pairs if value is not None)
        await wire.answer(self.status, [] if self.silent else [("PassportURLs", urls)])


@dataclass(kw_only=True)
class Passport:
    """The three of them, running."""

    partner_origin: Origin
    login_origin: Origin
    configuration_origin: Origin
    partner: Partner
    login: LoginServer
    configuration: ConfigurationServer

    @property
    def options(self) -> PassportOptions:
        """What a job has to be told."""
        return PassportOptions(
            configuration_url=self.configuration_origin.url("/cfg"),
            login_host=f"{self.login_origin.host}:{self.login_origin.port}",
        )

    @property
    def url(self) -> str:
        """The file."""
        return self.partner_origin.url("/kit/app.bin")


@contextlib.asynccontextmanager
async def passport_servers(
    page: Page, password: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Passport]:
    """Run a partner with *page*, and both servers that it takes to get past it."""
    partner_origin, login_origin, configuration_origin = (
        Origin(host, tls=tls) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
    )
    login = LoginServer(password=password, secure=tls is not None)
    partner = Partner(login=login, page=page, secure=tls is not None)
    async with (
        partner_origin.running(),
        login_origin.running(),
        configuration_origin.running(),
    ):
        configuration = ConfigurationServer(login_url=login_origin.url("/tok"))
        partner_origin.pages["/kit/app.bin"] = partner
        configuration_origin.pages["/cfg"] = configuration
        login.serve(login_origin)
        yield Passport(
            partner_origin=partner_origin,
            login_origin=login_origin,
            configuration_origin=configuration_origin,
            partner=partner,
            login=login,
            configuration=configuration,
        )
