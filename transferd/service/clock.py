"""The system's clocks."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from transferd.model.job import Seconds

_LOCAL = Path("/etc/localtime")


def local_zone() -> tzinfo:
    """Return the zone of the machine's wall clocks at this moment; UTC where none is set."""
    with suppress(
        OSError, ValueError, ZoneInfoNotFoundError
    ):  # nobody is refused his downloads for a wrong zone
        if name := os.environ.get("TZ", "").removeprefix(":"):
            return ZoneInfo(name)
    with suppress(OSError, ValueError), _LOCAL.open("rb") as file:
        return ZoneInfo.from_file(file)
    return UTC


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
