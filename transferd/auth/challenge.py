"""Reads WWW-Authenticate, Proxy-Authenticate and (Proxy-)Authentication-Info (RFC 9110 11).

Whatever a server sends, reading it neither raises nor takes more than linear time: what is not
understood is left out, and the rest of the line is read on. A scheme whose parameters are garbled
is still a scheme that was offered; whether it can be answered is for the scheme to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One scheme that a server offers."""

    #: Lower case.
    scheme: str
    #: Names in lower case, values unquoted. Of a name that occurs twice the first value holds: a
    #: server must not send two (RFC 9110 11.2), and nothing appended may replace what stood there.
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    token68: str | None = field(default=None, repr=False)
    #: The scheme as the server spelt it, for messages.
    name: str = field(default="", compare=False)
    #: What follows `Passport1.4` on its line, as it came: it is a list of its own grammar, and goes
    #: on to the login server byte for byte (MS-PASS 2.2.8).
    raw: str = field(default="", repr=False)


#: CR, LF and NUL have to be replaced by SP (RFC 9110 5.5), which unfolds obs-fold too; the other
#: controls but HTAB are as invalid, and are treated alike.
_BLANKED = {code: " " for code in (*range(0x20), 0x7F) if code != 0x09}

_OWS = " \t"
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = r'"((?:[^"\\]|\\.)*+)"'

# Possessive quantifiers throughout: nothing is ever scanned twice.

#: A line of Passport's is one challenge to its end (MS-PASS 2.2.8): bare words of its list would
#: pass for schemes.
_PASSPORT = re.compile(r"(Passport1\.4)(?:[ \t]++(.*+))?", re.IGNORECASE | re.DOTALL)
#: One list element; a quoted string that is not closed reaches to the end of the line.
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
#: An unquoted value may have any visible characters: nonces in bare base64 are seen in the wild.
_PARAM = re.compile(rf'({_NAME})[ \t]*+=[ \t]*+(?:{_QUOTED}|([^\s",]++))', re.DOTALL)
#: What follows a scheme never begins with "=", or the "scheme" was the name of a garbled parameter.
_SCHEME = re.compile(rf"({_NAME})(?:[ \t]++(?!=)(.++))?", re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]++=*+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge of every header line, in order.

    A challenge does not go on from one line to the next: lines are joined between challenges
    (RFC 9110 5.3), never within one.
    """
    return tuple(challenge for line in lines for challenge in _challenges(line))


def parse_params(lines: Iterable[str]) -> Mapping[str, str]:
    """Read a list of parameters without a scheme, as in Authentication-Info (RFC 7615 3).

    Names in lower case, values unquoted; the first of a name holds.
    """
    params: dict[str, str] = {}
    for line in lines:
        for element in _elements(line):
            _add_param(params, element)
    return MappingProxyType(params)


def _challenges(line: str) -> Iterator[Challenge]:
    passport = _PASSPORT.fullmatch(line.translate(_BLANKED).strip(_OWS))
    if passport is not None:
        yield Challenge(scheme=passport[1].lower(), name=passport[1], raw=passport[2] or "")
        return
    name: str | None = None
    params: dict[str, str] = {}
    token68: str | None = None
    for element in _elements(line):
        if _add_param({} if name is None else params, element):
            continue
        match = _SCHEME.fullmatch(element)
        if match is None:
            continue
        if name is not None:
            yield _challenge(name, params, token68)
        name, rest = match[1], match[2] or ""
        params, token68 = {}, None
        if _TOKEN68.fullmatch(rest):
            token68 = rest
        else:
            _add_param(params, rest)
    if name is not None:
        yield _challenge(name, params, token68)


def _challenge(name: str, params: dict[str, str], token68: str | None) -> Challenge:
    return Challenge(
        scheme=name.lower(), params=MappingProxyType(params), token68=token68, name=name
    )


def _elements(line: str) -> Iterator[str]:
    """Split at the commas that are not quoted; empty elements are no elements (RFC 9110 5.6.1)."""
    for match in _ELEMENT.finditer(line.translate(_BLANKED)):
        if element := match[0].strip(_OWS):
            yield element


def _add_param(params: dict[str, str], element: str) -> bool:
    """Add *element* to *params* if it is a parameter, and say whether it is one."""
    match = _PARAM.fullmatch(element)
    if match is None:
        return False
    name, quoted, bare = match.groups()
    params.setdefault(name.lower(), bare if quoted is None else _ESCAPED.sub(r"\1", quoted))
    return True
