"""What all files of a run have in common, and whom they tell how they fare."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from transferd.model.job import JobId, Settings
from transferd.wire.link import Message, WorkerSettings


class Ledger(Protocol):
    """The run, as far as its files have to do with it."""

    @property
    def stopping(self) -> bool:
        """Whether the run is to be left as it is, to be continued later."""
        ...

    def connected(self) -> None:
        """Take that a server answered with a file."""
        ...

    def tell(self, message: Message) -> None:
        """Send a message to the daemon; their order is kept."""
        ...

    async def forget(self, file: int) -> None:
        """Have the partial data of a file forgotten; returns when that is recorded."""
        ...

    async def size(self, file: int, total: int) -> None:
        """Name the size of a file; returns when there is room for it, in the queue."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What all files of a run have in common."""

    job: JobId
    run: int
    settings: Settings
    limits: WorkerSettings
    threads: Executor
    ledger: Ledger
