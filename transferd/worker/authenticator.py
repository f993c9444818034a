"""Gets one request past whoever asks for credentials: the proxy first, then the server.

It runs inside the redirect loop, once for each hop. Nothing is sent before it was asked for; what
was accepted goes along with later requests to the same place as far as its scheme remembers it. A
credential that was refused is not tried again, and no weaker scheme is tried after a refusal: a
server could otherwise have the password shown to it by refusing everything better.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from transferd.auth.challenge import parse_challenges
from transferd.auth.choice import Transit, choose, refusal, remedy
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthError,
    Conversation,
    NotMutual,
    Randomness,
    Reply,
    RequestLine,
    Session,
    Step,
)
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.transfer.location import Origin, is_loopback, origin
from transferd.worker.answer import Answer
from transferd.worker.exchange import Exchange
from transferd.worker.proxy import Proxy
from transferd.worker.request import Request

#: Told of each credential that was accepted or refused: whether, for whom, how, at which host.
Audit: TypeAlias = Callable[[bool, Target, Scheme, str], None]

_Send: TypeAlias = Callable[[str | None], Awaitable[Answer]]
_Held: TypeAlias = Mapping[Scheme, Credential]

_FIELDS = {
    Target.SERVER: ("WWW-Authenticate", "Authentication-Info"),
    Target.PROXY: ("Proxy-Authenticate", "Proxy-Authentication-Info"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One request of the redirect loop, before anybody has asked for credentials."""

    request: Request
    #: Whether it goes to the origin of the file's own URL, the only one that gets credentials.
    own: bool
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """Who may ask for credentials, and what there is to answer with."""

    target: Target
    origin: Origin
    line: RequestLine
    held: _Held
    transit: Transit
    #: How messages call it.
    name: str
    #: The place behind the proxy that a tunnel leads to.
    tunnel: Origin | None = None

    @property
    def key(self) -> tuple[Target, Origin]:
        """Where a session counts."""
        return self.target, self.origin

    def asks(self, answer: Answer) -> bool:
        """Whether *answer* is a challenge of this door's own.

        A 407 that comes out of a tunnel is the server's doing, and gets nothing.
        """
        if answer.status != CHALLENGE_STATUS[self.target]:
            return False
        behind = self.target is Target.SERVER or self.tunnel is None
        return behind is not answer.from_proxy

    def reply(self, answer: Answer) -> Reply:
        """Return what a conversation has to know of *answer*."""
        challenges, info = _FIELDS[self.target]
        return Reply(
            status=answer.status,
            authenticate=answer.values(challenges),
            authentication_info=answer.values(info),
            connection=answer.connection,
        )


@dataclass(slots=True)
class _Talk:
    """A conversation that has begun."""

    step: Step
    session: Session
    conversation: Conversation
    attempt: Attempt


