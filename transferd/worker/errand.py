"""What all files of a run have in common, and whom they tell how they fare."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from transferd.model.job import Inode, JobId, Settings
from transferd.wire.link import WorkerSettings
from transferd.wire.message import Message
from transferd.worker.batch import Deposit
from transferd.worker.lanes import Lane


class Ledger(Protocol):
    """The run, as far as its files have to do with it."""

    @property
    def leaving(self) -> bool:
        """Whether files are to be left as they are, to be continued later."""
        ...

    def connected(self) -> None:
        """Take that a server answered with a file."""
        ...

    def tell(self, message: Message) -> None:
        """Send a message to the daemon; their order is kept."""
        ...

    async def deposit(self, deposit: Deposit, done: Callable[[Inode], Message]) -> None:
        """Have a small file kept, and tell the daemon what *done* makes of that when it is.

        Raises:
            TransferFailed: one that was given before could not be kept.
        """
        ...

    async def spare(self, recall: Callable[[Lane], None]) -> Lane | None:
        """Return a lane for a part of a file, if the job may have one more; see `give_back`.

        *recall* is called with it when it is wanted back.

        Raises:
            TransferFailed: `tls_failed`, the CA file cannot be used.
        """
        ...

    def give_back(self, lane: Lane) -> None:
        """Take that a spare lane is not used any more."""
        ...

    async def retuned(self) -> None:
        """Wait until the job may have other connections than it had."""
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
