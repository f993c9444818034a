"""Wrong clocks: of a program, by a library that is loaded before the C library's; and of organs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

from tests.support.servers import require_program
from transferd.model.job import Seconds
from transferd.service.clock import SystemClock

_SOURCE = r"""
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    const char *seconds = getenv("CLOCK_SHIFT");
    return seconds ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
"""


def shifted_clock(directory: Path, shift: timedelta) -> dict[str, str]:
    """Return the environment of a program whose clock is fast by *shift*; slow when negative.

    The library is compiled into *directory* once.
    """
    library = directory / "clock.so"
    if not library.exists():
        fresh = directory / f"clock-{os.getpid()}.so"
        subprocess.run(
            [require_program("gcc"), "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(fresh)],
            input=_SOURCE.encode(),
            check=True,
        )
        fresh.rename(library)
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT": f"{shift.total_seconds():.0f}"}


class WallClock(SystemClock):
    """A clock on the wall that a test sets. Whoever sleeps by it is woken by the test, too."""

    def __init__(self, moment: datetime) -> None:
        super().__init__()
        self.moment = moment
        #: For how long somebody wanted to sleep, each time.
        self.naps: list[Seconds] = []
        self._sleepers: list[asyncio.Future[None]] = []
        self._asleep = asyncio.Event()

    def now(self) -> datetime:
        """What the test says."""
        return self.moment

    async def sleep(self, seconds: Seconds) -> None:
        """Wait for the test."""
        self.naps.append(seconds)
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        self._asleep.set()
        await sleeper

    async def nap(self, count: int) -> Seconds:
        """Wait until somebody sleeps for the *count*-th time; return for how long."""
        async with asyncio.timeout(10):
            while len(self.naps) < count:
                self._asleep.clear()
                await self._asleep.wait()
        return self.naps[count - 1]

    def wake(self) -> None:
        """End the sleep of everybody."""
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        self._sleepers.clear()
