"""A proxy in the model of a bottleneck: it collects what its store holds, and hands it over."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.bottleneck import Bottleneck, Flow
from tests.support.congestion import Cubic
from tests.support.yielding import Yielding

_ETHERNET = 125_000_000.0


@dataclass(slots=True)
class Relay:
    """The receiver of one flow, and the sender of another: it fits both."""

    room: float
    _received: float = 0.0
    _sent: float = 0.0

    @property
    def edge(self) -> float:
        """See Receiver.edge."""
        return self._sent + self.room

    def arrived(self, now: float, size: float) -> None:
        """See Receiver.arrived."""
        self._received += size

    def acked(self, now: float, size: float, rtt: float) -> None:
        """See Sender.acked."""

    def lost(self, now: float, size: float) -> None:
        """See Sender.lost."""

    def allowance(self, now: float, sent: float, inflight: float, step: float) -> float:
        """See Sender.allowance."""
        self._sent = sent
        return self._received - sent


class Home:
    """A line, and a proxy behind it that somebody in the same house downloads through."""

    def __init__(self, line: Bottleneck, base: float, receiver: Yielding, room: float) -> None:
        self.line = line
        self._ethernet = Bottleneck(rate=_ETHERNET, buffer=0.1, step=line.step)
        relay = Relay(room)
        #: What the proxy collects.
        self.collected = Flow(Cubic(), base, relay)
        line.add(self.collected)
        self._ethernet.add(Flow(relay, line.step, receiver))

    def run(self, seconds: float) -> None:
        """Let time pass everywhere."""
        self.line.run(seconds, lambda _: self._ethernet.run(self.line.step))
