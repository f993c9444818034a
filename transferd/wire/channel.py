"""Lines over a connected socket: the framing of the worker link, the same at both of its ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from transferd.model.errors import LinkBroken
from transferd.wire.link import MAX_LINE, Message, encode

In = TypeVar("In")

#: Read at once; a peer that floods is held back by the kernel after twice as much.
_CHUNK = 256 * 1024
#: What is unsent when the channel is closed gets this long.
_PARTING_SECONDS = 1.0


class Channel(Generic[In]):
    """One end of a worker link: sends messages, receives what *decode* makes of a line.

    Messages go out whole and in the order of the calls. One task may receive; any may send.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decode: Callable[[bytes], In],
        max_line: int,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = decode
        self._max_line = max_line
        self._pending = bytearray()
        self._scanned = 0
        self._posted: list[bytes] = []

    @classmethod
    async def open(
        cls, sock: socket.socket, decode: Callable[[bytes], In], *, max_line: int = MAX_LINE
    ) -> Channel[In]:
        """Take over *sock*, a connected stream socket; the channel closes it."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=_CHUNK)
        return cls(reader, writer, decode, max_line)

    async def send(self, message: Message) -> None:
        """Send *message* and wait while the other end is far behind.

        Raises:
            LinkBroken: the other end is gone.
        """
        self.post(message)
        self._flush()
        try:
            await self._writer.drain()
        except OSError as error:
            raise LinkBroken(f"cannot send over the worker link: {error}") from error

    def post(self, message: Message) -> None:
        """Send *message* without waiting; nothing happens when the other end is gone."""
        if not self._posted:
            # What is posted in one turn of the loop is one write.
            asyncio.get_running_loop().call_soon(self._flush)
        self._posted.append(encode(message))

    def _flush(self) -> None:
        posted, self._posted = self._posted, []
        if posted and not self._writer.is_closing():
            self._writer.write(b"".join(posted))

    async def receive(self) -> In | None:
        """Return the next message, or None when the other end is gone.

        A cancelled call loses nothing.

        Raises:
            LinkBroken: a line is too long or none of the other end's messages.
        """
        while (line := self._next_line()) is None:
            try:
                chunk = await self._reader.read(_CHUNK)
            except OSError:
                # Closed with something of ours unread: gone all the same.
                return None
            if not chunk:
                return None
            self._pending += chunk
        try:
            return self._decode(line)
        except msgspec.MsgspecError as error:
            raise LinkBroken(f"cannot read a line of the worker link: {error}") from error

    def _next_line(self) -> bytes | None:
        end = self._pending.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._pending)
        if max(end, self._scanned) > self._max_line:
            raise LinkBroken(f"a line of the worker link is longer than {self._max_line} bytes")
        if end < 0:
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._scanned = 0
        return line

    async def close(self) -> None:
        """Send what is waiting, for a moment, and close. May be repeated."""
        self._flush()
        self._writer.close()
        # Not a timeout around the wait: that would cancel the transport's own future.
        end = asyncio.get_running_loop().call_later(_PARTING_SECONDS, self._writer.transport.abort)
        try:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        finally:
            end.cancel()
