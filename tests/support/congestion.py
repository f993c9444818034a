"""The congestion control of servers, for the model of a bottleneck: cubic and bbr."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.support.bottleneck import SEGMENT

_INITIAL = 10.0 * SEGMENT


@dataclass(slots=True)
class Cubic:
    """CUBIC (RFC 9438) with HyStart's delay exit of the slow start, as in Linux."""

    cwnd: float = _INITIAL
    _ssthresh: float = float("inf")
    _peak: float = 0.0
    _epoch: float | None = None
    _origin: float = 0.0
    _reno: float = 0.0
    _least: float = float("inf")
    _dropped: float = 0.0
    _recovered: float = 0.0
    _rtt: float = 0.0
    _round: float = 0.0

    def acked(self, now: float, size: float, rtt: float) -> None:
        """Grow."""
        self._least = min(self._least, rtt)
        self._rtt = rtt
        if self.cwnd < self._ssthresh:
            self._start(size, rtt)
            return
        if self._epoch is None:
            self._epoch = now
            self._peak = max(self._peak, self.cwnd)
            self._origin = ((self._peak - self.cwnd) / SEGMENT / 0.4) ** (1 / 3)
            self._reno = self.cwnd
        age = now - self._epoch + rtt - self._origin
        goal = self._peak + 0.4 * age * age * age * SEGMENT
        self._reno += 0.53 * SEGMENT * size / self.cwnd
        goal = min(max(goal, self._reno), 1.5 * self.cwnd)
        least = 0.01 * SEGMENT * size / self.cwnd
        self.cwnd += max((goal - self.cwnd) * size / self.cwnd, least)

    def _start(self, size: float, rtt: float) -> None:
        """Double in a round; leave when the first segments of one came late (HyStart)."""
        if self._round <= 0.0:
            self._round = self.cwnd
            if rtt > self._least + min(max(self._least / 8, 0.004), 0.016):
                self._ssthresh = self.cwnd
        self._round -= size
        self.cwnd += size

    def lost(self, now: float, size: float) -> None:
        """Shrink once in an RTT, when a whole segment is gone."""
        self._dropped += size
        if self._dropped < SEGMENT or now < self._recovered:
            return
        self._dropped = 0.0
        self._recovered = now + self._rtt
        self._peak = self.cwnd * (0.85 if self.cwnd < self._peak else 1.0)
        self.cwnd = max(self.cwnd * 0.7, 2.0 * SEGMENT)
        self._ssthresh = self.cwnd
        self._epoch = None

    def allowance(self, now: float, sent: float, inflight: float, step: float) -> float:
        """Fill the window."""
        return self.cwnd - inflight


@dataclass(slots=True)
class Capped:
    """A server that sends no faster than *rate*, and keeps what it could not send in *store*."""

    rate: float
    store: float = 256 * 1024.0
    cubic: Cubic = field(default_factory=Cubic)
    _written: float = 0.0

    def acked(self, now: float, size: float, rtt: float) -> None:
        """Grow."""
        self.cubic.acked(now, size, rtt)

    def lost(self, now: float, size: float) -> None:
        """Shrink."""
        self.cubic.lost(now, size)

    def allowance(self, now: float, sent: float, inflight: float, step: float) -> float:
        """Send what the application has written."""
        self._written = min(self._written + self.rate * step, sent + self.store)
        return min(self._written - sent, self.cubic.cwnd - inflight)


_CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(slots=True)
class Bbr:
    """BBR, first version: paced at the largest delivery rate of ten rounds."""

    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    _bandwidth: float = 0.0
    _least: float = float("inf")
    _least_at: float = 0.0
    _mode: str = "startup"
    _full: float = 0.0
    _stale: int = 0
    _phase: int = 2
    _phase_at: float = 0.0
    _probe_until: float = 0.0
    _round_at: float = 0.0
    _round: float = 0.0

    def acked(self, now: float, size: float, rtt: float) -> None:
        """Take a sample of the rate in each round, and of the delay always."""
        if rtt <= self._least:
            self._least, self._least_at = rtt, now
        self._round += size
        if now - self._round_at >= max(rtt, 0.003):
            if self._round_at:
                self._rates.append(self._round / (now - self._round_at))
                self._bandwidth = max(self._rates)
                self._turn()
            self._round, self._round_at = 0.0, now
        if self._mode != "probe_rtt" and now - self._least_at > 10.0:
            self._mode = "probe_rtt"
            self._probe_until = now + 0.2 + rtt
            self._least = rtt
        elif self._mode == "probe_rtt" and now > self._probe_until:
            self._mode, self._least_at = "probe_bw", now

    def _turn(self) -> None:
        if self._mode != "startup":
            return
        if self._bandwidth > self._full * 1.25:
            self._full, self._stale = self._bandwidth, 0
        else:
            self._stale += 1
            if self._stale >= 3:
                self._mode = "drain"

    def lost(self, now: float, size: float) -> None:
        """Care for no loss."""

    def allowance(self, now: float, sent: float, inflight: float, step: float) -> float:
        """Keep to the pace, and to two BDP in flight."""
        if not self._bandwidth:
            return _INITIAL - inflight
        bdp = self._bandwidth * self._least
        if self._mode == "probe_rtt":
            return 4 * SEGMENT - inflight
        if self._mode == "drain" and inflight <= bdp:
            self._mode, self._phase_at = "probe_bw", now
        gain = {"startup": 2.885, "drain": 1 / 2.885}.get(self._mode, _CYCLE[self._phase])
        if self._mode == "probe_bw":
            early = gain < 1 and inflight <= bdp
            if now - self._phase_at > self._least or early:
                self._phase, self._phase_at = (self._phase + 1) % len(_CYCLE), now
        most = (2.885 if self._mode == "startup" else 2.0) * bdp + 3 * SEGMENT
        return min(gain * self._bandwidth * step, most - inflight)
