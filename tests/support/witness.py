"""A relay before a server that names users in `X-User`: as whom was each request served, and where?

It passes requests without bodies and their answers on, over one connection to the server for each
of a client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.origin import Seen, read_head

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_USER = re.compile(rb"\r\nx-user: *([^\r]*)\r\n", re.IGNORECASE)
_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Statement:
    """A request, and what came of it."""

    seen: Seen
    status: int
    #: As the server says it; None: it says nothing.
    user: str | None


@dataclass
class Witness:
    """Stands before the *server* port of this host."""

    server: int
    port: int = 0
    connections: int = 0
    heard: list[Statement] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Witness]:
        """Relay until the block ends."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._relay(self.connections, reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.server)
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                far_writer.write(request)
                answer = await far_reader.readuntil(b"\r\n\r\n")
                self._note(read_head(request, number), answer)
                writer.write(answer)
                await _copy(far_reader, writer, answer)
        finally:
            far_writer.close()

    def _note(self, seen: Seen, answer: bytes) -> None:
        user = _USER.search(answer)
        named = None if user is None else user[1].decode()
        self.heard.append(Statement(seen, int(answer[9:12]), named))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    length = _LENGTH.search(answer)
    assert length is not None, answer
    left = int(length[1])
    while left:
        data = await reader.read(min(left, _PIECE))
        if not data:
            raise EOFError
        left -= len(data)
        writer.write(data)
        await writer.drain()
    await writer.drain()
