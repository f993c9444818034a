"""What an authentication conversation says and hears.

A scheme is a *session*: one object per (job, target, origin, scheme), which remembers what the
scheme lets it remember (a nonce and its count, a ticket, how the server treats connections). For
each request the session writes down one conversation, a generator: it yields what to send and is
sent what came back. It ends by returning (the last reply stands, whatever its status) or by
raising.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from transferd.auth.challenge import Challenge
from transferd.model.credentials import NegotiateOptions, PassportOptions, Scheme, Target
from transferd.model.errors import TransferdError

#: Returns so many bytes that nobody can guess.
Randomness: TypeAlias = Callable[[int], bytes]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLine:
    """The request that is to be authenticated."""

    method: str
    #: The request target exactly as it goes out (origin-form, or absolute-form through a proxy).
    #: A query may be a secret of its own.
    target: str = field(repr=False)
    #: The body of the request, for auth-int; transferd authenticates without a body.
    body: bytes = field(default=b"", repr=False)
    #: The absolute URL of the request, for schemes that name it to others.
    url: str = field(default="", repr=False)
    #: Of the TLS connection that the challenge came over: `tls-server-end-point:` and the hash of
    #: its certificate (RFC 5929 4); None: no TLS of the server's, or a certificate without a hash.
    channel_binding: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session counts, and what the job says about speaking there."""

    #: As in an Origin: lower case, ASCII, no brackets.
    host: str
    randomness: Randomness
    negotiate: NegotiateOptions = NegotiateOptions()
    passport: PassportOptions = PassportOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Send the request with this value in (Proxy-)Authorization; None: without one.

    Raises:
        AuthError: the value has control characters. Schemes refuse them where they come from; this
            is the last door before the wire.
    """

    authorization: str | None = field(repr=False)
    #: It means something only on the connection that the last reply came over. When that is gone
    #: the conversation is closed and begun anew, a few times.
    pinned: bool = False
    #: Ask for this URL instead, on the request's own origin.
    url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.authorization is not None and _CONTROL.search(self.authorization):
            raise AuthError("cannot send credentials: the header would have control characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Ask somebody else in between: GET *url*, with nothing of the request's own.

    Cookies of that origin go along and are kept for the run. Redirects are not followed; the reply
    has no body. A place that cannot be reached fails the run as any server does.
    """

    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)
    #: Forget the cookies of that origin first.
    forget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for an attempt or an errand."""

    status: int
    #: Every (WWW|Proxy)-Authenticate value, one per header line, in order.
    authenticate: tuple[str, ...] = field(default=(), repr=False)
    #: Every (Proxy-)Authentication-Info value. A ticket may be in it.
    authentication_info: tuple[str, ...] = field(default=(), repr=False)
    #: Equal for two replies exactly when they came over the same connection.
    connection: object = None
    #: As RequestLine.channel_binding, of the connection that this came over.
    channel_binding: bytes | None = None
    #: All fields, in order, names as they came.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def values(self, name: str) -> tuple[str, ...]:
        """Every line of the field *name*, in order."""
        return tuple(value for found, value in self.headers if found.lower() == name.lower())


Conversation: TypeAlias = Generator[Attempt | Errand, Reply, None]


class Session(Protocol):
    """One credential in use at one origin.

    It reveals the password only while it writes down an attempt, and keeps nothing made from it.
    Conversations of one session may overlap, in one thread.
    """

    @property
    def scheme(self) -> Scheme:
        """Which scheme this is."""
        ...

    @property
    def mechanism(self) -> str | None:
        """What spoke inside the scheme (`kerberos`, `ntlm`), once that is known; for the audit."""
        ...

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*.

        *challenge* is the one that made the authenticator choose this session, None for a later
        request of a session that succeeded before (it then starts with what it remembers, and
        without credentials when it remembers nothing).

        It returns with a challenge status when the server does not ask for what this session
        speaks: nothing was refused, the authenticator chooses again by the last reply.

        Raises (from the generator):
            CannotStart: nothing was sent yet, and nothing can be; another scheme may do.
            AuthRejected: the server refused the credential, or it cannot be expressed.
            NotMutual: the server failed to prove that it knows the secret.
        """
        ...

    def close(self) -> None:
        """Forget what the server said; the credential is its owner's to wipe."""
        ...


class AuthError(TransferdError):
    """A conversation ended badly.

    `code` is that of the failure if it comes to one (None: `http_401` or `http_407`), `advice` what
    the owner can do, where the scheme knows better than the code.
    """

    def __init__(self, message: str, *, code: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.advice = advice


class CannotStart(AuthError):
    """The scheme cannot be spoken here and now: no ticket, no library, no name for the server."""


class AuthRejected(AuthError):
    """The server refused the credential; the text says what the scheme knows of the reason."""


class NotMutual(AuthError):
    """The server's own proof is wrong: this is not the server that knows the secret."""


#: A scheme, and for Digest the family of its hash: what is tried once.
Step: TypeAlias = tuple[Scheme, str | None]

#: Strength, strongest first; the authenticator takes the first that is offered and held.
LADDER: Sequence[Step] = (
    (Scheme.NEGOTIATE, None),
    (Scheme.DIGEST, "sha"),
    (Scheme.NTLM, None),
    (Scheme.DIGEST, "md5"),
    (Scheme.PASSPORT, None),
    (Scheme.BASIC, None),
)

#: Status that carries the target's challenge.
CHALLENGE_STATUS = {Target.SERVER: 401, Target.PROXY: 407}
