"""What an authentication conversation says and hears.

A scheme is a *session*: one object per (job, target, origin, scheme), which remembers what the
scheme lets it remember (a nonce and its count, later a ticket). For each request the session writes
down one conversation, a generator: it yields what to send and is sent what came back. It ends by
returning (the last reply stands, whatever its status) or by raising.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from transferd.auth.challenge import Challenge
from transferd.model.credentials import Scheme, Target
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Send the request with this value in (Proxy-)Authorization; None: without one.

    Raises:
        AuthError: the value has control characters. Schemes refuse them where they come from; this
            is the last door before the wire.
    """

    authorization: str | None = field(repr=False)
    #: This and the following attempts must travel on one connection.
    pinned: bool = False

    def __post_init__(self) -> None:
        if self.authorization is not None and _CONTROL.search(self.authorization):
            raise AuthError("cannot send credentials: the header would have control characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for an attempt."""

    status: int
    #: Every (WWW|Proxy)-Authenticate value, one per header line, in order.
    authenticate: tuple[str, ...] = ()
    #: Every (Proxy-)Authentication-Info value.
    authentication_info: tuple[str, ...] = ()
    #: Equal for two replies exactly when they came over the same connection.
    connection: object = None


Conversation: TypeAlias = Generator[Attempt, Reply, None]


class Session(Protocol):
    """One credential in use at one origin.

    It reveals the password only while it writes down an attempt, and keeps nothing made from it.
    Conversations of one session may overlap, in one thread.
    """

    @property
    def scheme(self) -> Scheme:
        """Which scheme this is."""
        ...

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*.

        *challenge* is the one that made the authenticator choose this session, None for a later
        request of a session that succeeded before (it then starts with what it remembers, and
        without credentials when it remembers nothing).

        It returns with a challenge status when the server does not ask for what this session
        speaks: nothing was refused, the authenticator chooses again by the last reply.

        Raises (from the generator):
            AuthRejected: the server refused the credential, or it cannot be expressed.
            NotMutual: the server failed to prove that it knows the secret.
        """
        ...

    def close(self) -> None:
        """Forget what the server said; the credential is its owner's to wipe."""
        ...


class AuthError(TransferdError):
    """A conversation ended badly."""


class AuthRejected(AuthError):
    """The server refused the credential; the text says what the scheme knows of the reason."""


class NotMutual(AuthError):
    """The server's own proof (rspauth) is wrong: this is not the server that knows the secret."""


#: A scheme, and for Digest the family of its hash: what is tried once.
Step: TypeAlias = tuple[Scheme, str | None]

#: Strength, strongest first; the authenticator takes the first that is offered and held.
LADDER: Sequence[Step] = (
    (Scheme.NEGOTIATE, None),
    (Scheme.DIGEST, "sha"),
    (Scheme.NTLM, None),
    (Scheme.DIGEST, "md5"),
    (Scheme.BASIC, None),
)

#: Status that carries the target's challenge.
CHALLENGE_STATUS = {Target.SERVER: 401, Target.PROXY: 407}
