"""The link in the middle: how fast, how deep its buffer is, and how far the server."""

from __future__ import annotations

from dataclasses import dataclass

#: Of an Ethernet frame without options of IP, and of what of it TCP with timestamps carries.
_FRAME, _PAYLOAD = 1514, 1448
#: A link that is slow must not get a burst that it sends for long.
_BURST_SECONDS = 0.0005
_FEWEST_SEGMENTS, _MOST_SEGMENTS = 2, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A bottleneck."""

    #: Mbit/s.
    rate: int
    #: What waits in a full buffer, in milliseconds of the rate.
    buffer: int
    #: Round trip of a packet that waits nowhere, in milliseconds.
    rtt: int

    @property
    def capacity(self) -> float:
        """Bytes of TCP's payload that fit through in a second."""
        return self._bytes_per_second * _PAYLOAD / _FRAME

    @property
    def segments(self) -> int:
        """How many segments a sender may hand over as one: half a millisecond of them."""
        fitting = int(self._bytes_per_second * _BURST_SECONDS / _FRAME)
        return min(max(fitting, _FEWEST_SEGMENTS), _MOST_SEGMENTS)

    @property
    def burst(self) -> int:
        """Bytes of the token bucket: a millisecond, and two such hand-overs at least."""
        return max(int(self._bytes_per_second / 1000), 2 * self.segments * _FRAME)

    @property
    def limit(self) -> int:
        """Bytes of the buffer."""
        return int(self._bytes_per_second * self.buffer / 1000)

    @property
    def ramp(self) -> float:
        """Seconds that a flow is given to find its rate before it is measured."""
        return 1.0 + 0.02 * self.rtt

    @property
    def _bytes_per_second(self) -> float:
        return self.rate * 1e6 / 8

    def __str__(self) -> str:
        return f"{self.rate}M-{self.buffer}ms-{self.rtt}ms"
