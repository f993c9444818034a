"""One request and its answer over a connected socket: HTTP/1.1, as h11 knows it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

import h11

from transferd.model.units import Seconds

_CHUNK = 64 * 1024
#: Whatever the socket is called, the daemon has one name only.
_HEADERS = (("Host", "transferd"), ("User-Agent", "transferd"), ("Connection", "close"))


class CutShort(Exception):
    """The other end has left before the end of its answer."""


class Silent(Exception):
    """The other end has neither taken nor said anything for too long."""


class Exchange:
    """A connection that is used once.

    Every wait for the other end raises CutShort or Silent, and h11.RemoteProtocolError if what it
    says is not HTTP.
    """

    def __init__(self, sock: socket.socket, silence: Seconds | None) -> None:
        """Take over a connected socket; *silence* is the longest that is borne, None: any."""
        self._socket = sock
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT)

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> int:
        """Send a request; returns the status of its answer."""
        length = [] if body is None else [("Content-Length", str(len(body)))]
        request = h11.Request(
            method=method, target=target, headers=[*_HEADERS, *headers.items(), *length]
        )
        data = h11.Data(data=body or b"")
        parts = (self._http.send(event) for event in (request, data, h11.EndOfMessage()))
        await self._send(b"".join(part for part in parts if part))
        while not isinstance(event := await self._next(), h11.Response):
            pass
        return event.status_code

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def read(self) -> bytes:
        """Return the body of the answer."""
        return b"".join([chunk async for chunk in self.chunks()])

    def cut(self) -> None:
        """End it: whoever waits for the other end hears that it has left."""
        with contextlib.suppress(OSError):  # it has
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    async def _send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._silence):
                await self._loop.sock_sendall(self._socket, data)
        except TimeoutError as error:
            raise Silent from error
        except ConnectionError:
            pass  # one that does not take all of it may have said why

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if not await self._receive():
                return self._last()
        return event

    async def _receive(self) -> bool:
        """Take what has come; False: the other end has left."""
        try:
            async with asyncio.timeout(self._silence):
                data = await self._loop.sock_recv(self._socket, _CHUNK)
        except TimeoutError as error:
            raise Silent from error
        except ConnectionError as error:
            raise CutShort from error
        self._http.receive_data(data)
        return bool(data)

    def _last(self) -> object:
        """Return what the end of the connection means: that of an answer without a length, say."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise CutShort from error
