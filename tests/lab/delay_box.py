"""Holds every packet that is routed to a TUN interface for a while, then sends it on its way.

    python -m tests.lab.delay_box INTERFACE SECONDS

A packet comes back out of the same interface, where routing takes it as one that has just come in.
Kernels without netem are the rule in virtual machines; for what little flows from a client to a
server, a process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA  # if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PACKET = 65536


def attach(interface: str) -> int:
    """Open a TUN interface that exists; packets are read and written without a header."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


def forward(descriptor: int, delay: float) -> None:
    """Hold packets for *delay* seconds each, for ever."""
    held: deque[tuple[float, bytes]] = deque()
    while True:
        wait = max(held[0][0] - time.monotonic(), 0) if held else None
        readable, _, _ = select.select([descriptor], [], [], wait)
        now = time.monotonic()
        if readable:
            with contextlib.suppress(BlockingIOError):
                while True:
                    held.append((now + delay, os.read(descriptor, _PACKET)))
        while held and held[0][0] <= now:
            os.write(descriptor, held.popleft()[1])


def main() -> None:
    """Say `ready`, and forward."""
    descriptor = attach(sys.argv[1])
    # Late by a turn of the scheduler, packets would come in lumps; it sleeps nearly always.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    print("ready", flush=True)
    forward(descriptor, float(sys.argv[2]))


if __name__ == "__main__":
    main()
