"""Keeps peers on Unix sockets from handing over descriptors, which nobody here has use for.

A descriptor that nobody takes is closed by whoever reads the bytes that it came with, and closing
one can take as long as its sender likes: a TCP socket that lingers, a file of a dead file server.
"""

from __future__ import annotations

import socket
from contextlib import suppress

#: Of <asm-generic/socket.h>; since Linux 6.16.
_SO_PASSRIGHTS = 83


def refuse_descriptors(sock: socket.socket) -> None:
    """Have the kernel refuse descriptors that anybody sends to *sock*, where it can.

    What is accepted from a listening socket is as that one was when its peer connected.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
