"""How the daemon is connected to, also when more callers come at once than the kernel queues."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from transferd.model.job import Seconds

#: How soon to look again whether there is room in the daemon's queue.
_FULL: Seconds = 0.01


class Connector(aiohttp.UnixConnector):
    """Waits for its turn where the daemon's queue of callers is full."""

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,
    ) -> ResponseHandler:
        try:
            async with asyncio.timeout(timeout.sock_connect):
                sock = await connected(self.path)
                _, protocol = await self._loop.create_unix_connection(self._factory, sock=sock)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnixClientConnectorError(self.path, req.connection_key, error) from error
        return protocol


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
