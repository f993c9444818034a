"""Digest (RFC 7616, and RFC 2617 and 2069 where a server is that old), as a conversation."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from transferd.auth.challenge import Challenge, parse_challenges, parse_params
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthRejected,
    CannotStart,
    Conversation,
    NotMutual,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.proof import Offer, Use, authorization, read_offer, sendable, server_proof
from transferd.model.credentials import Credential, Scheme

#: How often a server may call a nonce stale that it has only just made.
STALE_ROUNDS = 3

_CNONCE_BYTES = 16


@dataclass(slots=True, kw_only=True)
class _Nonce:
    """A nonce of the server's with the client's half of it, in use.

    The cnonce stays as long as the nonce: so a server that computes a -sess key from the first
    nonce and cnonce (RFC 7616 3.4.2) and one that takes those of each request agree with us.
    """

    offer: Offer
    value: str
    cnonce: str
    key_nonce: str
    key_cnonce: str
    used: int = 0

    def use(self, request: RequestLine) -> Use:
        """Take the next count; no two uses of a nonce get the same one."""
        self.used += 1
        return Use(
            offer=self.offer,
            request=request,
            nonce=self.value,
            cnonce=self.cnonce,
            count=self.used,
            key_nonce=self.key_nonce,
            key_cnonce=self.key_cnonce,
        )


class DigestSession:
    """Digest at one origin.

    Remembers the last nonce, so that later requests carry credentials from the start, and keeps to
    the strength of hash that it began with. A refusal of a remembered nonce proves nothing of the
    password: servers forget nonces without saying `stale`. Only what refuses an answer to a fresh
    challenge refuses the password.
    """

    __slots__ = ("_credential", "_nonce", "_randomness")

    def __init__(self, credential: Credential, place: Place) -> None:
        self._credential = credential
        self._randomness = place.randomness
        self._nonce: _Nonce | None = None

    @property
    def scheme(self) -> Scheme:
        """Digest."""
        return Scheme.DIGEST

    @property
    def mechanism(self) -> None:
        """Nothing: the scheme itself."""
        return None

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*; see `Session.converse`."""
        if challenge is None:
            strength = None if self._nonce is None else self._nonce.offer.algorithm.strength
            use = None if self._nonce is None else self._nonce.use(request)
            reply = yield self._attempt(use)
            if self._concluded(reply, use):
                return
            offer = _best(reply, strength)
            if offer is None:
                self.close()
                return
        else:
            offer = read_offer(challenge)
            if offer is None:
                raise CannotStart("cannot answer this Digest challenge")
        yield from self._answer(request, offer)

    def close(self) -> None:
        """Forget the nonce."""
        self._nonce = None

    def _answer(self, request: RequestLine, offer: Offer) -> Conversation:
        """Answer a fresh challenge, and the fresher ones that replace it when it is stale."""
        for _ in range(1 + STALE_ROUNDS):
            use = self._adopt(offer).use(request)
            reply = yield self._attempt(use)
            if self._concluded(reply, use):
                return
            again = _best(reply, offer.algorithm.strength)
            if again is None or not again.stale:
                raise self._rejected(offer, "refused user name or password of")
            offer = again
        raise self._rejected(offer, "calls every nonce stale, even its newest, for")

    def _attempt(self, use: Use | None) -> Attempt:
        value = None if use is None else authorization(use, self._credential)
        return Attempt(authorization=value)

    def _adopt(self, offer: Offer) -> _Nonce:
        nonce = self._nonce
        # A nonce that comes back is not new: its count goes on.
        used = nonce.used if nonce is not None and nonce.value == offer.nonce else 0
        cnonce = self._randomness(_CNONCE_BYTES).hex()
        self._nonce = _Nonce(
            offer=offer,
            value=offer.nonce,
            cnonce=cnonce,
            key_nonce=offer.nonce,
            key_cnonce=cnonce,
            used=used,
        )
        return self._nonce

    def _concluded(self, reply: Reply, use: Use | None) -> bool:
        """Whether *reply* ends the conversation; learns from it what the server says of itself.

        Raises:
            NotMutual: rspauth is there and wrong.
        """
        if reply.status == CHALLENGE_STATUS[self._credential.target]:
            return False
        if use is not None:
            info = parse_params(reply.authentication_info)
            self._verify(use, info.get("rspauth"))
            self._advance(use, info.get("nextnonce"))
        return True

    def _verify(self, use: Use, rspauth: str | None) -> None:
        expected = None if rspauth is None else server_proof(use, self._credential)
        if rspauth is None or expected is None:
            return
        if not hmac.compare_digest(expected.encode(), rspauth.lower().encode("utf-8", "replace")):
            self.close()
            raise NotMutual(
                f"the {self._credential.target} did not prove that it knows the password of"
                f" {self._credential.username!r}: its rspauth is wrong"
            )

    def _advance(self, use: Use, nextnonce: str | None) -> None:
        """Go on with the nonce that the server wants next (RFC 7616 3.5).

        The -sess key stays that of the challenge. A nonce that another conversation has brought
        in the meantime is newer and stays.
        """
        nonce = self._nonce
        if nextnonce is None or nonce is None or nonce.value != use.nonce:
            return
        if sendable(nextnonce) and nextnonce != nonce.value:
            self._nonce = _Nonce(
                offer=nonce.offer,
                value=nextnonce,
                cnonce=self._randomness(_CNONCE_BYTES).hex(),
                key_nonce=nonce.key_nonce,
                key_cnonce=nonce.key_cnonce,
            )

    def _rejected(self, offer: Offer, what: str) -> AuthRejected:
        self.close()
        return AuthRejected(
            f"the {self._credential.target} {what} {self._credential.username!r}"
            f" (Digest {offer.algorithm_name or 'MD5'}, realm {offer.realm[:80]!r})"
        )


def _best(reply: Reply, strength: str | None) -> Offer | None:
    """Return the first offer of the wanted strength; without one, SHA before MD5."""
    offers = [
        offer
        for challenge in parse_challenges(reply.authenticate)
        if (offer := read_offer(challenge)) is not None
    ]
    for wanted in ("sha", "md5") if strength is None else (strength,):
        for offer in offers:
            if offer.algorithm.strength == wanted:
                return offer
    return None
