"""How far running jobs are, between two durable offsets: for people to look at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transferd.model.job import Job


@dataclass(slots=True)
class Progress:
    """Live counts of one run."""

    #: File → bytes received beyond its durable offset.
    ahead: dict[int, int]
    #: File → durable bytes, parts and all.
    durable: dict[int, int]
    #: Size of the file that moves, for a job of one file.
    total: int | None = None

    @classmethod
    def fresh(cls) -> Progress:
        """Return counts of a run that has not begun."""
        return cls(ahead={}, durable={})

    def gained(self, file: int, count: int) -> int:
        """Return how many more bytes of a file are there when *count* are."""
        return max(0, count - self.durable.get(file, 0) - self.ahead.get(file, 0))

    def received(self, file: int, count: int, total: int | None) -> None:
        """Note that *count* bytes of a file are there."""
        self.ahead[file] = max(0, count - self.durable.get(file, 0))
        self.total = total

    def kept(self, file: int, count: int) -> None:
        """Note that *count* bytes of a file are durable and counted by the queue."""
        live = self.durable.get(file, 0) + self.ahead.get(file, 0)
        self.durable[file] = count
        self.ahead[file] = max(0, live - count)

    def lost(self, file: int) -> None:
        """Note that a file starts again from zero."""
        self.durable[file] = self.ahead[file] = 0

    def done(self, file: int) -> None:
        """Note that a file is whole: the queue counts all of it."""
        self.durable.pop(file, None)
        self.ahead.pop(file, None)

    def view(self, job: Job) -> Job:
        """Return *job* with the live counts."""
        total = job.bytes_total
        if total is None and job.files_total == 1:
            total = self.total
        moved = job.bytes_transferred + sum(self.ahead.values())
        return replace(
            job,
            bytes_transferred=moved if total is None else min(moved, total),
            bytes_total=total,
        )
