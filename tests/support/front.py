"""A front before a real server: remembers who was admitted, and holds back what a test wants held.

Each connection of a client's has one to the server; who is asked for credentials and who is
admitted is the server's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.origin import Origin, Seen, Wire
from tests.support.streams import Stream, copy


@dataclass(frozen=True, slots=True)
class Visit:
    """A request, and what the server made of it."""

    seen: Seen
    status: int
    #: Whom the server calls so in `X-User`; None: it does not say.
    user: str | None


@dataclass(kw_only=True)
class Front:
    """A page for an Origin; the server is at a port of this host."""

    server: int
    #: The body of the next answer that has one stops there, until the client leaves.
    hold: int | None = None
    visits: list[Visit] = field(default_factory=list)
    #: Connections that were left while they were held, and how many requests had come until then.
    left: dict[int, int] = field(default_factory=dict)
    _servers: dict[int, Stream] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def running(self, path: str) -> AsyncIterator[Origin]:
        """Stand before the server until the block ends, for one path."""
        async with Origin().running() as origin:
            origin.pages[path] = self
            try:
                yield origin
            finally:
                for _, writer in self._servers.values():
                    writer.close()

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Pass a request on, and its answer back."""
        reader, writer = await self._server(seen.connection)
        lines = [f"{seen.method} {seen.target} HTTP/1.1", *(f"{n}: {v}" for n, v in seen.headers)]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = await reader.readuntil(b"\r\n\r\n")
        visit = Visit(seen, int(head[9:12]), _field(head, "x-user"))
        self.visits.append(visit)
        await wire.raw(head)
        size = int(_field(head, "content-length") or 0)
        if self.hold is None or visit.status not in (200, 206):
            await copy(reader, wire.writer, size)
            return
        held, self.hold = self.hold, None
        await copy(reader, wire.writer, held)
        with contextlib.suppress(OSError):
            await wire.reader.read(1)
        self.left[seen.connection] = len(self.visits)
        wire.drop()

    async def _server(self, connection: int) -> Stream:
        if connection not in self._servers:
            self._servers[connection] = await asyncio.open_connection("127.0.0.1", self.server)
        return self._servers[connection]


def _field(head: bytes, name: str) -> str | None:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        found, _, value = line.partition(":")
        if found.lower() == name:
            return value.strip()
    return None
