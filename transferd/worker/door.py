"""Who may ask a request for credentials, and what there is to answer with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from transferd.auth import passport
from transferd.auth.challenge import Challenge, parse_challenges
from transferd.auth.choice import Transit, needs_cookies
from transferd.auth.flow import CHALLENGE_STATUS, Attempt, Place, Randomness, Reply, RequestLine
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.job import Settings
from transferd.model.origins import Origin, is_loopback, origin
from transferd.worker.answer import Answer
from transferd.worker.proxy import Proxy
from transferd.worker.request import Request

#: The identity of requests to the origin of the file's own URL, once the run has any secret.
OWNER = "owner"

Held: TypeAlias = Mapping[Scheme, Credential]

#: Of (challenges, what is said of the authentication).
_FIELDS = {
    Target.SERVER: ("WWW-Authenticate", "Authentication-Info"),
    Target.PROXY: ("Proxy-Authenticate", "Proxy-Authentication-Info"),
}
#: A request of these may be sent again when nobody knows whether it arrived (RFC 9110 9.2.2).
REPEATABLE = frozenset({"GET", "HEAD"})
#: No other answer of a server is a challenge.
ASKING = passport.PARTNER_STATUSES | {CHALLENGE_STATUS[Target.SERVER]}
#: What a request line can hold.
_SENDABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One request of the redirect loop, before anybody has asked for credentials."""

    request: Request
    #: Whether it goes to the origin of the file's own URL, the only one that gets credentials.
    own: bool
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Somebody who may ask for credentials before a request gets on."""

    target: Target
    origin: Origin
    #: As it would go without any credentials of this door's.
    request: Request
    held: Held
    transit: Transit
    place: Place
    #: How messages call it.
    name: str
    #: It is asked for a tunnel, not for what is at the request's URL.
    tunnel: bool = False

    @property
    def key(self) -> tuple[Target, Origin]:
        """Where a session counts."""
        return self.target, self.origin

    @property
    def status(self) -> int:
        """The status of its challenges, and of the failure that comes of them."""
        return CHALLENGE_STATUS[self.target]

    @property
    def repeatable(self) -> bool:
        """Whether what it is asked for may be asked for twice."""
        return self.tunnel or self.request.method in REPEATABLE

    def asks(self, answer: Answer) -> bool:
        """Whether *answer* is a challenge of this door's own.

        One of Passport may come with a redirect, which is for browsers (MS-PASS 2.2.8).
        """
        if answer.status == self.status:
            return True
        return (
            self.target is Target.SERVER
            and answer.status in passport.PARTNER_STATUSES
            and any(map(passport.usable, self.challenges(answer)))
        )

    def challenges(self, answer: Answer) -> tuple[Challenge, ...]:
        """Return what *answer* offers."""
        return parse_challenges(answer.values(_FIELDS[self.target][0]))

    def binding(self, answer: Answer) -> bytes | None:
        """Return the channel binding of *answer*, if TLS ends at this very door."""
        return answer.channel_binding if self.origin.scheme == "https" else None

    def line(self, binding: bytes | None) -> RequestLine:
        """Return what is to be authenticated, on a connection with that channel binding."""
        request = self.request
        if self.tunnel:
            return RequestLine(
                method="CONNECT", target=request.peer.server, channel_binding=binding
            )
        # A proxy passes the origin-form on, and that is what servers compare a digest with.
        server = self.target is Target.SERVER
        return RequestLine(
            method=request.method,
            target=request.origin_form if server else request.target,
            url=request.url,
            channel_binding=binding,
        )

    def dressed(self, attempt: Attempt, connection: object) -> Request:
        """Return the request as *attempt* wants it, bound for *connection*."""
        if self.target is Target.PROXY:
            return replace(
                self.request, proxy_authorization=attempt.authorization, connection=connection
            )
        return replace(
            self.request,
            url=attempt.url or self.request.url,
            authorization=attempt.authorization,
            connection=connection,
        )

    def reply(self, answer: Answer) -> Reply:
        """Return what a conversation has to know of *answer*."""
        return read_reply(answer, self.target, self.binding(answer))


class Doors:
    """The doors that requests of one run may come to, and its credentials for them."""

    def __init__(
        self, credentials: Iterable[Credential], settings: Settings, randomness: Randomness
    ) -> None:
        self._settings = settings
        self._randomness = randomness
        self._held = _sorted(credentials)

    @property
    def armed(self) -> bool:
        """Whether there are credentials for the server."""
        return bool(self._held[Target.SERVER])

    @property
    def cookies(self) -> bool:
        """Whether what the server accepts may have to be remembered in cookies."""
        return needs_cookies(self._held[Target.SERVER])

    def server(self, hop: Hop) -> Door:
        """Return the door of the server that *hop* leads to."""
        place = origin(hop.request.url)
        name = str(place)
        if not hop.own:
            name += " (where a redirect led; credentials go to the origin of the file's URL only)"
        return Door(
            target=Target.SERVER,
            origin=place,
            request=hop.request,
            held=self._held[Target.SERVER] if hop.own else {},
            transit=self._transit(exposed(hop.request)),
            place=self._place(place.host),
            name=name,
        )

    def proxy(self, request: Request, proxy: Proxy) -> Door:
        """Return the door of the proxy that *request* goes through."""
        place = origin(str(proxy.url))
        if request.tunnelled:
            # What is meant for the server is not for the proxy to see.
            request = replace(request, headers=(), authorization=None)
        return Door(
            target=Target.PROXY,
            origin=place,
            request=request,
            held=self._held[Target.PROXY] or _url_credentials(proxy),
            transit=self._transit(place.scheme == "http" and not is_loopback(place.host)),
            place=self._place(place.host),
            name=f"proxy {place}",
            tunnel=request.tunnelled,
        )

    def _transit(self, cleartext: bool) -> Transit:
        return Transit(cleartext=cleartext, allow_cleartext=self._settings.allow_cleartext)

    def _place(self, host: str) -> Place:
        return Place(
            host=host,
            randomness=self._randomness,
            negotiate=self._settings.negotiate,
            passport=self._settings.passport,
        )


def read_reply(answer: Answer, target: Target, binding: bytes | None = None) -> Reply:
    """Return what a conversation has to know of an answer of *target*."""
    challenges, info = _FIELDS[target]
    return Reply(
        status=answer.status,
        authenticate=answer.values(challenges),
        authentication_info=answer.values(info),
        connection=answer.connection,
        channel_binding=binding,
        headers=tuple(answer.headers.items()),
    )


def place_of(url: str) -> Origin | None:
    """Return the origin of *url*; None if it cannot be asked for as it is."""
    try:
        return origin(url) if _SENDABLE.fullmatch(url) else None
    except ValueError:
        return None


def exposed(request: Request) -> bool:
    """Whether somebody on the way to the server can read *request*."""
    place = origin(request.url)
    ends: Sequence[str] = [place.host]
    if request.proxy is not None:
        ends = [place.host, request.proxy.host or ""]
    return place.scheme == "http" and not all(map(is_loopback, ends))


def _sorted(credentials: Iterable[Credential]) -> Mapping[Target, Held]:
    """Sort by target; who the owner is to the proxy, without a password, he is to the server.

    Unless the server has credentials with a password, of any scheme (BITS.md A10).
    """
    found: dict[Target, dict[Scheme, Credential]] = {target: {} for target in Target}
    for credential in credentials:
        found[credential.target][credential.scheme] = credential
    server = found[Target.SERVER]
    if all(credential.implicit for credential in server.values()):
        for scheme, credential in found[Target.PROXY].items():
            if credential.implicit:
                server.setdefault(scheme, _retargeted(credential))
    return found


def _retargeted(credential: Credential) -> Credential:
    return Credential(
        target=Target.SERVER,
        scheme=credential.scheme,
        username=None,
        password=credential.password,
        age=credential.age,
    )


def _url_credentials(proxy: Proxy) -> Held:
    """Return the identity that the proxy's URL carries, for the schemes that a proxy may ask."""
    if proxy.username is None or proxy.password is None:
        return {}
    return {
        scheme: Credential(
            target=Target.PROXY, scheme=scheme, username=proxy.username, password=proxy.password
        )
        for scheme in (Scheme.NEGOTIATE, Scheme.DIGEST, Scheme.NTLM, Scheme.BASIC)
    }
