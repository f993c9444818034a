"""Messages of Passport 1.4 (MS-PASS 2.2), read and written.

Every message is the scheme and a plain list: parameters without a comma, some of them `name=value`.
Names are compared without case, order means nothing on the way in, and blanks around a parameter
are no part of it; the grammar's own examples need all three. Whatever a server sends, reading it
does not raise: what could not be sent back is left out, and of a name that occurs twice the first
value holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from transferd.auth.challenge import parse_challenges

#: The scheme as a Challenge names it.
SCHEME = "passport1.4"

_NAME = "Passport1.4"
_OWS = " \t"
#: Controls would break the header, and what was no UTF-8 cannot be written again as it came.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
#: More digits than any version has; `int` refuses some thousands.
_VERSION = re.compile(r"[0-9]{1,18}")

#: The value of da-status in an AS Challenge, and whether trying again is of no use. The grammar
#: (2.2.2) and the client's rules (3.1.5.2) spell the second one in two ways.
_FAILED = {"failed": False, "failed-noretry": True, "fail-noretry": True}
#: Parameters of an AS Challenge that are not a customtoken (2.2.2).
_KNOWN = frozenset({"da-status", "srealm", "prompt", "cburl", "cbtxt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a configuration server says (Update Configuration, 2.2.12)."""

    realm: str | None
    #: DALogin, absolute.
    login_url: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginChallenge:
    """What a login server wants before it grants anything (AS Challenge, 2.2.2)."""

    #: The parameters of the partner's challenge are wrong; no password will do.
    noretry: bool
    realm: str | None
    #: The user is to give the password anew.
    prompt: bool
    #: To be sent back in order.
    custom: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a login server grants (Token Response, 2.2.11)."""

    #: from-PP, byte for byte.
    ticket: str = field(repr=False)
    #: Where the ticket is to be shown.
    return_url: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an exchange began with: the request, and the partner's challenge to it."""

    verb: str
    url: str = field(repr=False)
    challenge: tuple[str, ...] = field(repr=False)

    @property
    def sent_url(self) -> str:
        """The URL as a parameter: without a comma, and without a fragment."""
        return self.url.partition("#")[0].replace(",", "%2C")

    @property
    def parameters(self) -> tuple[str, str]:
        """The request, as Token Request and Sign-in Request tell it."""
        return f"OrgVerb={self.verb}", f"OrgUrl={self.sent_url}"


# ── reading ────────────────────────────────────────────────────────────────────────────────


def partner_parameters(raw: str) -> tuple[str, ...]:
    """Return what of a partner's challenge goes on to the login server; () for one that cannot.

    The offer of another scheme that may stand in it is the client's alone (2.2.8).
    """
    if _UNSENDABLE.search(raw):
        return ()
    return tuple(
        parameter for parameter in _parameters(raw) if _name(parameter) != "negotiate2supportedif"
    )


def read_configuration(lines: Iterable[str]) -> Configuration | None:
    """Read the PassportURLs fields; None if they name no login server.

    One that is named without a scheme is asked with https.
    """
    parameters = _parameters(",".join(lines))
    login = _value(parameters, "dalogin")
    if not login:
        return None
    return Configuration(
        realm=_value(parameters, "darealm") or None,
        login_url=login if "://" in login else f"https://{login}",
        version=_version(parameters),
    )


def read_version_hint(lines: Iterable[str]) -> int:
    """Read the PassportConfig fields: the newest version of the configuration, 0 for unknown."""
    return _version(_parameters(",".join(lines)))


def read_login_challenge(lines: Iterable[str]) -> LoginChallenge | None:
    """Return the AS Challenge among the WWW-Authenticate fields of a login server."""
    for parameters in _messages(lines):
        noretry = _FAILED.get(_status(parameters))
        if noretry is not None:
            return LoginChallenge(
                noretry=noretry,
                realm=_value(parameters, "srealm"),
                prompt="prompt" in map(_name, parameters),
                custom=tuple(found for found in parameters if _name(found) not in _KNOWN),
            )
    return None


def read_grant(lines: Iterable[str]) -> Grant | None:
    """Return the Token Response among the Authentication-Info fields; None without a ticket."""
    for parameters in _messages(lines):
        ticket = _value(parameters, "from-pp")
        if _status(parameters) == "success" and ticket:
            return Grant(ticket=ticket, return_url=_value(parameters, "ru") or None)
    return None


def read_statuses(lines: Iterable[str]) -> frozenset[str]:
    """Return every da-status of the Authentication-Info fields, in lower case."""
    return frozenset(map(_status, _messages(lines)))


# ── writing ────────────────────────────────────────────────────────────────────────────────


def token_request(opening: Opening) -> str:
    """Write a Token Request (2.2.10)."""
    return _message("tname=", *opening.parameters, *opening.challenge)


def sign_in_request(
    opening: Opening, challenge: LoginChallenge, *, name: str, password: bytes, elapsed: int
) -> str:
    """Write a Sign-in Request (2.2.7).

    Args:
        opening: what the exchange began with.
        challenge: what the login server answered.
        name: an e-mail address.
        password: in UTF-8.
        elapsed: seconds since the user gave them.
    """
    return _message(
        f"sign-in={quote(name, safe='')}",
        f"pwd={quote(password, safe='')}",
        f"elapsed-time={elapsed}",
        *opening.parameters,
        *challenge.custom,
        *opening.challenge,
    )


def first_request(grant: Grant) -> str:
    """Write a First Authenticated Request (2.2.6)."""
    return _message(f"from-PP={grant.ticket}")


def _message(*parameters: str) -> str:
    return f"{_NAME} {','.join(parameters)}"


# ── lists ──────────────────────────────────────────────────────────────────────────────────


def _messages(lines: Iterable[str]) -> Iterator[Sequence[str]]:
    """Return the parameters of each line of Passport's; other lines are somebody else's."""
    for challenge in parse_challenges(lines):
        if challenge.scheme == SCHEME:
            yield _parameters(challenge.raw)


def _parameters(text: str) -> tuple[str, ...]:
    stripped = (parameter.strip(_OWS) for parameter in text.split(","))
    return tuple(found for found in stripped if found and not _UNSENDABLE.search(found))


def _name(parameter: str) -> str:
    return parameter.partition("=")[0].rstrip(_OWS).lower()


def _value(parameters: Iterable[str], name: str) -> str | None:
    """Return the first value of *name*, which is in lower case."""
    for parameter in parameters:
        _, mark, value = parameter.partition("=")
        if mark and _name(parameter) == name:
            return value.lstrip(_OWS)
    return None


def _status(parameters: Iterable[str]) -> str:
    return (_value(parameters, "da-status") or "").lower()


def _version(parameters: Iterable[str]) -> int:
    text = _value(parameters, "configversion") or ""
    return int(text) if _VERSION.fullmatch(text) else 0
