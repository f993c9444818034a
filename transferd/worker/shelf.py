"""Small files, whole in memory, on their way to the disk: many are made durable by one call.

A flush of one file costs about as much as one of its whole file system, so that what waits together
is flushed together. Nobody hears that a file is kept before that. What hangs on a file server that
is gone holds up nobody whose files are elsewhere: each file system has a shelf of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Inode, Seconds
from transferd.worker.batch import Deposit, Outcome, keep

#: Files that a thread takes at once: each needs a descriptor.
_BATCH = 128
#: Waking a thread is worth so many; fewer wait for more, but not for long.
_WORTH = 32
_LATEST: Seconds = 0.02
#: Of all runs, in memory, for a file system.
_MOST_BYTES = 16 * 1024 * 1024
#: Another thread begins when those at work have not kept a file for so long, up to so many.
_SLOW: Seconds = 0.5
_THREADS = 8
#: Directories of which it is remembered where they are.
_DIRECTORIES = 1024


#: Called with the outcome, in the loop's thread.
Kept: TypeAlias = Callable[[Outcome], None]


class Shelves:
    """All shelves of a worker."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._shelves: dict[int | None, Shelf] = {}
        self._directories: dict[str, Shelf] = {}

    def known(self, directory: str) -> Shelf | None:
        """Return the shelf for files in *directory*, where that was found before."""
        return self._directories.get(directory)

    async def find(self, directory: str) -> Shelf:
        """Return the shelf for files in *directory*; waits for as long as its file system hangs.

        It may lead elsewhere later: then files are flushed with the wrong ones, and as surely.
        """
        loop = asyncio.get_running_loop()
        device = await loop.run_in_executor(self._threads, _device, directory)
        if device not in self._shelves:
            self._shelves[device] = Shelf(self._threads)
        if len(self._directories) >= _DIRECTORIES:
            self._directories.clear()
        self._directories[directory] = self._shelves[device]
        return self._shelves[device]


def _device(directory: str) -> int | None:
    """Return on which file system a directory is; None: whoever opens it hears why not."""
    try:
        return os.stat(directory).st_dev
    except (OSError, ValueError):
        return None


class Shelf:
    """What waits for one file system, of all runs of a worker."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Deposit, Kept]] = deque()
        self._working = 0
        self._moved_at: Seconds = 0.0
        self._bytes = 0
        self._fewer = asyncio.Event()
        #: Runs while what waits may wait for more.
        self._latest: asyncio.TimerHandle | None = None

    async def room(self) -> None:
        """Wait until there are not too many bytes in memory."""
        while self._bytes > _MOST_BYTES:
            self._fewer.clear()
            await self._fewer.wait()

    def put(self, deposit: Deposit, kept: Kept) -> None:
        """Keep a file; *kept* is called when it is durable, or cannot be."""
        self._bytes += len(deposit.data)
        if not self._waiting and self._latest is None:
            self._latest = self._loop.call_later(_LATEST, self.begin)
        self._waiting.append((deposit, kept))
        self._staff()

    def begin(self) -> None:
        """Begin to keep what waits: whoever put it has no more."""
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None
        self._staff()

    def _staff(self) -> None:
        if not self._waiting or (self._latest is not None and len(self._waiting) < _WORTH):
            return
        slow = self._loop.time() - self._moved_at > _SLOW
        if not self._working or (slow and self._working < _THREADS):
            if not self._working:
                self._moved_at = self._loop.time()
            self._working += 1
            batch = self._take()
            work = self._loop.run_in_executor(self._threads, _work, [held for held, _ in batch])
            work.add_done_callback(partial(self._settle, batch))

    def _take(self) -> list[tuple[Deposit, Kept]]:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        if self._waiting and self._latest is None:
            self._latest = self._loop.call_later(_LATEST, self.begin)
        return batch

    def _settle(
        self, batch: Iterable[tuple[Deposit, Kept]], work: asyncio.Future[Sequence[Outcome]]
    ) -> None:
        self._working -= 1
        self._tell(batch, work.result())
        self._staff()

    def _tell(self, batch: Iterable[tuple[Deposit, Kept]], outcomes: Iterable[Outcome]) -> None:
        self._moved_at = self._loop.time()
        for (deposit, kept), outcome in zip(batch, outcomes, strict=True):
            self._bytes -= len(deposit.data)
            kept(outcome)
        self._fewer.set()


class Deposits:
    """The small files of one run that are on their way to the disk."""

    def __init__(self, shelves: Shelves, most: int) -> None:
        self._shelves = shelves
        self._used: set[Shelf] = set()
        self._most = most
        self._open = 0
        self._fewer = asyncio.Event()
        self._failed: TransferFailed | None = None
        self._left = False

    async def put(self, deposit: Deposit, kept: Callable[[Inode], None]) -> None:
        """Keep a file; waits while there are many. *kept* is called when it is durable.

        Raises:
            TransferFailed: a file that was put before could not be kept.
        """
        directory = os.path.dirname(deposit.temporary)
        shelf = self._shelves.known(directory) or await self._shelves.find(directory)
        self._used.add(shelf)
        self._open += 1
        deposit = replace(deposit, wanted=lambda: not self._left)
        shelf.put(deposit, partial(self._settle, kept))
        await self._until(self._most)
        await shelf.room()

    async def settled(self) -> None:
        """Wait until all are kept.

        Raises:
            TransferFailed: one could not be.
        """
        self._begin()
        await self._until(1)

    async def leave(self, patience: Seconds) -> None:
        """Wait until the disk has them all, or *patience* is at its end.

        Nothing is told then, and nothing more is begun.
        """
        self._begin()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self._open:
                        await self._change()
        finally:
            self._left = True

    def _begin(self) -> None:
        for shelf in self._used:
            shelf.begin()

    async def _until(self, fewer: int) -> None:
        while self._open >= fewer and self._failed is None:
            await self._change()
        if self._failed is not None:
            raise self._failed

    async def _change(self) -> None:
        self._fewer.clear()
        await self._fewer.wait()

    def _settle(self, kept: Callable[[Inode], None], outcome: Outcome) -> None:
        self._open -= 1
        self._fewer.set()
        if isinstance(outcome, TransferFailed):
            self._failed = outcome
        elif not self._left:
            kept(outcome)


def _work(deposits: Sequence[Deposit]) -> Sequence[Outcome]:
    try:
        return keep(deposits)
    except Exception as error:  # noqa: BLE001
        # Whoever waits for a file hears of it, whatever fault of ours it was.
        return [_fault(error)] * len(deposits)


def _fault(error: Exception) -> TransferFailed:
    message = f"cannot keep the file: the worker has a fault of its own ({type(error).__name__})"
    return TransferFailed(Failure(code="worker_fault", message=message))
