"""A bottleneck in a model: a drop-tail queue that flows share, in small slices of time.

Fluid, not packets: a gigabit has too many of those for a unit test. A slice is served in the order
of its arrival, and the flows within a slice in proportion. The receiver sits behind the queue; all
of the base delay lies on the way of the acknowledgements, which is the same to every RTT.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

SEGMENT = 1448

#: A server's own line is so many times faster than the bottleneck.
_ACCESS = 10.0


class Sender(Protocol):
    """The congestion control of a server."""

    def acked(self, now: float, size: float, rtt: float) -> None:
        """Learn that *size* bytes arrived; the newest of them took *rtt*."""

    def lost(self, now: float, size: float) -> None:
        """Learn, one RTT later, that *size* bytes were dropped."""

    def allowance(self, now: float, sent: float, inflight: float, step: float) -> float:
        """Return how many bytes may be sent in this slice, after *sent* before it."""


class Receiver(Protocol):
    """Who reads at the other end."""

    @property
    def edge(self) -> float:
        """The right edge of the window: bytes that the server may have sent in all."""

    def arrived(self, now: float, size: float) -> None:
        """Take *size* bytes; called once in a slice, also with nothing."""


@dataclass(slots=True)
class Eager:
    """A receiver whose window never matters."""

    edge: float = float("inf")

    def arrived(self, now: float, size: float) -> None:
        """Read at once."""


@dataclass(slots=True, eq=False)
class Flow:
    """One connection through the bottleneck, from *start* to *end*."""

    sender: Sender
    base: float
    receiver: Receiver = field(default_factory=Eager)
    start: float = 0.0
    end: float = float("inf")
    sent: float = 0.0
    received: float = 0.0
    inflight: float = 0.0
    #: Bytes received at the end of each slice.
    curve: list[float] = field(default_factory=list)

    def between(self, start: float, end: float, step: float) -> float:
        """Return the mean rate in bytes per second from *start* to *end*."""
        first, last = round(start / step), min(round(end / step), len(self.curve) - 1)
        return (self.curve[last] - self.curve[first]) / ((last - first) * step)


class Bottleneck:
    """The queue, and the clock of the model."""

    def __init__(
        self,
        *,
        rate: float,
        buffer: float,
        step: float = 0.001,
        jitter: float = 0.0,
        seed: int = 1,
    ) -> None:
        """Serve *rate* bytes per second from a queue of *buffer* seconds.

        With *jitter* the rate of each slice differs by up to that part of it (same *seed*: same
        noise).
        """
        self.rate = rate
        self.step = step
        self.now = 0.0
        self.backlog = 0.0
        #: The queueing delay at the end of each slice.
        self.delays: list[float] = []
        self._capacity = max(buffer * rate, 2 * SEGMENT)
        self._jitter = jitter
        self._noise = random.Random(seed)  # noqa: S311
        self._flows: list[Flow] = []
        self._acks: list[deque[tuple[float, float, float]]] = []
        self._losses: list[deque[tuple[float, float]]] = []
        self._queue: deque[tuple[float, list[float]]] = deque()

    def add(self, *flows: Flow) -> None:
        """Let *flows* pass through the bottleneck."""
        for flow in flows:
            self._flows.append(flow)
            self._losses.append(deque())
            trip = max(1, round(flow.base / self.step))
            silence = (0.0, flow.receiver.edge, flow.base)
            self._acks.append(deque([silence] * trip))
            flow.curve.extend([0.0] * len(self.delays))

    def run(self, seconds: float, each: Callable[[float], None] | None = None) -> None:
        """Let time pass; call *each* with the time after every slice."""
        for _ in range(round(seconds / self.step)):
            self._slice()
            if each is not None:
                each(self.now)

    def _slice(self) -> None:
        now = self.now = self.now + self.step
        offers = [self._offer(index, flow, now) for index, flow in enumerate(self._flows)]
        rate = self.rate
        if self._jitter:
            rate *= 1 + self._noise.uniform(-self._jitter, self._jitter)
        self._enqueue(offers, rate * self.step, now)
        self._deliver(rate * self.step, now)
        self.delays.append(self.backlog / self.rate)

    def _offer(self, index: int, flow: Flow, now: float) -> float:
        size, edge, rtt = self._acks[index].popleft()
        if size:
            flow.inflight -= size
            flow.sender.acked(now, size, rtt)
        losses = self._losses[index]
        while losses and losses[0][0] <= now:
            _, lost = losses.popleft()
            flow.inflight -= lost
            # What was lost is sent again, within the same window.
            flow.sent -= lost
            flow.sender.lost(now, lost)
        if not flow.start <= now < flow.end:
            return 0.0
        allowed = flow.sender.allowance(now, flow.sent, flow.inflight, self.step)
        offer = min(allowed, edge - flow.sent, _ACCESS * self.rate * self.step)
        if offer <= 0.0:
            return 0.0
        flow.inflight += offer
        flow.sent += offer
        return offer

    def _enqueue(self, offers: list[float], service: float, now: float) -> None:
        total = sum(offers)
        if not total:
            return
        room = self._capacity + service - self.backlog
        if total > room:
            part = (total - room) / total
            seen = now + self.backlog / self.rate
            for index, offer in enumerate(offers):
                if offer:
                    self._losses[index].append((seen + self._flows[index].base, offer * part))
            offers = [offer * (1 - part) for offer in offers]
            total = room
        self._queue.append((now, offers))
        self.backlog += total

    def _deliver(self, service: float, now: float) -> None:
        queue = self._queue
        served = [0.0] * len(self._flows)
        waits = now
        while queue and service > 0.0:
            waits, parts = queue[0]
            size = sum(parts)
            if size <= service:
                queue.popleft()
                service -= size
                self.backlog -= size
                taken: Sequence[float] = parts
            else:
                part = service / size
                taken = [each * part for each in parts]
                queue[0] = (waits, [each - gone for each, gone in zip(parts, taken, strict=True)])
                self.backlog -= service
                service = 0.0
            for index, each in enumerate(taken):
                served[index] += each
        if not queue:
            self.backlog = 0.0
        for index, flow in enumerate(self._flows):
            size = served[index]
            flow.received += size
            flow.curve.append(flow.received)
            flow.receiver.arrived(now, size)
            self._acks[index].append((size, flow.receiver.edge, flow.base + now - waits))
