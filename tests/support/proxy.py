"""A forward proxy on raw streams: absolute-form requests, CONNECT, and an acceptor before both."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.support.acceptors import Acceptor, judge
from tests.support.origin import Page, Seen, Wire, read_head
from tests.support.streams import Stream, listening, pump

_HOP = {"proxy-authorization", "proxy-connection", "connection"}


class ForwardProxy:
    """Forwards for whoever an acceptor admits; without acceptors, for everybody."""

    def __init__(
        self,
        *acceptors: Acceptor,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.connections = 0
        self._tls = tls
        self.port = 0
        self.seen: list[Seen] = []
        #: Where names lead; every other one is looked up.
        self.hosts: dict[str, str] = {}
        #: Answers every CONNECT with that status, once set.
        self.refuse_with: int | None = None
        self._acceptors = acceptors

    @property
    def url(self) -> str:
        """What goes into a job's proxy setting."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ForwardProxy]:
        """Serve until the block ends."""
        async with listening(self._connected, host=self.host, tls=self._tls) as self.port:
            yield self

    async def _connected(self, number: int, client: Stream) -> None:
        self.connections = number
        wire = Wire(*client)
        while wire.open:
            await self._serve(wire, number)

    async def _serve(self, wire: Wire, number: int) -> None:
        seen = read_head(await wire.reader.readuntil(b"\r\n\r\n"), number)
        self.seen.append(seen)
        verdict = judge(seen, seen.get("proxy-authorization"), self._acceptors)
        if self._acceptors and not verdict.admitted:
            lines = [line for acceptor in self._acceptors for line in acceptor.challenges()]
            await wire.answer(407, [("Proxy-Authenticate", line) for line in lines], b"who?\n")
        elif self.refuse_with is not None:
            await wire.answer(self.refuse_with, [("Location", "http://elsewhere.invalid/")])
        elif seen.method == "CONNECT":
            host, _, port = seen.target.rpartition(":")
            await self._forward(wire, host, int(port), None)
        else:
            await self._forward(wire, *_rewritten(seen))

    async def _forward(self, wire: Wire, host: str, port: int, first: bytes | None) -> None:
        await _relay(wire, self.hosts.get(host, host), port, first)


def tunnel_to(port: int, *, answer: bytes = b"HTTP/1.1 200 Tunnel\r\n\r\n") -> Page:
    """A page that opens a tunnel to a loopback port, for an `Origin` that plays a proxy."""

    async def page(seen: Seen, wire: Wire) -> None:
        await _relay(wire, "127.0.0.1", port, None, answer)

    return page


async def _relay(
    wire: Wire,
    host: str,
    port: int,
    first: bytes | None,
    answer: bytes = b"HTTP/1.1 200 Tunnel\r\n\r\n",
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if first is None:
            await wire.raw(answer)
        else:
            writer.write(first)
        async with asyncio.TaskGroup() as group:
            pumps = [group.create_task(pump(reader, wire.writer))]
            if first is None:
                # A forwarded request is one request; what follows it is for the proxy again.
                pumps.append(group.create_task(pump(wire.reader, writer)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in pumps:
                task.cancel()
    finally:
        wire.close()
        await _end(writer)


def _rewritten(seen: Seen) -> tuple[str, int, bytes]:
    url = urlsplit(seen.target)
    target = seen.target.split("/", 3)[3]
    headers = [(name, value) for name, value in seen.headers if name not in _HOP]
    lines = [f"GET /{target} HTTP/1.1", *(f"{n}: {v}" for n, v in headers), "connection: close"]
    return url.hostname or "", url.port or 80, "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()
