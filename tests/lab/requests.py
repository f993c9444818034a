"""Short requests, one every 100 ms: what somebody who browses notices of a download."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

from tests.lab.site import SHORT_BYTES, Site
from tests.lab.topology import Role, Topology

_INTERVAL = 0.1
#: Whoever waits longer goes away; it counts as so long.
_PATIENCE = 10.0
_HEAD = b"GET /short HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"


async def requests(topology: Topology, site: Site, seconds: float) -> list[float]:
    """Ask at a constant rate, whether answers come or not; returns how long each took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = []
    for number in range(int(seconds / _INTERVAL)):
        await asyncio.sleep(max(began + number * _INTERVAL - loop.time(), 0))
        asked.append(asyncio.create_task(_request(topology, site)))
    return list(await asyncio.gather(*asked))


async def _request(topology: Topology, site: Site) -> float:
    sock = topology.client.within(_socket)
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await _fetch(sock, site)
    sock.close()
    return time.monotonic() - began


async def _fetch(sock: socket.socket, site: Site) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (Role.FOREGROUND.server, site.port))
    await loop.sock_sendall(sock, _HEAD)
    size = 0
    while piece := await loop.sock_recv(sock, SHORT_BYTES):
        size += len(piece)
    assert size > SHORT_BYTES, "the short file was not served"


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock
