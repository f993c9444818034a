"""Lines over a connected socket: the framing of the worker link, the same at both of its ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from transferd.model.errors import LinkBroken
from transferd.wire.codec import MAX_LINE, encode
from transferd.wire.message import Message

In = TypeVar("In")

#: Read at once; a peer that floods is held back by the kernel after twice as much.
_CHUNK = 64 * 1024
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
        #: Where the line ends that is next, as far as that is known.
        self._end = -1
        self._scanned = 0
        self._posted: list[bytes] = []
        self._posted_bytes = 0
        self._sending = asyncio.Lock()
        #: Bytes of all lines that were taken.
        self.taken = 0

    @classmethod
    async def open(
        cls, sock: socket.socket, decode: Callable[[bytes], In], *, max_line: int = MAX_LINE
    ) -> Channel[In]:
        """Take over *sock*, a connected stream socket; the channel closes it."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=_CHUNK)
        return cls(reader, writer, decode, max_line)

    # ── sending ──────────────────────────────────────────────────────────────────────────

    async def send(self, message: Message) -> None:
        """Send *message* and wait while the other end is far behind.

        One message waits at the link; those of other callers have not become bytes yet.

        Raises:
            LinkBroken: the other end is gone.
        """
        try:
            async with self._sending:
                self.post(message)
                self._flush()
                await self._writer.drain()
        except OSError as error:
            raise LinkBroken(f"cannot send over the worker link: {error}") from error

    def post(self, message: Message) -> None:
        """Send *message* without waiting; nothing happens when the other end is gone."""
        self._post(encode(message))

    def offer(self, message: Message) -> bool:
        """Send *message* without waiting if little is unsent with it; whether it is on its way.

        False also where the other end is gone.
        """
        if self.behind or self._writer.is_closing():
            return False
        line = encode(message)
        if self._posted_bytes + len(line) > _CHUNK:
            return False
        self._post(line)
        return True

    def _post(self, line: bytes) -> None:
        if not self._posted:
            # What is posted in one turn of the loop is one write.
            asyncio.get_running_loop().call_soon(self._flush)
        self._posted.append(line)
        self._posted_bytes += len(line)

    @property
    def behind(self) -> bool:
        """Whether the other end has not read what was sent before."""
        return self._writer.transport.get_write_buffer_size() > 0

    def _flush(self) -> None:
        posted, self._posted, self._posted_bytes = self._posted, [], 0
        if posted and not self._writer.is_closing():
            self._writer.write(b"".join(posted))

    # ── receiving ────────────────────────────────────────────────────────────────────────

    async def receive(self) -> In | None:
        """Return the next message, or None when the other end is gone.

        A cancelled call loses nothing.

        Raises:
            LinkBroken: a line is too long or none of the other end's messages.
        """
        return self.take() if await self.arrived() else None

    async def arrived(self) -> bool:
        """Wait until a whole line is here; False: the other end is gone.

        It does not give the loop back when one is. A cancelled call loses nothing.

        Raises:
            LinkBroken: a line is too long.
        """
        while not self._find():
            try:
                chunk = await self._reader.read(_CHUNK)
            except OSError:
                # Closed with something of ours unread: gone all the same.
                return False
            if not chunk:
                return False
            self._pending += chunk
        return True

    def take(self) -> In | None:
        """Return the next message if all of it is here, else None.

        Raises:
            LinkBroken: a line is too long or none of the other end's messages.
        """
        line = self.take_line()
        return None if line is None else self.read(line)

    def take_line(self) -> bytes | None:
        """Return the next line as it is, without its end, if all of it is here, else None.

        Raises:
            LinkBroken: it is too long.
        """
        if not self._find():
            return None
        line = bytes(self._pending[: self._end])
        del self._pending[: self._end + 1]
        self.taken += self._end + 1
        self._end, self._scanned = -1, 0
        return line

    @property
    def rest(self) -> bytes:
        """What has arrived of a line whose end has not."""
        return b"" if self._find() else bytes(self._pending)

    def read(self, line: bytes) -> In:
        """Return the message of a line.

        Raises:
            LinkBroken: it is none of the other end's.
        """
        try:
            return self._decode(line)
        except (ValueError, RecursionError) as error:
            # msgspec's errors are ValueErrors, and so is that of a text that is not UTF-8.
            raise LinkBroken(f"cannot read a line of the worker link: {error}") from error

    def _find(self) -> bool:
        """Whether the end of a line is here."""
        if self._end < 0:
            self._end = self._pending.find(b"\n", self._scanned)
            self._scanned = len(self._pending)
        if (self._scanned if self._end < 0 else self._end) > self._max_line:
            raise LinkBroken(f"a line of the worker link is longer than {self._max_line} bytes")
        return self._end >= 0

    # ── the end ──────────────────────────────────────────────────────────────────────────

    def abort(self) -> None:
        """Close at once: what is unsent is lost, and whoever waits here is let go."""
        self._writer.transport.abort()

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
