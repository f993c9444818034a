"""A wrong clock for a single program, by a library that is loaded before the C library's."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path

from tests.support.servers import require_program

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
