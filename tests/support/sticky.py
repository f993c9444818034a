"""A forward proxy that keeps connections to servers for each one of a client's, and guards it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from tests.support.origin import Seen, Wire, read_head
from tests.support.streams import Stream, join, listening

#: Given the connection and the value of Proxy-Authorization, the challenge; None: go on.
Guard: TypeAlias = Callable[[int, str | None], str | None]

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass
class StickyProxy:
    """Forwards and tunnels. What goes over one connection goes over one to each server."""

    guard: Guard | None = None
    #: Close the connection after a challenge, without saying so before.
    hangs_up: bool = False
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """What goes into a job's proxy setting."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StickyProxy]:
        """Serve until the block ends."""
        async with listening(self._connected) as self.port:
            yield self

    async def _connected(self, number: int, client: Stream) -> None:
        self.connections = number
        async with contextlib.AsyncExitStack() as stack:
            await self._serve(number, Wire(*client), stack)

    async def _serve(self, number: int, wire: Wire, stack: contextlib.AsyncExitStack) -> None:
        upstream: dict[str, Stream] = {}
        while wire.open:
            seen = read_head(await wire.reader.readuntil(b"\r\n\r\n"), number)
            self.seen.append(seen)
            value = seen.get("proxy-authorization")
            challenge = None if self.guard is None else self.guard(number, value)
            if challenge is not None:
                await wire.answer(407, [("Proxy-Authenticate", challenge)], b"who?\n")
                if self.hangs_up:
                    wire.close()
                continue
            target = f"//{seen.target}" if seen.method == "CONNECT" else seen.target
            place = urlsplit(target).netloc
            if place not in upstream:
                upstream[place] = await self._connect(place, stack)
            if seen.method == "CONNECT":
                await wire.raw(b"HTTP/1.1 200 Tunnel\r\n\r\n")
                return await join((wire.reader, wire.writer), upstream[place])
            await _forward(seen, wire, upstream[place])

    async def _connect(self, place: str, stack: contextlib.AsyncExitStack) -> Stream:
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)
        return reader, writer


async def _forward(seen: Seen, wire: Wire, server: Stream) -> None:
    reader, writer = server
    target = "/" + seen.target.split("/", 3)[3]
    lines = [f"{seen.method} {target} HTTP/1.1"]
    lines += [f"{n}: {v}" for n, v in seen.headers if not n.startswith("proxy-")]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    has_body = length is not None and seen.method != "HEAD"
    body = await reader.readexactly(int(length[1])) if length is not None and has_body else b""
    await wire.raw(head + body)