@dataclass(slots=True)
class _Trial:
    """What was tried at a door for one request."""

    steps: list[Step] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class Authenticator:
    """The credentials of one run in use. Requests are sent through it one at a time."""

    def __init__(
        self,
        exchange: Exchange,
        credentials: Iterable[Credential],
        *,
        allow_cleartext: bool,
        randomness: Randomness,
        audit: Audit,
    ) -> None:
        self._exchange = exchange
        self._held: dict[Target, dict[Scheme, Credential]] = {target: {} for target in Target}
        for credential in credentials:
            self._held[credential.target][credential.scheme] = credential
        self._allow_cleartext = allow_cleartext
        self._randomness = randomness
        self._audit = audit
        self._trusted: dict[tuple[Target, Origin], tuple[Step, Session]] = {}
        self._tunnels: dict[tuple[Origin, Origin], str | None] = {}

    async def ask(self, hop: Hop) -> Answer:
        """Send the request of *hop*, with credentials where they are asked for and held.

        Returns an answer that is no challenge which could be answered.

        Raises:
            TransferFailed: `http_401`, `http_407`: nothing that is held was accepted;
                `cleartext_refused`: it would be readable on the way; `server_not_authenticated`;
                and whatever Exchange.send raises.
        """
        knock = self._knock_proxy(hop)

        async def send(value: str | None) -> Answer:
            return await knock(replace(hop.request, authorization=value))

        return await self._enter(self._server_door(hop), send)

    def close(self) -> None:
        """Forget what servers said. The credentials are the run's to wipe."""
        for _, session in self._trusted.values():
            session.close()
        self._trusted.clear()
        self._tunnels.clear()

    def _knock_proxy(self, hop: Hop) -> Callable[[Request], Awaitable[Answer]]:
        if hop.proxy is None:
            return self._exchange.send
        proxy = hop.proxy

        async def knock(request: Request) -> Answer:
            async def send(value: str | None) -> Answer:
                return await self._exchange.send(replace(request, proxy_authorization=value))

            return await self._enter(self._proxy_door(request, proxy), send)

        return knock

    async def _enter(self, door: _Door, send: _Send) -> Answer:
        """Send, and answer challenges until *door* asks no more."""
        trial = _Trial()
        answer = await self._first(door, send, trial)
        while door.asks(answer):
            await answer.drain()
            answer = await self._converse(door, send, self._begin(door, answer, trial), trial)
        return answer

    async def _first(self, door: _Door, send: _Send, trial: _Trial) -> Answer:
        """Send with what was accepted before, or without credentials."""
        passage = (door.origin, door.tunnel) if door.tunnel is not None else None
        if passage is not None and passage in self._tunnels:
            # Another value would be another tunnel: aiohttp tells tunnels apart by their headers.
            answer = await send(self._tunnels[passage])
        elif door.key in self._trusted:
            step, session = self._trusted.pop(door.key)
            trial.steps.append(step)
            conversation = session.converse(door.line, None)
            talk = _Talk(step, session, conversation, next(conversation))
            return await self._converse(door, send, talk, trial, known=True)
        else:
            answer = await send(None)
        if passage is not None:
            self._tunnels.pop(passage, None)
            if not door.asks(answer):
                self._tunnels[passage] = answer.request.proxy_authorization
        return answer

    def _begin(self, door: _Door, answer: Answer, trial: _Trial) -> _Talk:
        """Choose a scheme that can start.

        Raises:
            TransferFailed: there is none.
        """
        challenges = parse_challenges(answer.values(_FIELDS[door.target][0]))
        while True:
            choice = choose(
                challenges,
                door.held,
                transit=door.transit,
                tried=trial.steps,
                randomness=self._randomness,
            )
            if choice.pick is None:
                code = f"http_{answer.status}"
                if choice.cleartext_refused and not trial.reasons:
                    code = "cleartext_refused"
                text = refusal(door.name, choice, trial.reasons)
                raise _failed(code, text, answer, remedy(choice))
            pick = choice.pick
            trial.steps.append(pick.step)
            conversation = pick.session.converse(door.line, pick.challenge)
            try:
                return _Talk(pick.step, pick.session, conversation, next(conversation))
            except AuthError as error:
                # Nothing was sent: the next scheme may do.
                trial.reasons.append(str(error))

    async def _converse(
        self, door: _Door, send: _Send, talk: _Talk, trial: _Trial, *, known: bool = False
    ) -> Answer:
        """Carry a conversation to its end and return the last answer."""
        with contextlib.closing(talk.conversation):
            while True:
                answer = await send(talk.attempt.authorization)
                try:
                    talk.attempt = talk.conversation.send(door.reply(answer))
                except StopIteration:
                    break
                except NotMutual as error:
                    answer.close()
                    message = f"cannot trust {door.name}: {error}"
                    raise _failed("server_not_authenticated", message, answer) from error
                except AuthError as error:
                    await answer.drain()
                    raise self._refused(door, talk.step, answer, trial, error) from error
                await answer.drain()
        if not door.asks(answer):
            self._accept(door, talk, answer, known=known)
        return answer

    def _accept(self, door: _Door, talk: _Talk, answer: Answer, *, known: bool) -> None:
        self._trusted[door.key] = (talk.step, talk.session)
        if door.tunnel is not None:
            self._tunnels[door.origin, door.tunnel] = answer.request.proxy_authorization
        if not known:
            self._audit(True, door.target, talk.session.scheme, door.origin.host)

    def _refused(
        self, door: _Door, step: Step, answer: Answer, trial: _Trial, error: AuthError
    ) -> TransferFailed:
        self._audit(False, door.target, step[0], door.origin.host)
        choice = choose(
            parse_challenges(answer.values(_FIELDS[door.target][0])),
            door.held,
            transit=door.transit,
            tried=trial.steps,
            randomness=self._randomness,
        )
        message = refusal(door.name, choice, [*trial.reasons, str(error)])
        code = f"http_{CHALLENGE_STATUS[door.target]}"
        return _failed(code, message, answer, remedy(choice))

    def _server_door(self, hop: Hop) -> _Door:
        request = hop.request
        place = origin(request.url)
        ends = [place.host, *_proxy_hosts(request)]
        exposed = place.scheme == "http" and not all(map(is_loopback, ends))
        name = str(place)
        if not hop.own:
            name += " (where a redirect led; credentials go to the origin of the file's URL only)"
        return _Door(
            target=Target.SERVER,
            origin=place,
            # A proxy passes the origin-form on, and that is what servers compare a digest with.
            line=RequestLine(method="GET", target=request.origin_form),
            held=self._held[Target.SERVER] if hop.own else {},
            transit=Transit(cleartext=exposed, allow_cleartext=self._allow_cleartext),
            name=name,
        )

    def _proxy_door(self, request: Request, proxy: Proxy) -> _Door:
        place, server = origin(str(proxy.url)), origin(request.url)
        line = RequestLine(method="GET", target=request.target)
        if request.tunnelled:
            line = RequestLine(method="CONNECT", target=f"{server.host}:{server.port}")
        exposed = place.scheme == "http" and not is_loopback(place.host)
        return _Door(
            target=Target.PROXY,
            origin=place,
            line=line,
            held=self._held[Target.PROXY] or _url_credentials(proxy),
            transit=Transit(cleartext=exposed, allow_cleartext=self._allow_cleartext),
            name=f"proxy {place}",
            tunnel=server if request.tunnelled else None,
        )


def _proxy_hosts(request: Request) -> list[str]:
    return [] if request.proxy is None else [request.proxy.host or ""]


def _url_credentials(proxy: Proxy) -> _Held:
    """Return the identity that the proxy's URL carries, for the schemes that take a password."""
    if proxy.username is None or proxy.password is None:
        return {}
    return {
        scheme: Credential(
            target=Target.PROXY, scheme=scheme, username=proxy.username, password=proxy.password
        )
        for scheme in (Scheme.DIGEST, Scheme.BASIC)
    }


def _failed(code: str, message: str, answer: Answer, advice: str | None = None) -> TransferFailed:
    return TransferFailed(
        Failure(code=code, message=message, http_status=answer.status, advice=advice)
    )
