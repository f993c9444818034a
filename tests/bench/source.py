"""A web server that knows when it was asked first, and when the last byte had gone out."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator

_RANGE = re.compile(rb"\r\nrange: bytes=(\d*)-(\d*)\r\n", re.IGNORECASE)
_VERSION = b'ETag: "1"\r\nLast-Modified: Mon, 05 Jan 2026 09:00:00 GMT\r\nAccept-Ranges: bytes\r\n'


class Source:
    """Serves the same bytes under every path, also in ranges."""

    def __init__(self, body: bytes, *, answers: bool = True) -> None:
        """Take the bytes; a source that does not answer holds who asks."""
        self._body = body
        self._answers = answers
        self._left = len(body)
        self.asked = asyncio.Event()
        #: By `time.monotonic`, since `forget`.
        self.first_request = 0.0
        self.last_byte = 0.0
        self.url = ""

    def forget(self) -> None:
        """Begin anew."""
        self._left = len(self._body)
        self.asked.clear()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Source]:
        """Serve on a free loopback port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/file"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What is written has gone to the kernel when `drain` returns.
        writer.transport.set_write_buffer_limits(high=0)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not self.asked.is_set():
                    self.first_request = time.monotonic()
                    self.asked.set()
                if self._answers:
                    await self._answer(head, writer)
        writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        size = len(self._body)
        first, last, status = 0, size - 1, b"200 OK\r\n"
        if found := _RANGE.search(head):
            low, high = found.groups()
            first = int(low) if low else size - int(high)
            last = min(last, int(high)) if low and high else last
            status = b"206 Partial Content\r\n"
            status += b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, size)
        length = last - first + 1
        writer.write(b"HTTP/1.1 " + status + _VERSION + b"Content-Length: %d\r\n\r\n" % length)
        writer.write(memoryview(self._body)[first : last + 1])
        await writer.drain()
        if self._left > 0:
            # Not for what is asked once more when everything has been sent.
            self._left -= length
            self.last_byte = time.monotonic()
