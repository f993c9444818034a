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
#: …and from then on; a bus that we were on for so long is tried soon again. And how long what was
#: said holds without anybody who says it.
_PATIENCE: Seconds = 60.0


class Metering:
    """Says what the connection costs."""

    def __init__(self, tell: Callable[[LinkCost], None], clock: Clock, bus: str) -> None:
        """Take who is told, and the D-Bus address of the system's bus."""
        self._tell = tell
        self._clock = clock
        self._bus = bus
        #: Since when nobody knows, and the last word holds on: a bus that has just come back knows
        #: of nobody yet.
        self._silent: Seconds | None = None
        #: Set once it is known, or known that nobody knows.
        self.asked = asyncio.Event()

    async def run(self) -> None:
        """Tell until cancelled; nothing at all where there is no bus to begin with."""
        if not self._is_there():
            return self._say(UNKNOWN)
        failures = 0
        while True:
            began = self._clock.steady()
            silent = await self._follow()
            now = self._clock.steady()
            if now - began >= _PATIENCE:
                failures = 0
            delays = _DELAYS[failures:]
            if not delays and now - silent >= _PATIENCE:
                self._say(UNKNOWN)  # whether the bus is gone, hangs, or ends each time
            await self._clock.sleep(delays[0] if delays else _PATIENCE)
            failures += 1

    async def _follow(self) -> Seconds:
        """Tell as long as the bus is there; afterwards, nobody pays because it is restarted.

        Returns since when nobody has known.
        """
        from transferd.service.networkmanager import follow  # costs machines without it nothing

        patience = asyncio.create_task(self._let_go()) if self._silent is not None else None
        try:
            await follow(self._bus, self._hear)
        except OSError as error:
            log.info("network.unmetered", extra={"fields": {"reason": str(error)}})
        finally:
            if patience is not None:
                patience.cancel()
        if self._silent is None:
            self._silent = self._clock.steady()
        self.asked.set()
        return self._silent

    async def _let_go(self) -> None:
        """Believe, after a while, that nobody knows."""
        await self._clock.sleep(_PATIENCE)
        if self._silent is not None:
            self._say(UNKNOWN)

    def _hear(self, cost: LinkCost) -> None:
        if cost != UNKNOWN:
            self._silent = None
        if self._silent is None:
            self._say(cost)

    def _say(self, cost: LinkCost) -> None:
        self._tell(cost)
        self.asked.set()

    def _is_there(self) -> bool:
        """Tell whether there is such a bus; of an address that is no path only a try tells."""
        kind, _, path = self._bus.partition("unix:path=")
        return bool(kind) or Path(path.partition(",")[0]).exists()
