"""The arithmetic of Digest (RFC 7616 3.3, 3.4): what a challenge asks, what answers it.

Pure functions of a challenge, a credential and the client's numbers. Nothing that could stand in
for the password is kept: H(A1) is as good as the password within its realm, and computing it anew
costs microseconds.

Strings from a challenge are unquoted and unescaped when read, hashed in that form, and escaped
again when sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote

from transferd.auth.challenge import Challenge
from transferd.auth.flow import RequestLine
from transferd.auth.identity import password_bytes, user_name
from transferd.model.credentials import Credential

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SPECIAL = re.compile(r'(["\\])')
#: attr-char of RFC 8187 3.2.1 beyond letters, digits and what `quote` leaves alone anyway.
_ATTR_CHARS = "!#$&+^`|"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A hash function as Digest uses it."""

    #: Where the ladder puts it: sha or md5.
    strength: str
    #: Its name in hashlib.
    function: str
    #: The -sess variant: A1 has the first nonce and cnonce in it.
    session: bool = False

    def digest(self, *parts: str | bytes) -> str:
        """Return H of the parts with a colon between each two, in lower-case hexadecimal."""
        data = b":".join(part.encode() if isinstance(part, str) else part for part in parts)
        return hashlib.new(self.function, data, usedforsecurity=self.strength != "md5").hexdigest()


def _algorithms() -> Mapping[str, Algorithm]:
    found: dict[str, Algorithm] = {}
    for name, strength, function in (
        ("sha-256", "sha", "sha256"),
        ("sha-512-256", "sha", "sha512_256"),
        ("md5", "md5", "md5"),
    ):
        # OpenSSL may have been built without SHA-512/256.
        if function in hashlib.algorithms_available:
            found[name] = Algorithm(strength, function)
            found[f"{name}-sess"] = Algorithm(strength, function, session=True)
    return MappingProxyType(found)


#: By the name in a challenge, lower case (RFC 7616 6.1).
ALGORITHMS = _algorithms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A Digest challenge that can be answered."""

    realm: str
    nonce: str
    opaque: str | None
    algorithm: Algorithm
    #: As the challenge named it, None if it named none (MD5, then, and not named in the answer).
    algorithm_name: str | None
    #: auth or auth-int; None: the formula of RFC 2069.
    qop: str | None
    #: The server knows users by the hash of their name.
    userhash: bool
    #: Only the nonce was wrong.
    stale: bool
    #: The challenge has something in it that came with RFC 7616.
    modern: bool


def read_offer(challenge: Challenge) -> Offer | None:
    """Return what *challenge* asks; None if it is not Digest or cannot be answered.

    It cannot without realm or nonce, with an unknown algorithm, with neither auth nor auth-int
    among its qop values, with -sess but no qop (A1 needs a cnonce, which must not be sent then),
    or when a value to be echoed is not UTF-8 or has control characters.
    """
    params = challenge.params
    realm, nonce, opaque = params.get("realm"), params.get("nonce"), params.get("opaque")
    name = params.get("algorithm")
    algorithm = ALGORITHMS.get((name or "MD5").lower())
    if challenge.scheme != "digest" or algorithm is None or realm is None or nonce is None:
        return None
    if not all(map(sendable, (realm, nonce, opaque or ""))):
        return None
    options = [option.strip() for option in params.get("qop", "").lower().split(",")]
    qop = next((known for known in ("auth", "auth-int") if known in options), None)
    if qop is None and (any(options) or algorithm.session):
        return None
    return Offer(
        realm=realm,
        nonce=nonce,
        opaque=opaque,
        algorithm=algorithm,
        algorithm_name=name,
        qop=qop,
        userhash=params.get("userhash", "").lower() == "true",
        stale=params.get("stale", "").lower() == "true",
        modern=algorithm.strength == "sha" or "charset" in params or "userhash" in params,
    )


def usable(challenge: Challenge, strength: str | None = None) -> bool:
    """Whether *challenge* can be answered, with a hash of *strength* where one is named."""
    offer = read_offer(challenge)
    return offer is not None and strength in (None, offer.algorithm.strength)


def sendable(text: str) -> bool:
    """Whether a string of the server's can be sent back in a header that goes out as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _CONTROL.search(text) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a nonce: all that one answer is made from, but for the credential."""

    offer: Offer
    request: RequestLine
    nonce: str
    cnonce: str
    #: The how-manieth use of this nonce, from 1.
    count: int
    #: Nonce and cnonce of the first answer to the challenge, which a -sess key is made from.
    key_nonce: str
    key_cnonce: str

    @property
    def nc(self) -> str:
        """The count as it is sent and hashed."""
        return f"{self.count:08x}"


