"""The system's clocks."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from transferd.model.job import Seconds


class SystemClock:
    """The real Clock. CLOCK_BOOTTIME goes on while the machine sleeps and cannot be set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return datetime.now(UTC)

    def steady(self) -> Seconds:
        """Seconds since the epoch, as they were at start-up plus real time since then."""
        return self._offset + time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: Seconds) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
