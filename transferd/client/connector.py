"""How the daemon is connected to, also when more callers come at once than the kernel queues."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from transferd.model.units import Seconds

#: How soon to look again whether there is room in the daemon's queue.
_FULL: Seconds = 0.01


async def connected(path: str) -> socket.socket:
    """Return a socket that is connected to a listening one, once there is room in its queue.

    asyncio takes the kernel's EAGAIN for a connection that is being made. There is none: what is
    sent then is not sent, and nobody could tell.

    Raises:
        OSError: nobody listens there, or not for us.
    """
    while True:
        with contextlib.ExitStack() as undo:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(sock.close)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(path)
                undo.pop_all()
                return sock
        await asyncio.sleep(_FULL)
