"""Keeps peers on Unix sockets from handing over descriptors, which nobody here has use for.

A descriptor that comes with bytes and that nobody takes is closed by whoever reads the bytes, or
closes the socket. That can take as long as its sender likes: a TCP socket that lingers for hours is
enough to stop every loop that reads what a stranger sends.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios
import threading
from contextlib import suppress
from typing import Any

#: Of <asm-generic/socket.h>, since Linux 6.16; whoever sends a descriptor is refused then.
_SO_PASSRIGHTS = 83
#: The most descriptors of one message (SCM_MAX_FD of the kernel's <net/scm.h>).
_MOST = 253
_ROOM = socket.CMSG_SPACE(_MOST * array.array("i").itemsize)


def refuse_descriptors(sock: socket.socket) -> socket.socket:
    """Return *sock*, or one in its place, from which no descriptor comes.

    Whoever reads from it and finds one gets PermissionError, unless the kernel has told its sender
    so already.
    """
    if forbid_descriptors(sock):
        return sock
    timeout = sock.gettimeout()
    guarded = _Guarded(fileno=sock.detach())
    guarded.settimeout(timeout)
    return guarded


def forbid_descriptors(sock: socket.socket) -> bool:
    """Have the kernel refuse descriptors that are sent to *sock*; False where it cannot.

    Connections to a listening socket are as that was when they were made.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


class _Guarded(socket.socket):
    """Takes descriptors out of what it receives, and closes them where that may take long."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive bytes.

        Raises:
            PermissionError: a descriptor came with them.
        """
        data, ancillary, _, _ = self.recvmsg(bufsize, _ROOM, flags | socket.MSG_CMSG_CLOEXEC)
        _refuse(ancillary)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive bytes, as `recv`."""
        view = memoryview(buffer)[: nbytes or None]
        count, ancillary, _, _ = self.recvmsg_into([view], _ROOM, flags | socket.MSG_CMSG_CLOEXEC)
        _refuse(ancillary)
        return count

    def close(self) -> None:
        """Close; what was sent and not read may have descriptors with it."""
        if self.fileno() < 0:
            return
        with suppress(OSError):
            self.shutdown(socket.SHUT_RD)
        if _unread(self):
            _close_elsewhere([self.detach()])
        else:
            super().close()


def _unread(sock: socket.socket) -> bool:
    """Whether anything may have been sent to *sock* that was not read."""
    try:
        return any(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    except OSError:
        return True  # it listens


def _refuse(ancillary: list[tuple[int, int, bytes]]) -> None:
    descriptors = array.array("i")
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if descriptors:
        _close_elsewhere(list(descriptors))
        raise PermissionError("the other end has sent a descriptor")


def _close_elsewhere(descriptors: list[int]) -> None:
    """Close descriptors in a thread that nobody waits for."""

    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    threading.Thread(target=close, name="closing descriptors", daemon=True).start()
