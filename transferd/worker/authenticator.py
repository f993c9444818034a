"""Gets one request past whoever asks for credentials: the proxy first, then the server.

It runs inside the redirect loop, once for each hop. Nothing is sent before it was asked for; what
was accepted goes along with later requests to the same place as far as its scheme remembers it. A
credential that was refused is not tried again, and no weaker scheme is tried after a refusal: a
server could otherwise have the password shown to it by refusing everything better. A scheme that
cannot even start was refused by nobody, and makes room for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from yarl import URL

from transferd.auth.choice import Method
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    Errand,
    NotMutual,
    Randomness,
    Reply,
    Session,
    Step,
)
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import ConnectionGone, TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Settings
from transferd.model.origins import Origin
from transferd.worker.answer import PINNED_DRAIN_BYTES, Answer
from transferd.worker.cookies import Cookies
from transferd.worker.door import (
    ASKING,
    REPEATABLE,
    Door,
    Doors,
    Hop,
    exposed,
    place_of,
    read_reply,
)
from transferd.worker.exchange import Exchange
from transferd.worker.proxy import Proxy, choose_proxy
from transferd.worker.request import Request
from transferd.worker.security import Steps
from transferd.worker.visit import Send, Talk, Visit

#: So often a request is begun anew because its connection was gone.
RENEWALS = 2

#: Told of each credential that was accepted or refused: whether, for whom, how, at which host, and
#: what spoke inside the scheme.
Audit: TypeAlias = Callable[[bool, Target, Scheme, str, str | None], None]


@dataclass(frozen=True, slots=True)
class _Trust:
    """A session that a door has let in."""

    step: Step
    method: Method
    session: Session
    #: The channel binding of the connection at that time.
    binding: bytes | None


class Authenticator:
    """The credentials of one run in use. Requests are sent through it one at a time."""

    def __init__(
        self,
        exchange: Exchange,
        credentials: Iterable[Credential],
        *,
        settings: Settings,
        steps: Steps,
        randomness: Randomness,
        audit: Audit,
    ) -> None:
        self._exchange = exchange
        self._proxy_setting = settings.proxy
        self._doors = Doors(credentials, settings, randomness)
        self._steps = steps
        self._audit = audit
        self._cookies = Cookies()
        self._trusted: dict[tuple[Target, Origin], _Trust] = {}

    @property
    def armed(self) -> bool:
        """Whether there are credentials for the origin of a file."""
        return self._doors.armed

    async def ask(self, hop: Hop) -> Answer:
        """Send the request of *hop*, with credentials where they are asked for and held.

        Returns an answer that is no challenge which could be answered. Its request may name
        another URL of the same origin than the hop's, where a scheme led there.

        Raises:
            TransferFailed: `http_401`, `http_407`: nothing that is held was accepted;
                `cleartext_refused`: it would be readable on the way; `server_not_authenticated`;
                `kdc_unreachable`; `connection_lost`: it was, again and again; and whatever
                Exchange.send raises.
        """
        cookies = hop.own and self._doors.cookies
        first = None
        if hop.proxy is None and not cookies and not self._trusted:
            # It carries nothing of a door's, and most doors are open.
            send = partial(self._exchange.send, hop.request)
            first = await _insist(send, repeatable=hop.request.method in REPEATABLE)
            if first.status not in ASKING:
                return first
        deliver = partial(self._deliver, proxy=hop.proxy, cookies=cookies)
        return await self._enter(self._doors.server(hop), deliver, first)

    def close(self) -> None:
        """Forget what servers said. The credentials are the run's to wipe."""
        for trust in self._trusted.values():
            trust.session.close()
        self._trusted.clear()
        self._cookies.clear()

    # ── on the way ─────────────────────────────────────────────────────────────────────────

    async def _deliver(self, request: Request, *, proxy: Proxy | None, cookies: bool) -> Answer:
        """Send *request* past the proxy, with the cookies of its origin."""
        if cookies:
            request = self._cookies.attach(request)
        answer = await self._carry(request, proxy)
        if cookies:
            self._cookies.take(request.url, answer.values("Set-Cookie"))
        return answer

    async def _carry(self, request: Request, proxy: Proxy | None) -> Answer:
        if proxy is None:
            return await self._exchange.send(request)
        if not request.tunnelled:
            return await self._enter(self._doors.proxy(request, proxy), self._exchange.send)
        if request.connection is None and not self._exchange.reaches(request):
            await self._enter(self._doors.proxy(request, proxy), self._exchange.tunnel)
        return await self._exchange.send(request)

    # ── at a door ──────────────────────────────────────────────────────────────────────────

    async def _enter(self, door: Door, send: Send, first: Answer | None = None) -> Answer:
        """Send, and answer challenges until *door* asks no more; *first* came without any."""
        enter = partial(self._try_to_enter, Visit(door, send, first))
        if door.request.connection is not None:
            # Pinned by the conversation with the server: if it is gone, that one begins anew.
            return await enter()
        return await _insist(enter, repeatable=door.repeatable)

    async def _try_to_enter(self, visit: Visit) -> Answer:
        answer = await self._open(visit)
        while visit.door.asks(answer):
            answer = await self._converse(visit, self._begin(visit, answer)) or answer
        return answer

    async def _open(self, visit: Visit) -> Answer:
        """Send with what was accepted before, or without credentials."""
        door = visit.door
        trust = self._trusted.get(door.key)
        # A redirect may lead to the server of another file, which is trusted for that file alone.
        held = trust is not None and trust.step[0] in door.held
        if trust is not None and held and trust.step not in visit.steps:
            conversation = trust.session.converse(door.line(trust.binding), None)
            talk = Talk(trust.step, trust.method, trust.session, conversation, known=True)
            answer = await self._converse(visit, talk)
            if answer is not None:
                return answer
        first, visit.first = visit.first, None
        answer = await visit.send(door.request) if first is None else first
        if door.asks(answer):
            await answer.drain()
        return answer

    def _begin(self, visit: Visit, answer: Answer) -> Talk:
        """Begin a conversation in the strongest scheme that is left.

        Raises:
            TransferFailed: there is none.
        """
        door = visit.door
        visit.offered = door.challenges(answer)
        choice = visit.choose()
        pick = choice.pick
        if pick is None:
            raise visit.no_way(choice)
        session = pick.open(door.place)
        conversation = session.converse(door.line(door.binding(answer)), pick.challenge)
        return Talk(pick.step, pick.method, session, conversation, connection=answer.connection)

    async def _converse(self, visit: Visit, talk: Talk) -> Answer | None:
        """Carry a conversation to its end and return the last answer, if there was any.

        If the door still asks with it, it is drained, and the scheme is not chosen again, unless
        all that happened is that the door has forgotten a session.
        """
        door = visit.door
        try:
            await self._talk(visit, talk)
            if talk.answer is not None and not door.asks(talk.answer):
                self._accept(door, talk, talk.answer)
                return talk.answer
            self._trusted.pop(door.key, None)
        except AuthError as error:
            self._trusted.pop(door.key, None)
            self._judge(visit, talk, error)
        except asyncio.CancelledError:
            # In the midst of a step in a thread: nobody else knows of the answer to the last one.
            if talk.answer is not None:
                talk.answer.close()
            raise
        finally:
            self._part(door, talk)
        if talk.sent or not talk.known:
            visit.steps.append(talk.step)
        if talk.answer is not None:
            await talk.answer.drain()
        return talk.answer

    async def _talk(self, visit: Visit, talk: Talk) -> None:
        """Do what the conversation asks for until it is over."""
        reply: Reply | None = None
        while (wish := await self._step(talk, reply)) is not None:
            if talk.answer is not None:
                await talk.answer.drain(pinned=isinstance(wish, Attempt) and wish.pinned)
            talk.count(wish)
            if isinstance(wish, Errand):
                reply = await self._run(visit.door, wish)
            else:
                talk.answer = await self._attempt(visit, talk, wish)
                reply = visit.door.reply(talk.answer)

    async def _step(self, talk: Talk, reply: Reply | None) -> Attempt | Errand | None:
        if not talk.method.blocks:
            return talk.advance(reply)
        return await self._steps.take(partial(talk.advance, reply), talk.abandon)

    async def _attempt(self, visit: Visit, talk: Talk, attempt: Attempt) -> Answer:
        door = visit.door
        if attempt.url is not None and place_of(attempt.url) != door.origin:
            raise _distrust(door, "it leads elsewhere with what is for it alone")
        lent = door.request.connection
        pin = talk.connection if attempt.pinned else lent
        try:
            answer = await visit.send(door.dressed(attempt, pin))
        except ConnectionGone as gone:
            if attempt.pinned and lent is None:
                raise _hung_up(door) from gone
            raise
        if pin is not None and answer.connection != pin:
            answer.close()
            raise _hung_up(door)
        talk.connection = answer.connection
        if not visit.offered and door.asks(answer):
            visit.offered = door.challenges(answer)
        return answer

    def _accept(self, door: Door, talk: Talk, answer: Answer) -> None:
        binding = door.binding(answer)
        self._trusted[door.key] = _Trust(talk.step, talk.method, talk.session, binding)
        if talk.sent and not talk.known:
            self._tell(door, talk, accepted=True)

    def _judge(self, visit: Visit, talk: Talk, error: AuthError) -> None:
        """Take note of what kept a scheme from starting; it makes room for the next one.

        Raises:
            TransferFailed: it had started, or somebody refused the credential.
        """
        door, answer = visit.door, talk.answer
        if isinstance(error, NotMutual):
            raise _distrust(door, str(error), answer) from error
        rejected = isinstance(error, AuthRejected)
        if rejected:
            self._tell(door, talk, accepted=False)
        if rejected or talk.sent or (answer is not None and not door.asks(answer)):
            if answer is not None:
                answer.close()
            raise visit.refused(talk.step, error) from error
        visit.errors.append(error)

    def _part(self, door: Door, talk: Talk) -> None:
        """End a conversation, and its session unless that is trusted."""
        trust = self._trusted.get(door.key)
        trusted = trust is not None and trust.session is talk.session
        if trusted and talk.abandoned:
            del self._trusted[door.key]
        talk.close(keep=trusted)

    def _tell(self, door: Door, talk: Talk, *, accepted: bool) -> None:
        mechanism = talk.session.mechanism
        self._audit(accepted, door.target, talk.session.scheme, door.origin.host, mechanism)

    # ── elsewhere ──────────────────────────────────────────────────────────────────────────

    async def _run(self, door: Door, errand: Errand) -> Reply:
        """Ask somebody else for what a conversation has to know."""
        place = place_of(errand.url)
        if place is None:
            raise _distrust(door, "it leads to what is no address of a server")
        proxy = choose_proxy(URL(errand.url, encoded=True), self._proxy_setting)
        request = Request(
            url=errand.url,
            authorization=errand.authorization,
            proxy=None if proxy is None else proxy.url,
        )
        if exposed(request):
            raise _distrust(door, f"it leads to {place}, which everybody on the way can read")
        if errand.forget:
            self._cookies.forget(place)
        ask = partial(self._deliver, request, proxy=proxy, cookies=True)
        answer = await _insist(ask, repeatable=True)
        await answer.drain()
        return read_reply(answer, Target.SERVER)


async def _insist(ask: Callable[[], Awaitable[Answer]], *, repeatable: bool) -> Answer:
    """Ask, and ask again where a connection was gone before a byte of the answer.

    Raises:
        TransferFailed: it was gone too often, or *ask* raises it; never ConnectionGone.
    """
    left = RENEWALS if repeatable else 0
    while True:
        try:
            return await ask()
        except ConnectionGone as gone:
            if not left:
                raise TransferFailed(gone.failure) from gone
            left -= 1


def _hung_up(door: Door) -> ConnectionGone:
    message = (
        f"cannot authenticate to {door.name}: the {door.target} closes the connection between the"
        f" legs of the handshake, or refuses with more than {PINNED_DRAIN_BYTES >> 20} MiB; on"
        " another connection the legs are worth nothing"
    )
    return ConnectionGone(Failure(code="connection_lost", message=message))


def _distrust(door: Door, reason: str, answer: Answer | None = None) -> TransferFailed:
    if answer is not None:
        answer.close()
    return TransferFailed(
        Failure(
            code="server_not_authenticated",
            message=f"cannot trust {door.name}: {reason}",
            http_status=None if answer is None else answer.status,
        )
    )
