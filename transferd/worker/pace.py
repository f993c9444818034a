"""How fast a body may move, wherever its bytes go along."""

from __future__ import annotations

import math
from typing import Protocol

from transferd.model.job import Seconds
from transferd.worker.flow import PIPE


class Pace(Protocol):
    """Asked before each read of a body; one body asks at a time.

    All times are of `time.monotonic`.
    """

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """Return how many bytes may be read now, and how soon to ask again, whatever comes."""
        ...

    def took(self, now: Seconds, count: int) -> None:
        """Take that *count* bytes were read."""
        ...

    def close(self) -> None:
        """Let go of the connection: the body is over."""
        ...


class Unpaced:
    """As fast as they come."""

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """See Pace.room."""
        return PIPE, math.inf

    def took(self, now: Seconds, count: int) -> None:
        """See Pace.took."""

    def close(self) -> None:
        """See Pace.close."""
