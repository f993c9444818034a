"""Basic (RFC 7617): the password itself, in a thin disguise."""

from __future__ import annotations

import base64

from transferd.auth.challenge import Challenge, parse_challenges
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthRejected,
    Conversation,
    Reply,
    RequestLine,
)
from transferd.auth.identity import password_bytes, user_name
from transferd.model.credentials import Credential, Scheme


def usable(challenge: Challenge) -> bool:
    """Whether *challenge* asks for Basic; a missing realm or another charset is overlooked."""
    return challenge.scheme == Scheme.BASIC


class BasicSession:
    """Basic at one origin.

    Nothing is sent before a challenge; after one the credentials go along with every later request
    (RFC 7617 2.2), which saves a round trip each and tells the server nothing new.
    """

    __slots__ = ("_challenged", "_credential")

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        self._challenged = False

    @property
    def scheme(self) -> Scheme:
        """Basic."""
        return Scheme.BASIC

    @property
    def mechanism(self) -> None:
        """Nothing: the scheme itself."""
        return None

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*; see `Session.converse`."""
        preemptive = challenge is None
        if challenge is None and not self._challenged:
            reply = yield Attempt(authorization=None)
            if not self._asked(reply):
                return
            preemptive = False
        self._challenged = True
        reply = yield Attempt(authorization=_authorization(self._credential))
        if reply.status != self._status:
            return
        self._challenged = False
        if preemptive and not self._asked(reply):
            return
        raise AuthRejected(
            f"the {self._credential.target} refused user name or password"
            f" of {self._credential.username!r} (Basic)"
        )

    def close(self) -> None:
        """Forget that the server asked."""
        self._challenged = False

    @property
    def _status(self) -> int:
        return CHALLENGE_STATUS[self._credential.target]

    def _asked(self, reply: Reply) -> bool:
        challenges = parse_challenges(reply.authenticate)
        return reply.status == self._status and any(map(usable, challenges))


def _authorization(credential: Credential) -> str:
    pair = user_name(credential).encode() + b":" + password_bytes(credential, controls=False)
    return "Basic " + base64.b64encode(pair).decode()
