"""A server that keeps every byte that it was sent, and a search for secrets among them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import SupportsIndex
from urllib.parse import unquote_to_bytes

from tests.support.origin import HEAD_BYTES, Origin, Seen

#: The fields of a request that carries no secret.
PLAIN_FIELDS = frozenset({"host", "user-agent", "accept", "accept-encoding", "range", "if-range"})

#: What tokens begin with, or have in them.
_TOKENS = {
    "NTLM token": b"NTLMSSP\0",
    # Their object identifiers: RFC 4178 3.2, RFC 4121 1.
    "SPNEGO token": bytes.fromhex("2b0601050502"),
    "Kerberos token": bytes.fromhex("2a864886f712010202"),
}
_FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):", re.MULTILINE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{8,}={0,2}")


class Recorder(Origin):
    """An origin that forgets nothing."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(host, tls=tls)
        #: Every byte, of all connections; where there is TLS, what was in it.
        self.heard = bytearray()

    def forget(self) -> None:
        """Begin anew."""
        self.heard.clear()
        self.seen.clear()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(_Ear(self.heard), self._connected),
            self.host,
            self.port,
            ssl=self._tls,
        )


class _Ear(asyncio.StreamReader):
    """Keeps what it is fed, read or not."""

    def __init__(self, heard: bytearray) -> None:
        super().__init__(limit=HEAD_BYTES)
        self._heard = heard

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self._heard += bytes(data)
        super().feed_data(data)


def traces(heard: bytes, canaries: Mapping[str, str]) -> set[str]:
    """Say what there is of secrets in requests: `field NAME`, kinds of tokens, names of canaries.

    A canary is found as it is, percent-encoded, in UTF-16, and within base64.
    """
    found = {
        f"field {name.decode().lower()}"
        for name in _FIELD.findall(heard)
        if name.decode().lower() not in PLAIN_FIELDS
    }
    views = list(_views(heard))
    found |= {kind for kind, mark in _TOKENS.items() if any(mark in view for view in views)}
    for name, canary in canaries.items():
        forms = [canary.encode(), canary.encode("utf-16-le")]
        if any(form in view for form in forms for view in views):
            found.add(name)
    return found


def heads(requests: Iterable[Seen]) -> bytes:
    """Return requests as they were sent, for `traces`."""
    lines = (
        f"{seen.method} {seen.target} HTTP/1.1\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in seen.headers)
        for seen in requests
    )
    return "\r\n".join(lines).encode("latin-1")


def _views(heard: bytes) -> Iterator[bytes]:
    yield heard
    yield unquote_to_bytes(heard)
    for run in _BASE64.findall(heard):
        try:
            yield base64.b64decode(run + b"=" * (-len(run) % 4))
        except binascii.Error:
            continue
