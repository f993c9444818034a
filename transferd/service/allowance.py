"""How often something may happen: so many times at once, and so many a second in the long run."""

from __future__ import annotations

from transferd.model.job import Seconds


class Allowance:
    """A token bucket. Times are those of any clock that does not go back."""

    def __init__(self, rate: float, burst: float, now: Seconds) -> None:
        """Allow *rate* a second, and *burst* of them at once."""
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def spend(self, amount: float, now: Seconds) -> Seconds:
        """Take *amount* in any case; returns how long it is until that was allowed."""
        self._refill(now)
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def afford(self, amount: float, now: Seconds) -> bool:
        """Take *amount* if it is allowed now; whether it was."""
        self._refill(now)
        if self._left < amount:
            return False
        self._left -= amount
        return True

    def _refill(self, now: Seconds) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
