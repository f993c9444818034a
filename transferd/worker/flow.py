"""The bytes of a connection, for a thread that takes the body of an answer from it.

Nothing here waits: what is not there yet is `None`, and the thread decides how long to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
from typing import Protocol

from transferd.worker.cursor import UNSPLICED, Cursor
from transferd.worker.secure import SecureTransport

#: So much moves at once: what a pipe may hold without privileges (pipe(7)), and what a cache holds.
PIPE = 1024 * 1024
_BUFFER = 128 * 1024
#: What the kernel says where there can be no more pipes.
_PIPELESS = frozenset({errno.EMFILE, errno.ENFILE})


class Flow(Protocol):
    """Bytes of one connection on their way to a file. One thread uses it."""

    def fileno(self) -> int:
        """What becomes readable when there is more."""
        ...

    def carry(self, cursor: Cursor, most: int) -> int | None:
        """Move up to *most* bytes to *cursor*; 0: the end, None: nothing is there yet.

        Raises:
            OSError: the connection was lost. TransferFailed: the file could not be written.
        """
        ...

    def close(self) -> None:
        """Let go of the connection, in the loop's thread, when no thread uses it any more."""
        ...


def flow_of(transport: asyncio.BaseTransport) -> Flow | None:
    """Return the flow of a transport that does not read; None: its bytes cannot be had so."""
    if isinstance(transport, SecureTransport):
        # An answer may come before its request is out; OpenSSL serves one thread at a time.
        return None if transport.get_write_buffer_size() else SecureFlow(transport)
    if transport.get_extra_info("ssl_object") is not None:
        return None
    return PlainFlow(transport.get_extra_info("socket").fileno())


class PlainFlow:
    """Bytes of a socket, which never become Python's: they are spliced, through a pipe."""

    def __init__(self, descriptor: int) -> None:
        """Read from a copy of *descriptor*, whatever becomes of that."""
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._pipe: tuple[int, int] | None = None
        self._room = 0
        self._spliced = True
        self._buffer: memoryview | None = None

    def fileno(self) -> int:
        """See Flow.fileno."""
        return self._socket.fileno()

    def carry(self, cursor: Cursor, most: int) -> int | None:
        """See Flow.carry."""
        try:
            if not self._spliced:
                return self._copy(cursor, most)
            read_end, write_end = self._pipe or self._open_pipe()
            there = os.splice(self.fileno(), write_end, min(most, self._room))
        except BlockingIOError:
            return None
        except OSError as error:
            if self._spliced and error.errno in UNSPLICED | _PIPELESS:
                self._spliced = False
                return self.carry(cursor, most)
            raise
        if not cursor.splice(read_end, there):
            self._spliced = False
        return there

    def _copy(self, cursor: Cursor, most: int) -> int:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(_BUFFER))
        count = self._socket.recv_into(self._buffer, min(most, _BUFFER))
        if count:
            cursor.write(self._buffer[:count])
        return count

    def _open_pipe(self) -> tuple[int, int]:
        self._pipe = os.pipe2(os.O_CLOEXEC)
        # A user who has many pipes gets small ones (pipe(7), pipe-user-pages-soft).
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        self._room = fcntl.fcntl(self._pipe[1], fcntl.F_GETPIPE_SZ)
        return self._pipe

    def close(self) -> None:
        """See Flow.close."""
        self._socket.close()
        for descriptor in self._pipe or ():
            os.close(descriptor)
        self._pipe = None


class SecureFlow:
    """Bytes of a TLS connection, decrypted into one buffer that is used again and again."""

    def __init__(self, transport: SecureTransport) -> None:
        self._transport = transport
        self._secure = transport.lend()
        self._buffer = memoryview(bytearray(_BUFFER))

    def fileno(self) -> int:
        """See Flow.fileno."""
        return self._secure.fileno()

    def carry(self, cursor: Cursor, most: int) -> int | None:
        """See Flow.carry. As many records as are there are written at once."""
        size = min(most, _BUFFER)
        filled, ended = 0, False
        # The rest of a record waits within OpenSSL, where no poll would see it: so all are taken.
        while filled < size:
            try:
                count = self._secure.recv_into(self._buffer[filled:size])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError:
                if not filled:
                    raise
                break
            if not count:
                ended = True
                break
            filled += count
        if filled:
            cursor.write(self._buffer[:filled])
        return filled if filled or ended else None

    def close(self) -> None:
        """See Flow.close."""
        self._transport.give_back()
