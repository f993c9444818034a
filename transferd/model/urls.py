"""URLs that a caller names: what is fetched, through which proxy, and who knows a Passport.

Nothing is escaped here (BITS.md F01): a URL goes out as it came in, but for its fragment, which
never leaves a client (RFC 9110 4.2.4), its `user:password@`, which belongs into the vault, and a
host in another alphabet, which the network knows by its ASCII name only (RFC 5890). Messages never
quote what stands before an `@` nor a query: both may be secrets.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias
from urllib.parse import unquote_to_bytes

from transferd.model.errors import BadRequest
from transferd.model.limits import Limits
from transferd.model.origins import is_loopback

#: For a job that goes through no proxy, whatever its owner's environment says.
DIRECT = "direct"

#: Scheme, host in lower case, port (RFC 6454 4).
Origin: TypeAlias = tuple[str, str, int]

_PORTS = {"http": 80, "https": 443}
_SHOWN = 80

_GENERIC = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<authority>//[^/?#]*)?(?P<rest>[^#]*)(?:#.*)?",
    re.DOTALL,
)
#: Would end the request line or is read differently by different parsers.
_FORBIDDEN = re.compile(r'[\x00-\x20\x7f"<>\\]')
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A checked URL in parts."""

    #: Without userinfo and fragment.
    url: str
    #: Who may see a secret that is meant for this URL.
    origin: Origin
    #: `user:password` as it stood in the URL, still escaped.
    userinfo: str | None = field(repr=False)


class _Flaw(Exception):
    """Why a text is not a URL for us."""


def check_remote(text: str, limits: Limits) -> Address:
    """Take apart the URL of a file.

    Raises:
        BadRequest: `url_too_long`, `url_scheme_unsupported`, `url_invalid`.
    """
    if len(text) > limits.url_chars:
        raise BadRequest(
            "url_too_long",
            f"cannot use a URL of {len(text)} characters; at most {limits.url_chars} are allowed",
        )
    match = _GENERIC.fullmatch(text)
    if match is not None and (scheme := match["scheme"].lower()) not in _PORTS:
        raise BadRequest(
            "url_scheme_unsupported",
            f"cannot fetch from a {scheme[:_SHOWN]!r} URL; use http or https",
        )
    try:
        return _address(match, text)
    except _Flaw as flaw:
        raise BadRequest("url_invalid", f"cannot use URL {shown(text)}: {flaw}") from None


def check_proxy(text: str, limits: Limits) -> Address | None:
    """Take apart a proxy's URL, `http[s]://[user:password@]host:port`; None for `direct`.

    Raises:
        BadRequest: `proxy_invalid`.
    """
    if text.lower() == DIRECT:
        return None

    def refuse(why: str) -> NoReturn:
        raise BadRequest("proxy_invalid", f"cannot use proxy {shown(text)}: {why}")

    if len(text) > limits.proxy_chars:
        refuse(f"it has {len(text)} characters; at most {limits.proxy_chars} are allowed")
    match = _GENERIC.fullmatch(text)
    if match is None or match["scheme"].lower() not in _PORTS:
        refuse("it must be http://host:port or https://host:port, or `direct` for none")
    try:
        address = _address(match, text)
    except _Flaw as flaw:
        refuse(str(flaw))
    if match["rest"] not in ("", "/") or not re.search(r":[0-9]+$", match["authority"]):
        refuse("it must name a port, with nothing after it")
    return Address(
        url=address.url.removesuffix("/"), origin=address.origin, userinfo=address.userinfo
    )


def check_configuration_url(text: str, limits: Limits) -> str:
    """Check where the address of a Passport login server is asked for.

    Whoever can change that answer gets passwords: it comes over https, or from this machine.

    Raises:
        BadRequest: `configuration_url_invalid`.
    """
    try:
        address = check_remote(text, limits)
    except BadRequest as error:
        raise BadRequest("configuration_url_invalid", error.detail) from None
    scheme, host, _ = address.origin
    if address.userinfo is not None:
        why = "it must not hold a user and password"
    elif scheme != "https" and not is_loopback(host.strip("[]")):
        why = "it must be https (http only to this machine, as 127.0.0.1)"
    else:
        return address.url
    raise BadRequest(
        "configuration_url_invalid",
        f"cannot use {shown(text)} as the Passport configuration: {why}",
    )


