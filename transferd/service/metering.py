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
#: Before a bus is tried again that was there, each time that it was not or let nobody in…
_DELAYS: tuple[Seconds, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
#: …and from then on; a bus that we were on for so long is tried soon again.
_PATIENCE: Seconds = 60.0


class Metering:
    """Says what the connection costs."""

    def __init__(self, tell: Callable[[LinkCost], None], clock: Clock, bus: str) -> None:
        """Take who is told, and the D-Bus address of the system's bus."""
        self._tell = tell
        self._clock = clock
        self._bus = bus
        #: Whether the last word holds on: a bus that has just come back knows of nobody yet.
        self._holding = False
        #: Set once it is known, or known that nobody knows.
        self.asked = asyncio.Event()

    async def run(self) -> None:
        """Tell until cancelled; nothing at all where there is no bus to begin with."""
        if not self._is_there():
            return self._say(UNKNOWN)
        failures = 0
        while True:
            began = self._clock.steady()
            await self._follow()
            if self._clock.steady() - began >= _PATIENCE:
                failures = 0
            delays = _DELAYS[failures:]
            if not delays and not self._is_there():
                self._say(UNKNOWN)
            await self._clock.sleep(delays[0] if delays else _PATIENCE)
            failures += 1

    async def _follow(self) -> None:
        """Tell as long as the bus is there; afterwards, nobody pays because it is restarted."""
        from transferd.service.networkmanager import follow  # costs machines without it nothing

        patience = asyncio.create_task(self._let_go()) if self._holding else None
        try:
            await follow(self._bus, self._hear)
        except OSError as error:
            log.info("network.unmetered", extra={"fields": {"reason": str(error)}})
        finally:
            if patience is not None:
                patience.cancel()
        self._holding = True
        self.asked.set()

    async def _let_go(self) -> None:
        """Believe, after a while, that nobody knows."""
        await self._clock.sleep(_PATIENCE)
        if self._holding:
            self._holding = False
            self._say(UNKNOWN)

    def _hear(self, cost: LinkCost) -> None:
        if cost != UNKNOWN:
            self._holding = False
        if not self._holding:
            self._say(cost)

    def _say(self, cost: LinkCost) -> None:
        self._tell(cost)
        self.asked.set()

    def _is_there(self) -> bool:
        """Tell whether there is such a bus; of an address that is no path only a try tells."""
        kind, _, path = self._bus.partition("unix:path=")
        return bool(kind) or Path(path.partition(",")[0]).exists()
