"""When a server is left alone: a circuit breaker, as one owner's jobs see one server.

Closed, it lets everybody through. Open, after several failures in a row that were the server's, it
lets nobody through for a while. Then it is half open: one job tries, and what becomes of that one
opens or closes it. A server that does not come back is left alone for longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from transferd.model.failures import Failure
from transferd.model.job import Seconds

#: Codes that are the server's doing; beside them 429 and 5xx.
_SERVERS = frozenset({"connection_refused", "connection_lost", "connect_timeout", "stalled"})
_DOUBLINGS = 32


def blames_server(failure: Failure) -> bool | None:
    """Tell whether a failure is the server's; None: it says nothing of the server.

    An answer that is no sign of distress (404) is as good as a success: somebody is there.
    """
    status = failure.http_status
    if status == 407:
        return None  # its proxy's
    if status is not None:
        return status == 429 or 500 <= status < 600
    return True if failure.code in _SERVERS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long."""

    #: So many failures in a row…
    failures: int
    #: …within this time open it.
    window: Seconds
    #: The first rest; it doubles each time that the server has not come back.
    first: Seconds
    #: No rest is longer, except by the server's own word.
    cap: Seconds
    #: Up to this part of Retry-After is added to it.
    spread: float

    def rest(self, times: int, retry_after: Seconds, jitter: float) -> Seconds:
        """Return how long a server rests that has rested so many times in a row before.

        *jitter* is at least 0 and less than 1: it takes away up to a half, but nothing of what the
        server has asked for.
        """
        longest = min(self.first * float(1 << min(times, _DOUBLINGS)), max(self.cap, self.first))
        return max(longest * (1 - jitter / 2), retry_after * (1 + self.spread * jitter))


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A breaker at one moment; what happens makes another one of it. The default is closed."""

    #: Failures in a row while it was closed, and when the first of them was.
    failures: int = 0
    since: Seconds = 0.0
    #: How often in a row it has opened.
    rests: int = 0
    #: It is open until then, and half open from then on; None: it is closed.
    until: Seconds | None = None
    #: The run that tries while it is half open.
    trial: int | None = None

    def wait(self, now: Seconds, policy: BreakerPolicy) -> Seconds:
        """Return how long a run is to wait; 0: it may begin."""
        if self.until is None:
            return 0.0
        if now < self.until:
            return self.until - now
        return 0.0 if self.trial is None else policy.first

    def begun(self, run: int, now: Seconds) -> Breaker:
        """Take that a run begins: the first one while it is half open is the trial."""
        if self.until is None or now < self.until or self.trial is not None:
            return self
        return replace(self, trial=run)

    def ended(self, run: int) -> Breaker:
        """Take that a run is over of which nothing was learnt: another one may try."""
        return replace(self, trial=None) if run == self.trial else self

    def failed(
        self, run: int, now: Seconds, policy: BreakerPolicy, *, retry_after: Seconds, jitter: float
    ) -> Breaker:
        """Take a failure that was the server's; *retry_after* is 0 where it asked for nothing."""
        if self.until is None:
            return self._counted(now, policy, retry_after, jitter)
        if now < self.until or (self.trial is not None and run != self.trial):
            # It began before; that the server is in distress is known.
            asked = now + retry_after * (1 + policy.spread * jitter) if retry_after else 0.0
            return replace(self, until=max(self.until, asked))
        return self._open(now, policy, retry_after, jitter)

    def _counted(
        self, now: Seconds, policy: BreakerPolicy, retry_after: Seconds, jitter: float
    ) -> Breaker:
        in_row = self.failures > 0 and now - self.since <= policy.window
        count, since = (self.failures + 1, self.since) if in_row else (1, now)
        if count < policy.failures:
            return Breaker(failures=count, since=since)
        return replace(self, failures=count)._open(now, policy, retry_after, jitter)

    def _open(
        self, now: Seconds, policy: BreakerPolicy, retry_after: Seconds, jitter: float
    ) -> Breaker:
        rest = policy.rest(self.rests, retry_after, jitter)
        return Breaker(failures=self.failures, rests=self.rests + 1, until=now + rest)
