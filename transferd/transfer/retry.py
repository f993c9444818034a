"""When a job is tried again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from transferd.model.failures import Failure, Remedy
from transferd.model.job import Seconds
from transferd.transfer.httpdate import parse_http_date

#: No delay of Remedy.SOON grows longer, unless its first one is.
SOON_CAP: Seconds = 60.0

#: No server is left alone for longer by its own word: what asks for more is wrong about the time.
LONGEST_RETRY_AFTER: Seconds = 86_400.0

_DOUBLINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient one job is."""

    #: The job's min_retry_delay; no wait of Remedy.BACKOFF is shorter.
    first: Seconds
    #: No wait is made longer than this, except by `first`, by the server and by `spread`.
    cap: Seconds
    #: First wait of Remedy.SOON.
    soon: Seconds
    #: Every wait of Remedy.SPACE.
    space: Seconds
    #: The window of Remedy.BACKOFF is at least this part of the shortest wait, so that neither a
    #: first try nor a Retry-After brings back at one moment all whom the server lost at one moment.
    spread: float
    #: The job's no_progress_timeout; 0: every failure is fatal at once (BITS.md J16).
    patience: Seconds

    def delay(
        self,
        failure: Failure,
        *,
        attempts: int,
        stuck_for: Seconds,
        retry_after: Seconds | None,
        jitter: float,
        rest: Seconds = 0.0,
    ) -> Seconds | None:
        """Return how long to wait before the next try; None: give up.

        The job is given up when its owner has to act, or when the no-progress timeout would pass
        before the earliest moment at which the next try is allowed (BITS.md T13, Y3). A wait for
        disk space never ends that way: it waits for an event (BITS.md J11, Y4), and the time
        spent in it is not to be counted in *stuck_for*.

        Args:
            failure: what has just happened.
            attempts: failures in a row before this one, without a byte in between.
            stuck_for: time without progress so far.
            retry_after: what the server asked for; the wait is not shorter, whatever the cap.
            jitter: a random number, at least 0 and less than 1. Above its minimum, BACKOFF waits
                for a random part of a window that doubles with each attempt, so that jobs that
                failed together do not come back together.
            rest: how long the server is left alone, which nobody is given up for.
        """
        remedy = failure.kind.remedy
        if remedy is Remedy.OWNER or self.patience <= 0:
            return None
        if remedy is Remedy.SPACE:
            return self.space
        least, window = self._bounds(remedy, attempts)
        least = max(least, retry_after or 0.0)
        if stuck_for + least > self.patience:
            return None
        if remedy is Remedy.BACKOFF:
            window = max(window, least * (1 + self.spread))
        wanted = max(least + jitter * max(0.0, window - least), rest)
        # A try that is allowed before the timeout is not put off until after it.
        return min(wanted, self.patience - stuck_for)

    def _bounds(self, remedy: Remedy, attempts: int) -> tuple[Seconds, Seconds]:
        """Return the shortest and the longest wait."""
        growth = float(1 << min(max(attempts, 0), _DOUBLINGS))
        if remedy is Remedy.SOON:
            even = min(self.soon * growth, max(SOON_CAP, self.soon))
            return even, even
        return self.first, max(self.first, min(self.first * growth, self.cap))


def parse_retry_after(value: str, now: datetime) -> Seconds | None:
    """Read a Retry-After field (RFC 9110 10.2.3): seconds, or a date.

    Returns: seconds from *now*, from 0 to LONGEST_RETRY_AFTER; None for a text that is neither.
    """
    text = value.strip(" \t")
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    moment = parse_http_date(text)
    if moment is None:
        return None
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_RETRY_AFTER)
