"""How patient the daemon is: its own part of the retry policy, and a job's."""

from __future__ import annotations

from dataclasses import dataclass

from transferd.model.job import Seconds, Timers
from transferd.transfer.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """The parts of the retry policy that are the daemon's, not the job's."""

    cap: Seconds
    soon: Seconds
    space: Seconds
    #: The part of a wait that is spread behind it.
    spread: float

    def policy(self, timers: Timers) -> RetryPolicy:
        """Return the whole policy for a job; its own delay is never cut by the daemon's cap."""
        return RetryPolicy(
            first=timers.min_retry_delay,
            cap=max(self.cap, timers.min_retry_delay),
            soon=self.soon,
            space=self.space,
            spread=self.spread,
            patience=timers.no_progress_timeout,
        )
