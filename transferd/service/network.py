"""Hears from the kernel that the network has come back, or goes other ways (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from transferd.model.job import Seconds
from transferd.service.ports import Clock
from transferd.service.routes import interfaces

log = logging.getLogger(__name__)

#: Links, which take their routes along without a word; routes; and rules, which choose the table.
_RTMGRP_LINK, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 0x1, 0x40, 0x400
_RTMGRP_IPV4_RULE, _RTMGRP_IPV6_RULE = 0x80, 0x40000
_GROUPS = (
    _RTMGRP_LINK | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE | _RTMGRP_IPV4_RULE | _RTMGRP_IPV6_RULE
)
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
    """Calls back when a route appears, which is when a retry may succeed (BITS.md Y5).

    And says over which interfaces the Internet is reached: at first, and after each change.
    """

    def __init__(
        self,
        on_route: Callable[[], Awaitable[None]],
        on_way: Callable[[frozenset[str]], None],
        clock: Clock,
    ) -> None:
        self._on_route = on_route
        self._on_way = on_way
        self._clock = clock
        #: Whether a retry is to come that answers whatever comes before it.
        self._settling = False

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
            watch.bind((0, _GROUPS))
            self._on_way(interfaces())
            await self._watch(watch)

    async def _watch(self, watch: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                lost = False
                try:
                    new = announces_route(await loop.sock_recv(watch, 65536))
                except OSError:  # ENOBUFS: messages were lost, which is as good as one
                    new = lost = True
                # At once: what must not go over a VPN has no second to spare.
                self._on_way(interfaces())
                if new and not self._settling:
                    self._settling = True
                    group.create_task(self._settle())
                # However many messages there are, others have their turn.
                await (self._clock.sleep(_SETTLE) if lost else asyncio.sleep(0))

    async def _settle(self) -> None:
        """Wait for the end of a burst; whoever waits for the network tries again."""
        await self._clock.sleep(_SETTLE)
        self._settling = False
        log.info("network.route_added", extra={"fields": {}})
        await self._on_route()
