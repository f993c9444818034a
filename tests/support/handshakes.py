"""NTLM and SPNEGO by hand on one connection, by pyspnego: what curl cannot send to gss-ntlmssp."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import spnego

_OPTIONS = {
    "NTLM": spnego.NegotiateOptions.none,
    "Negotiate": spnego.NegotiateOptions.use_negotiate,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    #: How many requests it took.
    legs: int = 1


class Line:
    """A connection to a server or a proxy, on which one request follows the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def ask(
        self, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> Heard:
        """Send a request and read its answer; a tunnel's has no body."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = http.client.HTTPResponse(self._socket, method=method)
        answer.begin()
        stands = method == "CONNECT" and answer.status == 200
        body = b"" if stands else answer.read()
        return Heard(status=answer.status, headers=answer.headers, body=body)

    def shake(
        self,
        target: str,
        scheme: str,
        user: str,
        password: str,
        *,
        method: str = "GET",
        proxy: bool = False,
    ) -> Heard:
        """Ask with tokens until the server is satisfied or has no more to say.

        *scheme* is `NTLM`, or `Negotiate` for NTLM in SPNEGO, which needs an environment in which
        Kerberos cannot begin.

        Raises:
            spnego.exceptions.InvalidTokenError: SPNEGO's last word was a refusal.
        """
        sends, hears = ("Authorization", "WWW-Authenticate")
        if proxy:
            sends, hears = ("Proxy-Authorization", "Proxy-Authenticate")
        context = spnego.client(
            spnego.Password(user, password),
            hostname="localhost",
            service="HTTP",
            protocol="ntlm" if scheme == "NTLM" else "negotiate",
            options=_OPTIONS[scheme],
        )
        legs = 0
        token: bytes | None = None
        while True:
            legs += 1
            sent = base64.b64encode(context.step(token) or b"").decode()
            heard = self.ask(target, {sends: f"{scheme} {sent}"}, method=method)
            token = _token(heard.headers.get_all(hears, []), scheme)
            if token is None or heard.status == 200 or context.complete:
                return replace(heard, legs=legs)

    @contextlib.contextmanager
    def secured(self, cacert: Path) -> Iterator[Line]:
        """Begin TLS, as with a tunnel's other end."""
        context = ssl.create_default_context(cafile=cacert)
        with context.wrap_socket(self._socket, server_hostname="localhost") as sock:
            yield Line(sock)


@contextlib.contextmanager
def line(url: str) -> Iterator[Line]:
    """Connect to the host and port of a URL."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 10.0) as sock:
        yield Line(sock)


def _token(values: list[str], scheme: str) -> bytes | None:
    for value in values:
        name, _, token = value.partition(" ")
        if name == scheme and token:
            return base64.b64decode(token)
    return None
