"""URLs in parts, and the origin that one belongs to.

URLs are kept byte for byte: a signed URL that is quoted again is another URL.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}

_LOOPBACK_4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6 = ipaddress.IPv6Network("::1/128")

_AUTHORITY = re.compile(
    r"(?:(?P<userinfo>.*)@)?(?P<host>\[[^\[\]@]*\]|[^\[\]@:]*)(?::(?P<port>[0-9]{0,5}))?",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 9110 4.3.1), so that two spellings of one are equal.

    `host` is in lower case and in ASCII, without a final dot; an IPv6 address is compressed and
    has no brackets.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


class Parts(NamedTuple):
    """A URI reference without its fragment."""

    #: In lower case.
    scheme: str | None
    authority: str | None
    path: str
    #: With its "?", so that an empty query is told from none.
    query: str


@lru_cache(64)
def origin(url: str) -> Origin:
    """Return the origin of an absolute URL.

    Raises:
        ValueError: it is not an http or https URL, it holds userinfo, or its host or port is none.
    """
    parts = split(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("it is neither an http nor an https URL")
    host, port = host_and_port(parts.authority or "")
    return Origin(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port)


@lru_cache(64)
def is_loopback(host: str) -> bool:
    """Whether *host* names this machine for sure: 127.0.0.0/8, ::1 or localhost.

    Other names are not looked up: what they resolve to can change.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address in (_LOOPBACK_4 if address.version == 4 else _LOOPBACK_6)


def shielded(place: Origin) -> bool:
    """Whether nobody on the way can read what goes there: https, or this machine."""
    return place.scheme == "https" or is_loopback(place.host)


def readable(url: str) -> str:
    """Return *url* for messages: without userinfo, query and fragment, which may hold secrets."""
    parts = split(url)
    scheme = f"{parts.scheme}:" if parts.scheme else ""
    authority = f"//{parts.authority.rpartition('@')[2]}" if parts.authority is not None else ""
    return f"{scheme}{authority}{parts.path}"


def split(url: str) -> Parts:
    """Take a reference apart as RFC 3986 appendix B does; every text has parts."""
    rest, mark, query = url.partition("#")[0].partition("?")
    scheme: str | None = None
    authority: str | None = None
    before, colon, after = rest.partition(":")
    if colon and "/" not in before:
        scheme, rest = before.lower(), after
    if rest.startswith("//"):
        authority, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    return Parts(scheme, authority, rest, mark + query)


def resolve(base: Parts, reference: Parts) -> Parts:
    """Transform *reference* as RFC 3986 5.2.2 says.

    An absolute path is taken as it is, dot segments included: they may be part of a signature.
    """
    if reference.scheme is not None:
        return reference
    if reference.authority is not None:
        return reference._replace(scheme=base.scheme)
    if not reference.path:
        return base._replace(query=reference.query or base.query)
    path = reference.path
    if not path.startswith("/"):
        directory, _, _ = base.path.rpartition("/")
        path = _without_dots(f"{directory}/{path}")
    return base._replace(path=path, query=reference.query)


def _without_dots(path: str) -> str:
    """Remove dot segments from an absolute path (RFC 3986 5.2.4)."""
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def host_and_port(authority: str) -> tuple[str, int | None]:
    """Return the host of an authority as an Origin has it, and its port if it names one.

    Raises:
        ValueError: it holds userinfo, or its host or port is none.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ValueError("its host or port cannot be read")
    if match["userinfo"] is not None:
        raise ValueError("it has a user name in it")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("its port is not between 1 and 65535")
    return _host(match["host"]), port


def _host(text: str) -> str:
    if text.startswith("["):
        # A zone says something of one machine's interfaces; it has no place in an origin.
        if "%" in text:
            raise ValueError("its address has a zone")
        return ipaddress.IPv6Address(text[1:-1]).compressed
    name = text if text.isascii() else _ascii_name(text)
    name = name.lower().removesuffix(".")
    if not _NAME.fullmatch(name):
        raise ValueError("its host is not a host name")
    return name


def _ascii_name(text: str) -> str:
    """Return an international name in its ASCII form.

    A name that comes back changed (ß, full-width letters) is refused: two standards read it as
    two different hosts.
    """
    name = text.encode("idna").decode("ascii")
    if name.encode("ascii").decode("idna") != text.lower():
        raise ValueError("its host is not spelt in the one way that all agree on")
    return name
