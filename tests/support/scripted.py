"""Sessions whose conversations a test writes down, and an authenticator without a run around it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

import pytest
from yarl import URL

from tests.support.exchanges import SETTINGS, open_exchange
from tests.support.origin import Origin, Page, Seen, Wire, fixed
from tests.support.worker import PASSWORD, PLAIN, USER
from transferd.auth import choice
from transferd.auth.challenge import Challenge
from transferd.auth.choice import METHODS, Method
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    Conversation,
    Place,
    RequestLine,
    Step,
)
from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.errors import TransferFailed
from transferd.model.job import Seconds, Settings
from transferd.worker.answer import Answer
from transferd.worker.authenticator import Authenticator
from transferd.worker.door import Hop
from transferd.worker.exchange import Exchange
from transferd.worker.proxy import Proxy
from transferd.worker.request import Request
from transferd.worker.security import Steps

#: Writes a conversation; the session is there to note things down.
Script: TypeAlias = Callable[["Scripted", RequestLine, Challenge | None], Conversation]


@dataclass
class Scripted:
    """A session that follows a script. Fits `flow.Session`."""

    credential: Credential
    place: Place
    script: Script
    mechanism: str | None = "scripted"
    #: What was to be authenticated.
    lines: list[RequestLine] = field(default_factory=list)
    closed: int = 0

    @property
    def scheme(self) -> Scheme:
        """The credential's."""
        return self.credential.scheme

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Follow the script."""
        self.lines.append(request)
        return self.script(self, request, challenge)

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Stage:
    """Puts scripts in the place of schemes; the server's challenge is the scheme's name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._methods: Mapping[Step, Method] = METHODS
        #: Every session, as they were opened.
        self.sessions: list[Scripted] = []

    def play(
        self, scheme: Scheme, script: Script, *, blocks: bool = False, cookies: bool = False
    ) -> None:
        """Let sessions of *scheme* follow *script*."""

        def opened(credential: Credential, place: Place) -> Scripted:
            self.sessions.append(Scripted(credential, place, script))
            return self.sessions[-1]

        method = Method(
            name=METHODS[scheme, None].name,
            usable=lambda _: True,
            open=opened,
            blocks=blocks,
            cookies=cookies,
        )
        self._methods = MappingProxyType({**self._methods, (scheme, None): method})
        self._patch.setattr(choice, "METHODS", self._methods)


def three_legs(
    session: Scripted, request: RequestLine, challenge: Challenge | None
) -> Conversation:
    """Speak as NTLM does: leg 1 anywhere, leg 3 on the connection of leg 2."""
    status = 407 if session.credential.target is Target.PROXY else 401
    if challenge is None:
        reply = yield Attempt(authorization=None)
        if reply.status != status:
            return
    reply = yield Attempt(authorization="NTLM one")
    if reply.status != status:
        return
    assert "NTLM two" in reply.authenticate
    reply = yield Attempt(authorization="NTLM three", pinned=True)
    if reply.status == status:
        raise AuthRejected("the third leg was refused")


@dataclass
class Legs:
    """Admits connections that went through all legs, in order (MS-NTHT)."""

    #: Leg two so far, or admitted.
    begun: set[int] = field(default_factory=set)
    admitted: set[int] = field(default_factory=set)

    def answer(self, connection: int, value: str | None) -> str | None:
        """Return a challenge; None: admitted."""
        if value is None and connection in self.admitted:
            return None
        if value == "NTLM one":
            self.begun.add(connection)
            return "NTLM two"
        if value == "NTLM three" and connection in self.begun:
            self.admitted.add(connection)
            return None
        return "NTLM"


def behind_legs(page: Page, legs: Legs | None = None) -> Page:
    """Let nobody see *page* who has not gone through all legs on his connection."""
    known = Legs() if legs is None else legs

    async def guard(seen: Seen, wire: Wire) -> None:
        challenge = known.answer(seen.connection, seen.get("authorization"))
        if challenge is None:
            await page(seen, wire)
        else:
            # An answer to HEAD has no body, whatever its length says.
            body = b"" if seen.method == "HEAD" else b"who are you?\n"
            await wire.answer(401, [("WWW-Authenticate", challenge)], body)

    return guard


def identity(
    scheme: Scheme, target: Target = Target.SERVER, username: str | None = USER
) -> Credential:
    """Make a credential; without a user name the implicit one."""
    password = Secret("" if username is None else PASSWORD)
    return Credential(target=target, scheme=scheme, username=username, password=password)


NTLM = identity(Scheme.NTLM)
FILE = fixed(200, body=b"the file\n")


@dataclass
class Gate:
    """An authenticator, and what it told."""

    authenticator: Authenticator
    exchange: Exchange
    audits: list[tuple[bool, Target, Scheme, str, str | None]]

    async def ask(
        self, url: str, *, method: str = "GET", own: bool = True, proxy: str | None = None
    ) -> Answer:
        """Ask for *url*."""
        through = None if proxy is None else URL(proxy)
        request = Request(url=url, method=method, proxy=through, identity="owner" if own else None)
        hop = Hop(request=request, own=own, proxy=None if through is None else Proxy(through))
        return await self.authenticator.ask(hop)

    async def status(self, url: str, **how: str) -> int:
        """Ask for *url* and throw the answer away but for its status."""
        answer = await self.ask(url, method=how.get("method", "GET"), proxy=how.get("proxy"))
        await answer.drain()
        return answer.status


@contextlib.asynccontextmanager
async def open_gate(
    *credentials: Credential,
    settings: Settings = PLAIN,
    cacert: str | None = None,
    patience: Seconds = 10.0,
    threads: ThreadPoolExecutor | None = None,
    kind: Callable[[Exchange], Exchange] = lambda exchange: exchange,
) -> AsyncIterator[Gate]:
    """Open an authenticator that holds *credentials*, and close it."""
    audits: list[tuple[bool, Target, Scheme, str, str | None]] = []
    own = ThreadPoolExecutor(4) if threads is None else threads
    async with open_exchange(SETTINGS, cacert) as exchange:
        authenticator = Authenticator(
            kind(exchange),
            credentials,
            settings=replace(settings, cacert=cacert),
            steps=Steps(own, patience),
            randomness=secrets.token_bytes,
            audit=lambda *told: audits.append(told),
        )
        try:
            yield Gate(authenticator, exchange, audits)
        finally:
            authenticator.close()
            if threads is None:
                own.shutdown(wait=False)


def once(attempt: Attempt) -> Conversation:
    """A conversation of one attempt."""
    yield attempt


def asking(scheme: str = "NTLM") -> Page:
    """A page that only ever asks."""
    return fixed(401, [("WWW-Authenticate", scheme)], b"who are you?\n")


def closing(page: Page) -> Page:
    """The same page, but the connection ends after the answer, and nobody was told."""

    async def closes(seen: Seen, wire: Wire) -> None:
        await page(seen, wire)
        wire.close()

    return closes


async def dropping(seen: Seen, wire: Wire) -> None:
    """A page that takes the request and answers nothing."""
    wire.drop()


def values(origin: Origin) -> list[str | None]:
    """What each request had in Authorization."""
    return [seen.get("authorization") for seen in origin.seen]


async def refused(gate: Gate, url: str) -> TransferFailed:
    """Return the failure of a request."""
    with pytest.raises(TransferFailed) as caught:
        await gate.ask(url)
    return caught.value
