"""Whether the connection is metered, where the machine has somebody who knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from transferd.model.costs import UNKNOWN, LinkCost
from transferd.model.job import Seconds
from transferd.service.ports import Clock

log = logging.getLogger(__name__)

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
#: Before a bus is tried again that is there, and lets nobody in.
_PATIENCE: Seconds = 60.0


class Metering:
    """Says what the connection costs."""

    def __init__(self, tell: Callable[[LinkCost], None], clock: Clock, bus: str) -> None:
        """Take who is told, and the D-Bus address of the system's bus."""
        self._tell = tell
        self._clock = clock
        self._bus = bus
        #: Set once it is known, or known that nobody knows.
        self.asked = asyncio.Event()

    async def run(self) -> None:
        """Tell until cancelled; nothing at all where there is no bus."""
        while self._is_there():
            from transferd.service.networkmanager import follow  # costs machines without it nothing

            try:
                await follow(self._bus, self._heard)
            except OSError as error:
                # What was said last holds on: nobody pays because a bus was restarted.
                log.info("network.unmetered", extra={"fields": {"reason": str(error)}})
            self.asked.set()
            await self._clock.sleep(_PATIENCE)
        self._heard(UNKNOWN)

    def _heard(self, cost: LinkCost) -> None:
        self._tell(cost)
        self.asked.set()

    def _is_there(self) -> bool:
        """Tell whether there is such a bus; of an address that is no path only a try tells."""
        kind, _, path = self._bus.partition("unix:path=")
        return bool(kind) or Path(path.partition(",")[0]).exists()
