"""Figures of what happens, as whoever makes it happen sees them."""

from __future__ import annotations

from typing import Protocol

from transferd.model.job import Seconds


class Meter(Protocol):
    """Who counts what happens; never by user or job, of which there may be any number."""

    def moved(self, count: int) -> None:
        """So many more bytes are durable."""
        ...

    def failed(self, code: str) -> None:
        """A job is in error."""
        ...

    def stumbled(self, code: str) -> None:
        """A job was interrupted, and is tried again."""
        ...

    def told(self, lag: Seconds) -> None:
        """A terminal notice was first handed to somebody so long after it was made."""
        ...

    def settled(self, lag: Seconds) -> None:
        """A terminal notice was acknowledged, so long after it was made."""
        ...

    def queried(self, operation: str, seconds: Seconds) -> None:
        """A `commit` to the queue file or a `read` from it took so long, waiting included."""
        ...

    def worker_started(self) -> None:
        """A worker process has said hello."""
        ...

    def worker_ended(self, status: int | None) -> None:
        """A worker process is gone; None: it would not go."""
        ...

    def answered(self, method: str, route: str, status: int) -> None:
        """A request was answered."""
        ...

    def connected(self, count: int) -> None:
        """So many callers are connected now."""
        ...
