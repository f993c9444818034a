"""Hears from the kernel that the network has come back (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from transferd.model.job import Seconds
from transferd.service.ports import Clock

log = logging.getLogger(__name__)

_RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 0x40, 0x400
_RTM_NEWROUTE = 24
#: struct nlmsghdr: length, type, flags, sequence, port.
_HEADER = struct.Struct("=IHHII")
#: Routes come in bursts; one retry answers all of them.
_SETTLE: Seconds = 1.0


def announces_route(datagram: bytes) -> bool:
    """Tell whether a netlink datagram says that a route was added."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, offset)
        if kind == _RTM_NEWROUTE:
            return True
        if length < _HEADER.size:
            return False
        offset += (length + 3) & ~3
    return False


class NetworkWatch:
    """Calls back when a route appears, which is when a retry may succeed (BITS.md Y5)."""

    def __init__(self, on_route: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._on_route = on_route
        self._clock = clock

    async def run(self) -> None:
        """Watch until cancelled; where netlink is not to be had, nothing is watched."""
        try:
            watch = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
        except OSError as error:
            log.info("network.unwatched", extra={"fields": {"reason": str(error)}})
            return
        with watch:
            watch.setblocking(False)
            watch.bind((0, _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE))
            await self._watch(watch)

    async def _watch(self, watch: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(OSError):  # ENOBUFS: messages were lost, which is as good as one
                if not announces_route(await loop.sock_recv(watch, 65536)):
                    continue
            await self._clock.sleep(_SETTLE)
            log.info("network.route_added", extra={"fields": {}})
            await self._on_route()
