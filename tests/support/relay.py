"""A relay before a server that knows where messages begin and end, so that it can break in between.

It passes requests without bodies and their answers on, over one connection to the server for each
of a client's, and keeps a record. Where it has certificates, TLS ends at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.origin import Seen, read_head
from tests.support.streams import Stream, copy, listening

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_USER = re.compile(rb"\r\nx-user: *([^\r]*)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Passed:
    """A request that arrived, and what came of it."""

    seen: Seen
    #: The head of the answer; None: there was none.
    answer: bytes | None = None

    @property
    def status(self) -> int | None:
        """The status of the answer."""
        return None if self.answer is None else int(self.answer[9:12])

    @property
    def user(self) -> str | None:
        """Whom the server calls so in `X-User`; None: it does not say."""
        named = None if self.answer is None else _USER.search(self.answer)
        return None if named is None else named[1].decode()


@dataclass(slots=True, kw_only=True)
class Cut:
    """Which connections break, and when."""

    #: So many requests with credentials get through on each…
    after: int
    #: …of so many connections.
    times: int
    #: It ends with the answer to the last of them, and not when the next one arrives.
    early: bool = False

    def falls(self, carried: int) -> bool:
        """Whether to break a connection now that has carried so many credentials."""
        if carried != self.after or not self.times:
            return False
        self.times -= 1
        return True


@dataclass(kw_only=True)
class Relay:
    """One listening port, before the *server* port of this host."""

    server: int
    #: Certificates to show, and those to believe; None: plain TCP.
    tls: ssl.SSLContext | None = None
    trust: ssl.SSLContext | None = None
    cut: Cut | None = None
    #: The body of the next 200 goes so far, and no farther.
    stall: int | None = None
    #: Every 200 becomes a redirect to that place.
    moved: str | None = None

    port: int = 0
    connections: int = 0
    passed: list[Passed] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        """Relay until the block ends."""
        async with listening(self._relay, tls=self.tls) as self.port:
            yield self

    async def _relay(self, number: int, client: Stream) -> None:
        self.connections = number
        name = None if self.trust is None else "localhost"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server, ssl=self.trust, server_hostname=name
        )
        try:
            await self._converse(number, client, (reader, writer))
        finally:
            writer.close()

    async def _converse(self, number: int, client: Stream, server: Stream) -> None:
        carried = 0
        while True:
            head = await client[0].readuntil(b"\r\n\r\n")
            passed = Passed(read_head(head, number))
            self.passed.append(passed)
            bears = passed.seen.get("authorization") is not None
            if bears and self.cut is not None and not self.cut.early and self.cut.falls(carried):
                client[1].transport.abort()
                return
            carried += bears
            server[1].write(head)
            await self._answer(passed, client[1], server[0])
            if self.cut is not None and self.cut.early and self.cut.falls(carried):
                return

    async def _answer(
        self, passed: Passed, client: asyncio.StreamWriter, server: asyncio.StreamReader
    ) -> None:
        head = await server.readuntil(b"\r\n\r\n")
        passed.answer = head
        size = 0 if passed.seen.method == "HEAD" else _length(head)
        if passed.status == 200 and self.moved is not None:
            _, _, fields = head.partition(b"\r\n")
            head = b"HTTP/1.1 302 Found\r\nLocation: %s\r\n%s" % (self.moved.encode(), fields)
        client.write(head)
        if passed.status == 200 and self.stall is not None:
            stall, self.stall = self.stall, None
            await copy(server, client, stall)
            # For ever: until somebody ends the connection.
            await asyncio.get_running_loop().create_future()
        await copy(server, client, size)


def _length(head: bytes) -> int:
    length = _LENGTH.search(head)
    assert length is not None, head
    return int(length[1])