def authorization(use: Use, credential: Credential) -> str:
    """Return the value of the Authorization header (RFC 7616 3.4).

    Raises:
        CannotStart: the user name cannot be expressed.
    """
    offer = use.offer
    fields = [
        *_user_fields(offer, user_name(credential)),
        f"realm={_quoted(offer.realm)}",
        f"uri={_quoted(use.request.target)}",
    ]
    if offer.algorithm_name is not None:
        fields.append(f"algorithm={offer.algorithm_name}")
    fields.append(f"nonce={_quoted(use.nonce)}")
    if offer.qop is not None:
        fields += [f"nc={use.nc}", f"cnonce={_quoted(use.cnonce)}", f"qop={offer.qop}"]
    fields.append(f'response="{_response(use, credential)}"')
    if offer.opaque is not None:
        fields.append(f"opaque={_quoted(offer.opaque)}")
    if offer.userhash:
        fields.append("userhash=true")
    return "Digest " + ", ".join(fields)


def server_proof(use: Use, credential: Credential) -> str | None:
    """Return the rspauth that a server which knows the secret sends (RFC 7616 3.5).

    None with auth-int: that proof is over the body of the response, which no conversation sees.
    """
    if use.offer.qop == "auth-int":
        return None
    return _key_digest(use, credential, use.offer.algorithm.digest("", use.request.target))


def _response(use: Use, credential: Credential) -> str:
    digest = use.offer.algorithm.digest
    request = use.request
    if use.offer.qop == "auth-int":
        return _key_digest(
            use, credential, digest(request.method, request.target, digest(request.body))
        )
    return _key_digest(use, credential, digest(request.method, request.target))


def _key_digest(use: Use, credential: Credential, a2_hash: str) -> str:
    """Return KD(H(A1), …) around H(A2) (RFC 7616 3.4.1; without qop RFC 2617 3.2.2.1)."""
    offer = use.offer
    digest = offer.algorithm.digest
    a1_hash = digest(user_name(credential), offer.realm, password_bytes(credential, controls=True))
    if offer.algorithm.session:
        a1_hash = digest(a1_hash, use.key_nonce, use.key_cnonce)
    if offer.qop is None:
        return digest(a1_hash, use.nonce, a2_hash)
    return digest(a1_hash, use.nonce, use.nc, use.cnonce, offer.qop, a2_hash)


def _user_fields(offer: Offer, name: str) -> tuple[str, ...]:
    """Say who it is (RFC 7616 3.4, 3.4.4).

    A name beyond ASCII goes as `username*`. A challenge without a trace of RFC 7616 comes from a
    server that cannot know that parameter and would miss `username`; it gets plain UTF-8, which
    quoted-string allows (obs-text) and browsers send.
    """
    if offer.userhash:
        return (f'username="{offer.algorithm.digest(name, offer.realm)}"',)
    if name.isascii() or not offer.modern:
        return (f"username={_quoted(name)}",)
    return (f"username*=UTF-8''{quote(name, safe=_ATTR_CHARS)}",)


def _quoted(text: str) -> str:
    return '"' + _SPECIAL.sub(r"\\\1", text) + '"'
