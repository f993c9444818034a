"""What aiohttp, h11, OpenSSL and the kernel raise, as failures: translated here, once.

Messages name the peer, never a path, a query or a header.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeAlias

import aiohttp
import h11
from aiohttp.http_exceptions import BadHttpMessage, ContentLengthError, LineTooLong

from transferd.model.errors import ConnectionGone, TransferFailed
from transferd.model.failures import Failure


@dataclass(frozen=True, slots=True)
class Peer:
    """Who was talked to, as `host:port`."""

    server: str
    proxy: str | None = None

    def __str__(self) -> str:
        return f"{self.server} through proxy {self.proxy}" if self.proxy else self.server

    @property
    def between(self) -> Peer:
        """The proxy, as the one that is talked to itself."""
        return Peer(f"proxy {self.proxy}")


_ERRNO_CODES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ECONNREFUSED: ("connection_refused", "the connection was refused"),
        errno.ENETUNREACH: ("network_unreachable", "the network is unreachable"),
        errno.EHOSTUNREACH: ("network_unreachable", "the host is unreachable"),
        errno.ENETDOWN: ("network_unreachable", "the network is down"),
        errno.EADDRNOTAVAIL: ("network_unreachable", "no address of this host fits"),
        errno.EACCES: ("network_unreachable", "a local rule forbids it"),
        errno.EPERM: ("network_unreachable", "a local rule forbids it"),
        errno.ETIMEDOUT: ("connect_timeout", "no answer"),
        errno.ECONNRESET: ("connection_lost", "the connection was reset"),
        errno.ECONNABORTED: ("connection_lost", "the connection was aborted"),
        errno.EPIPE: ("connection_lost", "the connection was closed"),
        errno.ENOTCONN: ("connection_lost", "the connection was closed"),
    }
)


#: Alerts about what we are, not about what happens on the way (RFC 8446 6.2).
_REFUSALS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


def translate(error: Exception, peer: Peer) -> TransferFailed:
    """Return the failure that *error* means while *peer* is asked and answers."""
    return _look_up(_TABLE, error, peer)


def translate_opening(error: Exception, peer: Peer) -> TransferFailed:
    """Return the failure that *error* means while a connection is opened, to the proxy if any."""
    return _look_up(_OPENING, error, peer)


def translate_handshake(error: Exception, peer: Peer) -> TransferFailed:
    """Return the failure that *error* means while TLS begins with *peer*."""
    return _look_up(_HANDSHAKE, error, peer)


def gone(peer: Peer) -> ConnectionGone:
    """Return what is raised when a connection that had to be used is not there."""
    message = f"cannot go on with {peer}: the connection was closed in between"
    return ConnectionGone(Failure(code="connection_lost", message=message))


def _translate_name(error: Exception, peer: Peer) -> tuple[str, str]:
    if peer.proxy is not None:
        return "proxy_unreachable", f"cannot reach proxy {peer.proxy}: the name does not resolve"
    return "name_not_resolved", f"cannot reach {peer.server}: the name does not resolve"


def _translate_certificate(error: Exception, peer: Peer) -> tuple[str, str]:
    reason = getattr(error, "verify_message", "") or "it does not verify"
    return "tls_failed", f"cannot trust the certificate of {peer.server}: {reason}"


def _translate_goodbye_in_handshake(error: Exception, peer: Peer) -> tuple[str, str]:
    reason = "the connection was closed during the TLS handshake"
    return "connection_lost", f"cannot reach {peer}: {reason}"


def _translate_tls(error: Exception, peer: Peer) -> tuple[str, str]:
    reason = (getattr(error, "reason", None) or "the handshake failed").replace("_", " ").lower()
    return "tls_failed", f"cannot talk TLS with {peer}: {reason}"


def _translate_tls_name(error: Exception, peer: Peer) -> tuple[str, str]:
    return "tls_failed", f"cannot talk TLS with {peer}: no certificate can be for that name"


def _translate_reset(error: Exception, peer: Peer) -> tuple[str, str]:
    code, reason = _os_reason(error)
    return code, f"cannot reach {peer}: {reason}"


def _translate_connect(error: Exception, peer: Peer) -> tuple[str, str]:
    code, reason = _os_reason(error)
    if peer.proxy is not None:
        return "proxy_unreachable", f"cannot reach proxy {peer.proxy}: {reason}"
    return code, f"cannot reach {peer}: {reason}"


def _translate_timeout(error: Exception, peer: Peer) -> tuple[str, str]:
    return "connect_timeout", f"cannot reach {peer}: no connection in time"


def _translate_silence(error: Exception, peer: Peer) -> tuple[str, str]:
    return "stalled", f"cannot read from {peer}: it sends nothing"


def _translate_payload(error: Exception, peer: Peer) -> tuple[str, str]:
    wrong = next((e for e in _causes(error) if isinstance(e, BadHttpMessage)), None)
    if wrong is None or isinstance(wrong, ContentLengthError) or "Not enough data" in str(wrong):
        return "connection_lost", f"cannot read from {peer}: the connection ended within the body"
    return "protocol_error", f"cannot read from {peer}: the body is not framed as HTTP/1.1"


def _translate_loss(error: Exception, peer: Peer) -> tuple[str, str]:
    refusal = next(filter(_is_refusal, _causes(error)), None)
    if isinstance(refusal, ssl.SSLError):
        return _translate_tls(refusal, peer)
    code, reason = _os_reason(error)
    if code not in ("connection_lost", "connect_timeout"):
        reason = "the connection was lost"
    return "connection_lost", f"cannot read from {peer}: {reason}"


def _is_refusal(error: BaseException) -> bool:
    """Whether a server refuses us by TLS: in TLS 1.3 it says so when our handshake is done."""
    # aiohttp's own kinds of it have no reason.
    reason = (isinstance(error, ssl.SSLError) and getattr(error, "reason", None)) or ""
    return "ALERT" in reason and any(what in reason for what in _REFUSALS)


def _translate_goodbye(error: Exception, peer: Peer) -> tuple[str, str]:
    return "connection_lost", f"cannot read from {peer}: it closed the connection without an answer"


def _translate_nonsense(error: Exception, peer: Peer) -> tuple[str, str]:
    if any(map(_is_too_large, _causes(error))):
        return "header_too_large", f"cannot read from {peer}: a header of its answer is too large"
    return "protocol_error", f"cannot read from {peer}: its answer is not HTTP/1.1"


def _is_too_large(error: BaseException) -> bool:
    hint = error.error_status_hint if isinstance(error, h11.ProtocolError) else None
    too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return isinstance(error, LineTooLong) or hint == too_large


def _translate_url(error: Exception, peer: Peer) -> tuple[str, str]:
    return "redirect_invalid", f"cannot reach {peer}: that is no address of an http server"


_Translation: TypeAlias = Callable[[Exception, Peer], tuple[str, str]]

_Table: TypeAlias = tuple[tuple[type[Exception], _Translation], ...]

#: The first line that fits counts, so that a class stands above its bases.
_TABLE: _Table = (
    (aiohttp.ConnectionTimeoutError, _translate_timeout),
    (aiohttp.ServerTimeoutError, _translate_silence),
    (aiohttp.ServerDisconnectedError, _translate_goodbye),
    (aiohttp.ClientPayloadError, _translate_payload),
    (aiohttp.ClientOSError, _translate_loss),
    (aiohttp.ClientConnectionError, _translate_loss),
    (aiohttp.ClientResponseError, _translate_nonsense),
    (aiohttp.InvalidURL, _translate_url),
    (aiohttp.ClientError, _translate_nonsense),
    (h11.RemoteProtocolError, _translate_nonsense),
    (EOFError, _translate_goodbye),
    (UnicodeError, _translate_name),
    (TimeoutError, _translate_silence),
    (OSError, _translate_loss),
)

_OPENING: _Table = (
    (aiohttp.InvalidURL, _translate_url),
    (socket.gaierror, _translate_name),
    (UnicodeError, _translate_name),
    (OSError, _translate_connect),
)

_HANDSHAKE: _Table = (
    (ssl.SSLCertVerificationError, _translate_certificate),
    (ssl.SSLEOFError, _translate_goodbye_in_handshake),
    (ssl.SSLZeroReturnError, _translate_goodbye_in_handshake),
    (ssl.SSLError, _translate_tls),
    (ValueError, _translate_tls_name),
    (ConnectionError, _translate_goodbye_in_handshake),
    (OSError, _translate_reset),
)


def _look_up(table: _Table, error: Exception, peer: Peer) -> TransferFailed:
    for kind, translated in table:
        if isinstance(error, kind):
            code, message = translated(error, peer)
            return TransferFailed(Failure(code=code, message=message))
    raise error


def _os_reason(error: Exception) -> tuple[str, str]:
    for cause in _causes(error):
        known = _ERRNO_CODES.get(cause.errno or 0) if isinstance(cause, OSError) else None
        if known is not None:
            return known
    # Several addresses failed in several ways.
    return "network_unreachable", "none of its addresses can be reached"


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__