def check_login_host(text: str) -> str:
    """Check the `host` or `host:port` of a Passport login server; returns it in lower case.

    Raises:
        BadRequest: `login_host_invalid`.
    """
    try:
        if "://" in text:
            place = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
            raise _Flaw(f"it is a URL; write the host alone: {place[:_SHOWN]}")
        name, port = _split_port(text)
        host = _host(name).lower()
    except _Flaw as flaw:
        how = "" if "://" in text else "; write host or host:port"
        raise BadRequest(
            "login_host_invalid",
            f"cannot use Passport login host {shown(text)}: {flaw}{how}",
        ) from None
    return host if port is None else f"{host}:{port}"


def split_userinfo(userinfo: str) -> tuple[str, str]:
    """Return user and password of a URL's userinfo, unescaped.

    Raises:
        BadRequest: `credentials_incomplete` (no colon), `url_invalid` (not UTF-8).
    """
    username, colon, password = userinfo.partition(":")
    if not colon:
        raise BadRequest(
            "credentials_incomplete",
            "cannot use a URL with a user but no password; write user:password@ or set credentials",
        )
    try:
        return unquote_to_bytes(username).decode(), unquote_to_bytes(password).decode()
    except UnicodeDecodeError:
        raise BadRequest(
            "url_invalid", "cannot use the user and password of the URL: they are not UTF-8"
        ) from None


def shown(url: str) -> str:
    """Quote a URL for people, without what may be secret in it."""
    head, at, tail = url.rpartition("@")
    if at:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", head)
        tail = f"{scheme[0] if scheme else ''}…@{tail}"
    visible = re.split(r"[?#]", tail, maxsplit=1)[0]
    return repr(visible[:_SHOWN]) + ("…" if len(visible) > _SHOWN or visible != tail else "")


def _address(match: re.Match[str] | None, text: str) -> Address:
    if match is None or match["authority"] is None:
        raise _Flaw("it must look like https://host/path")
    if _FORBIDDEN.search(text):
        raise _Flaw("spaces, control characters, quotes, <, > and \\ must be percent-encoded")
    scheme, rest = match["scheme"].lower(), match["rest"]
    if not rest.isascii():
        raise _Flaw("nothing is escaped here; percent-encode other characters than ASCII")
    userinfo, at, place = match["authority"][2:].rpartition("@")
    if _BROKEN_ESCAPE.search(rest) or _BROKEN_ESCAPE.search(userinfo):
        raise _Flaw("a % must be followed by two hexadecimal digits; write %25 for a percent sign")
    name, port = _split_port(place)
    host = _host(name)
    return Address(
        url=f"{scheme}://{host}{'' if port is None else f':{port}'}{rest}",
        origin=(scheme, host.lower(), port or _PORTS[scheme]),
        userinfo=userinfo if at else None,
    )


def _split_port(place: str) -> tuple[str, int | None]:
    bracket = place.rfind("]")
    colon = place.find(":", bracket + 1)
    if colon < 0:
        return place, None
    port = place[colon + 1 :]
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise _Flaw("the port must be a number from 1 to 65535")
    return place[:colon], int(port)


@functools.lru_cache(maxsize=1024)
def _host(name: str) -> str:
    """Return a host as the network knows it: a name, IPv4 or bracketed IPv6 (RFC 3986 3.2.2)."""
    if name.startswith("["):
        try:
            if name.endswith("]") and "%" not in name:
                return f"[{ipaddress.IPv6Address(name[1:-1])}]"
        except ValueError:
            pass
        raise _Flaw("the host is not a valid IPv6 address")
    if not name.isascii():
        name = _ascii_name(name)
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _Flaw("the host is not a valid name")
    # Other spellings of an IPv4 address (0x7f.1) mean different hosts to different resolvers.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise _Flaw("the host is not a valid IPv4 address") from None
    return name


def _ascii_name(name: str) -> str:
    import idna  # its tables are needed for the fewest URLs

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        raise _Flaw("the host is not a valid international name") from None
