"""What aiohttp, OpenSSL and the kernel raise, as failures: translated here, once.

Messages name the peer, never a path, a query or a header.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, ContentLengthError, LineTooLong

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure


@dataclass(frozen=True, slots=True)
class Peer:
    """Who was talked to, as `host:port`."""

    server: str
    proxy: str | None = None

    def __str__(self) -> str:
        return f"{self.server} through proxy {self.proxy}" if self.proxy else self.server


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
    }
)


def translate(error: Exception, peer: Peer) -> TransferFailed:
    """Return the failure that *error* means for a transfer from *peer*."""
    for kind, translated in _TABLE:
        if isinstance(error, kind):
            code, message = translated(error, peer)
            return TransferFailed(Failure(code=code, message=message))
    raise error


def _translate_name(error: Exception, peer: Peer) -> tuple[str, str]:
    if peer.proxy is not None:
        return "proxy_unreachable", f"cannot reach proxy {peer.proxy}: the name does not resolve"
    return "name_not_resolved", f"cannot reach {peer.server}: the name does not resolve"


def _translate_proxy(error: Exception, peer: Peer) -> tuple[str, str]:
    _, reason = _os_reason(error)
    return "proxy_unreachable", f"cannot reach proxy {peer.proxy}: {reason}"


def _translate_certificate(error: Exception, peer: Peer) -> tuple[str, str]:
    cause = getattr(error, "certificate_error", error)
    reason = getattr(cause, "verify_message", "") or "it does not verify"
    return "tls_failed", f"cannot trust the certificate of {peer.server}: {reason}"


def _translate_handshake(error: Exception, peer: Peer) -> tuple[str, str]:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        reason = "the connection was closed during the TLS handshake"
        return "connection_lost", f"cannot reach {peer}: {reason}"
    reason = (getattr(cause, "reason", None) or "the handshake failed").replace("_", " ").lower()
    return "tls_failed", f"cannot talk TLS with {peer}: {reason}"


def _translate_connect(error: Exception, peer: Peer) -> tuple[str, str]:
    code, reason = _os_reason(error)
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
    code, reason = _os_reason(error)
    if code not in ("connection_lost", "connect_timeout"):
        reason = "the connection was lost"
    return "connection_lost", f"cannot read from {peer}: {reason}"


def _translate_goodbye(error: Exception, peer: Peer) -> tuple[str, str]:
    return "connection_lost", f"cannot read from {peer}: it closed the connection without an answer"


def _translate_nonsense(error: Exception, peer: Peer) -> tuple[str, str]:
    if any(isinstance(cause, LineTooLong) for cause in _causes(error)):
        return "header_too_large", f"cannot read from {peer}: a header of its answer is too large"
    return "protocol_error", f"cannot read from {peer}: its answer is not HTTP/1.1"


def _translate_url(error: Exception, peer: Peer) -> tuple[str, str]:
    return "redirect_invalid", f"cannot reach {peer}: that is no address of an http server"


_Translation = Callable[[Exception, Peer], tuple[str, str]]

#: The first line that fits counts, so that a class stands above its bases.
_TABLE: tuple[tuple[type[Exception], _Translation], ...] = (
    (aiohttp.ClientConnectorDNSError, _translate_name),
    (aiohttp.ClientProxyConnectionError, _translate_proxy),
    (aiohttp.ClientConnectorCertificateError, _translate_certificate),
    (aiohttp.ClientSSLError, _translate_handshake),
    (aiohttp.ClientConnectorError, _translate_connect),
    (aiohttp.ConnectionTimeoutError, _translate_timeout),
    (aiohttp.ServerTimeoutError, _translate_silence),
    (aiohttp.ServerDisconnectedError, _translate_goodbye),
    (aiohttp.ClientPayloadError, _translate_payload),
    (aiohttp.ClientOSError, _translate_loss),
    (aiohttp.ClientConnectionError, _translate_loss),
    (aiohttp.ClientResponseError, _translate_nonsense),
    (aiohttp.InvalidURL, _translate_url),
    (aiohttp.ClientError, _translate_nonsense),
    (socket.gaierror, _translate_name),
    (UnicodeError, _translate_name),
    (TimeoutError, _translate_silence),
    (OSError, _translate_loss),
)


def _os_reason(error: Exception) -> tuple[str, str]:
    for cause in (getattr(error, "os_error", None), *_causes(error)):
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
