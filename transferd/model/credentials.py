"""Targets, schemes and credentials (BG_AUTH_TARGET, BG_AUTH_SCHEME, BG_AUTH_CREDENTIALS).

A secret has no repr, no equality with text and no JSON; it is wiped when its holder is done.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from transferd.model.errors import BadRequest


class Target(enum.StrEnum):
    """Who asks for the credential."""

    SERVER = "server"
    PROXY = "proxy"


class Scheme(enum.StrEnum):
    """How the credential is presented."""

    BASIC = "basic"
    DIGEST = "digest"
    NTLM = "ntlm"
    NEGOTIATE = "negotiate"
    PASSPORT = "passport"


#: Schemes that the worker can speak.
AVAILABLE_SCHEMES = frozenset({Scheme.BASIC, Scheme.DIGEST})


class Secret:
    """A text that must not be seen: kept in one mutable buffer, so that it can be wiped.

    Python makes copies of its own (the decoded JSON, the encoded header); those are short-lived
    and cannot be reached from here. The long-lived copy is this one.
    """

    __slots__ = ("_buffer",)

    def __init__(self, text: str | bytes | bytearray) -> None:
        self._buffer = bytearray(text.encode() if isinstance(text, str) else text)

    def reveal(self) -> str:
        """Return the text; the caller must not keep it."""
        return self._buffer.decode()

    def reveal_bytes(self) -> bytes:
        """Return the text in UTF-8; the caller must not keep it."""
        return bytes(self._buffer)

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and empty it."""
        for index in range(len(self._buffer)):
            self._buffer[index] = 0
        self._buffer.clear()

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialLabel:
    """What may be told of a credential: everything but the password."""

    target: Target
    scheme: Scheme
    username: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credential:
    """One identity for one (target, scheme); a job holds at most one of each."""

    target: Target
    scheme: Scheme
    username: str
    password: Secret = field(repr=False)

    @property
    def label(self) -> CredentialLabel:
        """The part that may be told."""
        return CredentialLabel(target=self.target, scheme=self.scheme, username=self.username)


def parse_target(text: str) -> Target:
    """Read a target in any case.

    Raises:
        BadRequest: `unknown_target`.
    """
    try:
        return Target(text.lower())
    except ValueError:
        raise BadRequest(
            "unknown_target", f"cannot use target {text[:40]!r}; it is one of server, proxy"
        ) from None


def parse_scheme(text: str) -> Scheme:
    """Read a scheme in any case (the sample compares without case).

    Raises:
        BadRequest: `unknown_scheme`, or `scheme_unavailable` for one that this version lacks.
    """
    try:
        scheme = Scheme(text.lower())
    except ValueError:
        known = ", ".join(Scheme)
        raise BadRequest(
            "unknown_scheme",
            f"invalid authentication scheme {text[:40]!r}; it is one of {known}",
        ) from None
    if scheme not in AVAILABLE_SCHEMES:
        able = ", ".join(sorted(AVAILABLE_SCHEMES))
        raise BadRequest(
            "scheme_unavailable",
            f"cannot use scheme {scheme} in this version of transferd; use one of {able}",
        )
    return scheme
