"""Security contexts: a token in, a token out, whatever mechanism makes them.

pyspnego makes them, and is loaded by the first who asks for one. What its errors and those of the
libraries beneath it say is read here: a status, with nothing of a token or a secret in it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transferd.auth.challenge import parse_challenges
from transferd.auth.flow import Place

if TYPE_CHECKING:
    from spnego import ContextProxy

#: What a GSS library says where it has nothing to say.
_EMPTY = frozenset({"", "Success", "Unknown error"})
#: GSS_S_CONTEXT_EXPIRED (RFC 2744 3.9.1).
_CONTEXT_EXPIRED = 12 << 16


@dataclass(frozen=True, slots=True)
class Service:
    """Whom a token is for: a service at a host (RFC 2743 4.1, RFC 4559 4.1)."""

    kind: str
    host: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.host}"


def service_at(place: Place, name: str | None = None) -> Service:
    """Return the service at *place*: `HTTP/host`, or what *name* (`HTTP/host` or `host`) says.

    The host is neither looked up nor completed here. Kerberos asks for the name that DNS has for it
    instead, unless krb5.conf forbids that (`dns_canonicalize_hostname`, `rdns`; BITS.md NG4).
    """
    kind, _, host = (name or place.host).rpartition("/")
    # Services are told by case; HTTP is what everybody writes as he likes.
    return Service("HTTP" if kind.lower() in ("", "http") else kind, host.removesuffix("."))


@dataclass(frozen=True, slots=True)
class Status:
    """What a library reports: for people, and its own code (a krb5 error code, or an errno)."""

    text: str
    code: int | None = None


class StepFailed(Exception):
    """A token could not be read or made."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = status


class Context:
    """One exchange of tokens with one peer. It is not used again for another."""

    __slots__ = ("_outlived", "_proxy")

    def __init__(self, proxy: ContextProxy) -> None:
        self._proxy = proxy
        #: The last token was right, and came after the end of the ticket.
        self._outlived = False

    @property
    def complete(self) -> bool:
        """Whether no token is missing any more."""
        return self._outlived or self._proxy.complete

    def step(self, token: bytes | None, binding: bytes | None = None) -> bytes | None:
        """Read the peer's token (None: there is none yet) and return the one to send, if any.

        *binding* is the channel binding of the connection that the answer goes over.

        Raises:
            StepFailed: the token is wrong, or refuses.
        """
        from spnego.channel_bindings import GssChannelBindings

        bindings = None if binding is None else GssChannelBindings(application_data=binding)
        try:
            return self._proxy.step(token, channel_bindings=bindings)
        except Exception as error:
            if token is not None and _outlived(error):
                self._outlived = True
                return None
            # Garbage raises whatever its parser happens to trip over.
            raise StepFailed(status_of(error)) from error


def quieten() -> None:
    """Keep pyspnego from logging: at its debug level it writes down every token."""
    logging.getLogger("spnego").setLevel(logging.WARNING)


def status_of(error: Exception) -> Status:
    """Return what an exception of pyspnego, gssapi or krb5 reports.

    pyspnego wraps; the innermost error knows most.
    """
    if isinstance(error, StepFailed):
        return error.status
    error = _innermost(error)
    minor = getattr(error, "min_code", None)
    if isinstance(minor, int):
        return _gss_status(error, minor)
    code = getattr(error, "err_code", None)
    if isinstance(code, int):
        return Status(str(error).removesuffix(f" {code}"), code)
    if isinstance(error, OSError):
        return Status(error.strerror or type(error).__name__, error.errno)
    # pyspnego's own errors are sentences; of others only the name is sure to hold no token.
    own = type(error).__module__.startswith("spnego.")
    return Status(str(error) if own else f"unreadable ({type(error).__name__})")


def _innermost(error: Exception) -> Exception:
    while isinstance(inner := getattr(error, "base_error", None), Exception):
        error = inner
    return error


def _outlived(error: Exception) -> bool:
    """Whether a token was read and found right, but the context is older than its ticket.

    MIT judges a peer's last token whenever it comes. Asked for the flags of the context after that,
    as pyspnego does, it says that the context has expired; it says so of no other.
    """
    return getattr(_innermost(error), "maj_code", None) == _CONTEXT_EXPIRED


def _gss_status(error: Exception, minor: int) -> Status:
    major = int(getattr(error, "maj_code", 0))
    said = _statuses(error, minor, major=False)
    if not said.isdisjoint(_EMPTY):
        said = _statuses(error, major, major=True)
    # Minor codes are krb5's error codes, without their sign.
    code = minor - (1 << 32) if minor >= 1 << 31 else minor
    return Status(f"{', '.join(sorted(said))} (GSS status {major}/{minor})", code)


def _statuses(error: Exception, code: int, *, major: bool) -> set[str]:
    statuses: Iterable[object] = getattr(error, "get_all_statuses", lambda *_: ())(code, major)
    return set(map(str, statuses)) or {""}


def written(scheme: str, token: bytes) -> str:
    """Return *token* as credentials in a header."""
    return f"{scheme} {base64.b64encode(token).decode()}"


@dataclass(frozen=True, slots=True)
class Heard:
    """What header lines say of one scheme."""

    #: Whether they name it at all.
    offered: bool
    token: bytes | None = None


def heard(lines: Iterable[str], scheme: str) -> Heard:
    """Read the token of *scheme* (lower case) from lines of challenges.

    Raises:
        StepFailed: what stands there is no token.
    """
    lines = tuple(lines)
    found = [challenge for challenge in parse_challenges(lines) if challenge.scheme == scheme]
    for token68 in (challenge.token68 for challenge in found):
        if token68 is not None:
            try:
                return Heard(True, base64.b64decode(token68, validate=True))
            except binascii.Error:
                raise StepFailed(Status("its token is no base64")) from None
    garbage = re.compile(rf"\s*{scheme}[ \t]+[^\s,]", re.IGNORECASE)
    if any(map(garbage.match, lines)):
        raise StepFailed(Status("what follows the scheme is no token"))
    return Heard(bool(found))
