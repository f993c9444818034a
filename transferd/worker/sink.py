"""A partial file that takes bytes while earlier ones are on their way to the disk.

All blocking calls go to threads: one that writes and, beside it, one that makes durable what was
written before. A cancelled wait leaves its thread at work: the file is closed, and its lock let go,
only after the last thread has left it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, TypeVarTuple, Unpack

from transferd.model.errors import TransferFailed
from transferd.model.job import Inode, Seconds
from transferd.worker.partfile import PartFile

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

#: So much is collected before a thread is asked to write it.
GATHER = 1024 * 1024
#: How long a cancelled opening waits for a file that it has to close again.
_PATIENCE: Seconds = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """How far the durable offset may lag behind, and who is told of it."""

    seconds: Seconds
    bytes: int
    #: Called with each new durable offset, in the loop's thread.
    reached: Callable[[int], None]


class Sink:
    """One open partial file and its threads. One task uses it."""

    def __init__(self, part: PartFile, threads: Executor, durability: Durability) -> None:
        self._part = part
        self._threads = threads
        self._durability = durability
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._writing: asyncio.Future[None] | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._sync_wanted = False
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._error: TransferFailed | None = None
        self._leaving = self._closing = False
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._synced_at: Seconds = self._loop.time()
        #: How many bytes of the file are here: on disk, on their way, or gathered.
        self.received = part.kept
        #: How many of them have been written; whether durably is another question.
        self.written = part.kept
        #: As far as the last sync that succeeded reaches.
        self.durable = self._told = part.kept

    @classmethod
    async def open(
        cls,
        threads: Executor,
        durability: Durability,
        place: tuple[str, str],
        offset: int,
        inode: Inode | None,
        *,
        wary: bool = False,
    ) -> Sink:
        """Open a partial file and keep its first *offset* bytes; see PartFile.open.

        *place* is the final name and the temporary one. *threads* must have two for each file.
        """
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(
            threads, partial(PartFile.open, *place, offset, inode, wary=wary)
        )
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            await _close_opened(opening)
            raise
        return cls(opening.result(), threads, durability)

    @property
    def kept(self) -> int:
        """How many bytes could be kept when it was opened."""
        return self._part.kept

    @property
    def inode(self) -> Inode:
        """Which file it is."""
        return self._part.inode

    @property
    def due(self) -> Seconds:
        """When `tick` has something to do, on the loop's clock."""
        behind = self.received - self.durable
        if behind == 0 or _busy(self._syncing) or self._sync_wanted:
            return math.inf
        hurry = behind >= self._durability.bytes
        return self._synced_at if hurry else self._synced_at + self._durability.seconds

    async def take(self, data: bytes) -> None:
        """Take the next bytes; waits while the disk is behind.

        Raises:
            TransferFailed: an earlier write, or sync, has failed.
        """
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        self.received += len(data)
        if self._gathered_bytes >= GATHER:
            await self._hand_over()

    async def tick(self) -> None:
        """Begin to make durable what is here, if it is time to.

        Raises:
            TransferFailed: an earlier write, or sync, has failed.
        """
        self._check()
        if self._loop.time() < self.due:
            return
        self._synced_at = self._loop.time()
        self._sync_wanted = True
        await self._hand_over()
        if not _busy(self._writing):
            self._sync()

    async def flush(self) -> None:
        """Write everything that was taken and make it durable.

        After a write that failed nothing more is written, but what was is made durable.

        Raises:
            TransferFailed: not everything could be.
        """
        await _settled(self._writing)
        if self._error is None:
            await self._drain()
        await _settled(self._syncing)
        self._sync()
        await _settled(self._syncing)
        self._report()
        self._check()

    async def settle(self) -> None:
        """Wait until no thread writes or syncs; no offset is reported after that by itself."""
        await _settled(self._writing)
        self._sync_wanted = False
        await _settled(self._syncing)
        self._report()

    async def restart(self) -> None:
        """Throw away all bytes and begin at zero.

        Raises:
            TransferFailed: the file cannot be cut.
        """
        await self.settle()
        self._gathered, self._gathered_bytes = [], 0
        self._error = None
        # First, so that no flush after a cancellation counts bytes that are cut off meanwhile.
        self.received = self.written = self.durable = self._told = 0
        await self._call(self._part.truncate, 0)

    async def free_space(self) -> int:
        """Return how many bytes may still be written to the file system."""
        return await self._call(self._part.free_space)

    async def digest(self, algorithm: str) -> str:
        """Return the digest of everything that was taken, read back, in hexadecimal."""
        await self._drain()
        stop = threading.Event()
        try:
            return await self._call(self._part.digest, algorithm, stop)
        finally:
            stop.set()

    async def finish(self, mtime: Seconds | None) -> None:
        """Write what is left, set the time of the file and make all of it durable."""
        await self._drain()
        await _settled(self._syncing)
        self._check()
        flush = partial(self._part.finish, mtime)
        self._syncing = self._submit(self._make_durable, self.written, flush)
        await _settled(self._syncing)
        self._check()

    async def close(self) -> None:
        """Close the file as soon as no thread is at work on it, and wait for that."""
        self._leaving = True
        self._close_if_idle()
        await asyncio.wait([self._left])

    async def _hand_over(self) -> None:
        """Give what is gathered to a thread; waits for the write before it."""
        await _settled(self._writing)
        self._check()
        if self._gathered:
            chunks, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._writing = self._submit(self._write, chunks)
            self._writing.add_done_callback(self._wrote)

    async def _drain(self) -> None:
        await self._hand_over()
        await _settled(self._writing)
        self._check()

    def _write(self, chunks: list[bytes]) -> None:
        try:
            self._part.write(*chunks)
        except TransferFailed as error:
            self._error = error
        finally:
            # Of a write that failed, a part may be there; it is sound.
            self.written = self._part.end

    def _wrote(self, _: object) -> None:
        if self._sync_wanted:
            self._sync()

    def _sync(self) -> None:
        """Begin to make durable what is written by now, not what is written meanwhile."""
        if not _busy(self._syncing) and self.written > self.durable:
            self._sync_wanted = False
            self._syncing = self._submit(self._make_durable, self.written, self._part.sync)
            self._syncing.add_done_callback(lambda _: self._report())

    def _make_durable(self, offset: int, flush: Callable[[], None]) -> None:
        try:
            flush()
        except TransferFailed as error:
            self._error = error
        else:
            self.durable = offset

    def _report(self) -> None:
        if self.durable > self._told:
            self._told = self.durable
            self._durability.reached(self._told)

    def _submit(self, function: Callable[[Unpack[_Args]], _T], *args: *_Args) -> asyncio.Future[_T]:
        future = self._loop.run_in_executor(self._threads, function, *args)
        self._running += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, future: asyncio.Future[_T]) -> None:
        self._running -= 1
        # Whoever waits for it may have been cancelled.
        future.exception()
        self._close_if_idle()

    async def _call(self, function: Callable[[Unpack[_Args]], _T], *args: *_Args) -> _T:
        future = self._submit(function, *args)
        await asyncio.wait([future])
        return future.result()

    def _close_if_idle(self) -> None:
        if self._leaving and not self._running and not self._closing:
            self._closing = True
            closing = self._loop.run_in_executor(self._threads, self._part.close)
            closing.add_done_callback(self._closed)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        # Everything that matters was flushed; what close says comes too late for anybody.
        closing.exception()
        self._left.set_result(None)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _busy(future: asyncio.Future[None] | None) -> bool:
    return future is not None and not future.done()


async def _settled(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        await asyncio.wait([future])


async def _close_opened(opening: asyncio.Future[PartFile]) -> None:
    """Close a file that nobody wants any more, soon, or as soon as the disk lets it open."""
    try:
        await asyncio.wait([opening], timeout=_PATIENCE)
    finally:
        if opening.done():
            _close_at_once(opening)
        else:
            opening.add_done_callback(_close_at_once)


def _close_at_once(opening: asyncio.Future[PartFile]) -> None:
    if opening.exception() is None:
        opening.result().close()
