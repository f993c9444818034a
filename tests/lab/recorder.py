"""Looks at a client's interfaces every 50 ms, and sends echoes through the bottleneck."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Self

from tests.lab.series import Series, interface_bytes, shares
from tests.lab.topology import Role, Topology

_INTERVAL = 0.05
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
#: struct icmphdr: type, code, checksum, id, sequence. Kernel and socket fill in what is 0.
_ICMP = struct.Struct("!BBHHH")
_PADDING = bytes(56)


class Recorder:
    """What happens in a topology from now on."""

    def __init__(self, topology: Topology) -> None:
        self.series = Series()
        # The path is looked up once, in that network.
        self._counters = topology.client.within(Path("/proc/thread-self/net/dev").open)
        #: Whatever came through the bottleneck.
        self._through = topology.home.within(Path("/proc/thread-self/net/dev").open)
        self._echoes = topology.client.within(_echo_socket)
        self._began = time.monotonic()
        #: Sequence number → when it was sent.
        self._sent: dict[int, float] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, topology: Topology) -> AsyncIterator[Self]:
        """Record until the block ends."""
        recorder = cls(topology)
        loop = asyncio.get_running_loop()
        with recorder._counters, recorder._through, recorder._echoes, _punctual():
            loop.add_reader(recorder._echoes, recorder._hear)
            watching = asyncio.create_task(recorder._watch())
            try:
                yield recorder
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
                loop.remove_reader(recorder._echoes)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def mark(self, what: str) -> float:
        """Note that something is done now."""
        now = self.now
        self.series.marks.append((now, what))
        return now

    async def wait(self, seconds: float) -> float:
        """Let time go by; returns the time then."""
        await asyncio.sleep(seconds)
        return self.now

    async def _watch(self) -> None:
        number = 0
        while True:
            self.series.add(self.now, self._received())
            self._ask(number)
            number += 1
            await asyncio.sleep(max(number * _INTERVAL - self.now, 0))

    def _received(self) -> Mapping[str, int]:
        self._counters.seek(0)
        self._through.seek(0)
        through = interface_bytes(self._through.read())["wan"]
        return shares(interface_bytes(self._counters.read()), through)

    def _ask(self, number: int) -> None:
        sequence = number % 65536
        self._sent[sequence] = sent = self.now
        self.series.echoes[sent] = math.inf
        packet = _ICMP.pack(_ECHO_REQUEST, 0, 0, 0, sequence) + _PADDING
        self._echoes.sendto(packet, (Role.PROBE.server, 0))

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                kind, _, _, _, sequence = _ICMP.unpack_from(self._echoes.recv(512))
                if kind == _ECHO_REPLY and sequence in self._sent:
                    sent = self._sent.pop(sequence)
                    self.series.echoes[sent] = self.now - sent


def _echo_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def _punctual() -> Iterator[None]:
    """Come first while it records; what it starts does not."""
    first = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(0, first, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
