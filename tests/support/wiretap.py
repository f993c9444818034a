"""A relay that reads along: which message went over which connection, with tokens told, not shown.

It stands before a server (or a proxy) on a port of its own, passes every byte on, and notes the
head of each HTTP message. Bodies are not looked at, and neither is what runs inside TLS.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_HEAD = re.compile(
    rb"\A((?:HTTP/1\.[01] [0-9]{3}|[A-Z]+ \S+ HTTP/1\.[01])[^\r\n]*\r\n.*?\r\n)\r\n", re.S
)
_TELLING = (
    "www-authenticate",
    "proxy-authenticate",
    "authorization",
    "proxy-authorization",
    "authentication-info",
    "persistent-auth",
    "connection",
    "proxy-connection",
)
_TOKEN = re.compile(r"\b(NTLM|Negotiate|Basic) ([A-Za-z0-9+/]+=*)")
_PROOF = re.compile(r'\b(response|cnonce|nonce|opaque|rspauth|nextnonce)="?([^",]+)"?')
_NTLM_TYPES = {1: "negotiate", 2: "challenge", 3: "authenticate"}
_SPNEGO = {0x60: "SPNEGO first token", 0xA1: "SPNEGO response"}


@dataclass(frozen=True, slots=True)
class Message:
    """The head of one message."""

    #: 1 for the first connection that was accepted.
    connection: int
    from_client: bool
    line: str
    #: Those that have to do with authentication, as `Name: value`, tokens described.
    fields: tuple[str, ...]

    def __str__(self) -> str:
        arrow = ">" if self.from_client else "<"
        return "\n".join(
            f"[{self.connection}] {arrow} {text}" for text in (self.line, *self.fields)
        )


@dataclass(slots=True)
class Wiretap:
    """What was seen, in order."""

    port: int = 0
    messages: list[Message] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(map(str, self.messages))


@contextlib.asynccontextmanager
async def wiretap(port: int) -> AsyncIterator[Wiretap]:
    """Relay to *port* of this host; the relay's own port is that of the wiretap."""
    tap = Wiretap()
    numbers = itertools.count(1)
    relays: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        try:
            await _relay(tap, next(numbers), (reader, writer), port)
        finally:
            relays.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
        for relay in relays:
            relay.cancel()
        if relays:
            await asyncio.wait(relays)
        await server.wait_closed()


async def _relay(
    tap: Wiretap,
    number: int,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    port: int,
) -> None:
    reader, writer = client
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(tap, number, reader, far_writer, from_client=True))
                group.create_task(_pump(tap, number, far_reader, writer, from_client=False))
        finally:
            far_writer.close()
    except* OSError:
        pass
    finally:
        writer.close()


async def _pump(
    tap: Wiretap,
    number: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    from_client: bool,
) -> None:
    while data := await reader.read(65536):
        match = _HEAD.match(data)
        if match is not None:
            tap.messages.append(_message(number, match[1].decode("latin-1"), from_client))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _message(number: int, head: str, from_client: bool) -> Message:
    line, *fields = head.rstrip("\r\n").split("\r\n")
    told = (text for text in fields if text.partition(":")[0].lower() in _TELLING)
    return Message(number, from_client, line, tuple(map(describe, told)))


def describe(text: str) -> str:
    """Return a header line with every token replaced by what kind it is and how long."""
    text = _TOKEN.sub(lambda found: f"{found[1]} <{_kind(found[1], found[2])}>", text)
    return _PROOF.sub(lambda found: f'{found[1]}="…"', text)


def _kind(scheme: str, token: str) -> str:
    if scheme == "Basic":
        return "user and password"
    try:
        raw = base64.b64decode(token, validate=True)
    except binascii.Error:
        return "garbage"
    if raw.startswith(b"NTLMSSP\0") and len(raw) > 8:
        what = f"NTLM {_NTLM_TYPES.get(raw[8], '?')}"
    else:
        what = _SPNEGO.get(raw[0], "token") if raw else "empty"
        if b"NTLMSSP\0" in raw:
            what += " with NTLM inside"
        elif raw and raw[0] == 0x60:
            what += " with Kerberos inside"
    return f"{what}, {len(raw)} bytes"
