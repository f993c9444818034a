"""How fast a body may move, wherever its bytes go along."""

from __future__ import annotations

import math
from typing import Protocol

from transferd.model.job import Seconds
from transferd.worker.flow import PIPE


class Pace(Protocol):
    """Asked before each read of a body; one body asks at a time."""

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """Return how many bytes may be read now, and how long to wait where there are none.

        *now* is a time of `time.monotonic`.
        """
        ...

    def took(self, count: int) -> None:
        """Take that *count* bytes were read."""
        ...


class Unpaced:
    """As fast as they come."""

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """See Pace.room."""
        return PIPE, math.inf

    def took(self, count: int) -> None:
        """See Pace.took."""
