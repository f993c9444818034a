"""A background flow in the model of a bottleneck: a receiver that obeys a Pacing."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.bottleneck import SEGMENT
from transferd.transfer.delay import Look
from transferd.transfer.growth import INTERVAL
from transferd.transfer.pacing import Pacing


class Ticks:
    """When a step is due, as seen by somebody who looks often."""

    def __init__(self, now: float) -> None:
        self._last = now

    def due(self, now: float) -> bool:
        """Tell whether one is, and take that it is done then."""
        due = now - self._last >= INTERVAL - 0.001
        if due:
            self._last = now
        return due


@dataclass(slots=True)
class Yielding:
    """A receiver that advertises what its pacing says, and takes nothing back.

    The connection is made when the first bytes come, with the delay that there is then.
    """

    target: float
    handshake: float
    flows: int = 1
    spread: float = 0.5
    proxied: bool = False
    #: What a kernel with timestamps would measure.
    rtt: float | None = None
    edge: float = 14_480.0
    pacing: Pacing | None = None
    history: list[tuple[float, float, float, float]] = field(default_factory=list)
    _received: float = 0.0
    _read: float = 0.0
    _read_at: float = 0.0
    _ticks: Ticks = field(default_factory=lambda: Ticks(0.0))

    def arrived(self, now: float, size: float) -> None:
        """Take *size* bytes, read as many as the pacing allows, and step when it is due."""
        self._received += size
        if self.pacing is None:
            if not size:
                return
            self.pacing = Pacing(
                target=self.target,
                now=now,
                handshake=self.handshake,
                received=int(self._received),
                spread=self.spread,
                proxied=self.proxied,
            )
            self._ticks = Ticks(now)
        pacing = self.pacing
        if size:
            pacing.saw(now, self._look())
        if self._ticks.due(now):
            unread = int(self._received - self._read)
            pacing.step(now, self._look(), unread=unread, flows=self.flows)
            self.history.append((now, pacing.base, pacing.queue, pacing.advice.window))
        advice = pacing.advice
        if advice.rate is None:
            self._read = self._received
        else:
            more = self._read + advice.rate * (now - self._read_at)
            self._read = min(self._received, more)
        self._read_at = now
        # No server sends a part of a segment.
        self.edge = max(self.edge, self._read + advice.window // SEGMENT * SEGMENT)

    def _look(self) -> Look:
        return Look(received=int(self._received), rtt=self.rtt)
