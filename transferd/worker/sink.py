"""A partial file that takes bytes while earlier ones are on their way to the disk.

All blocking calls go to threads: one for each stretch that is written and, beside them, one that
makes durable what was written before. A cancelled wait leaves its thread at work: the file is
closed, and its lock let go, only after the last thread has left it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, TypeVarTuple, Unpack

from transferd.model.errors import TransferFailed
from transferd.model.job import Inode, Part, Seconds
from transferd.transfer.ranges import NOTHING, Coverage, cover
from transferd.worker.partfile import PartFile
from transferd.worker.stretch import Stretch, busy, settled

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

#: A file gets so long to be closed.
CLOSE_SECONDS: Seconds = 0.5
#: How long a cancelled opening waits for a file that it has to close again.
_PATIENCE: Seconds = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """How far what is durable may lag behind, and who is told of it."""

    seconds: Seconds
    bytes: int
    #: Called with what is durable by now, in the loop's thread.
    reached: Callable[[Coverage], None]


class Sink:
    """One open partial file and its threads. One task uses it, beside those of its stretches."""

    def __init__(self, part: PartFile, threads: Executor, durability: Durability) -> None:
        self._part = part
        self._threads = threads
        self._durability = durability
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._stretches: list[Stretch] = []
        self._kept = part.kept
        self._syncing: asyncio.Future[None] | None = None
        self._lengthening: asyncio.Future[None] | None = None
        self._sync_wanted = False
        self._error: TransferFailed | None = None
        self._leaving = self._closing = False
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._synced_at: Seconds = self._loop.time()
        #: What the last sync that succeeded has made durable.
        self._durable = self._told = part.kept

    @classmethod
    async def open(
        cls,
        threads: Executor,
        durability: Durability,
        place: tuple[str, str],
        there: Coverage,
        inode: Inode | None,
        *,
        wary: bool = False,
    ) -> Sink:
        """Open a partial file and keep the bytes that are *there*; see PartFile.open.

        *place* is the final name and the temporary one. *threads* must have two for each file.
        """
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(
            threads, partial(PartFile.open, *place, there, inode, wary=wary)
        )
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            await _close_opened(opening)
            raise
        return cls(opening.result(), threads, durability)

    @property
    def kept(self) -> Coverage:
        """What could be kept when it was opened."""
        return self._part.kept

    @property
    def inode(self) -> Inode:
        """Which file it is."""
        return self._part.inode

    @property
    def received(self) -> Coverage:
        """What is here: on disk, on its way, or gathered."""
        return self._covered([Part(start=s.start, end=s.received) for s in self._stretches])

    @property
    def written(self) -> Coverage:
        """What has been written; whether durably is another question."""
        return self._covered([stretch.written for stretch in self._stretches])

    def stretch(self, position: int) -> Stretch:
        """Begin to take bytes at *position*."""
        begun = Stretch(self, self._part.cursor(position))
        self._stretches.append(begun)
        return begun

    async def end(self, stretch: Stretch) -> None:
        """Take that a stretch gets no more bytes.

        Raises:
            TransferFailed: not all of them could be written.
        """
        await stretch.drain()
        if stretch in self._stretches:
            self._stretches.remove(stretch)
            self._kept = self._covered([stretch.written])

    async def reserve(self, size: int) -> None:
        """Make the file so long that stretches may begin anywhere in it."""
        self._lengthening = lengthening = self.submit(self._part.reserve, size)
        await asyncio.wait([lengthening])
        lengthening.result()

    @property
    def due(self) -> Seconds:
        """When `tick` has something to do, on the loop's clock."""
        behind = self.received.size - self._durable.size
        if behind == 0 or busy(self._syncing) or self._sync_wanted:
            return math.inf
        hurry = behind >= self._durability.bytes
        return self._synced_at if hurry else self._synced_at + self._durability.seconds

    async def tick(self) -> None:
        """Begin to make durable what is here, if it is time to.

        Raises:
            TransferFailed: an earlier write, or sync, has failed.
        """
        self.check()
        if self._loop.time() < self.due:
            return
        self._synced_at = self._loop.time()
        self._sync_wanted = True
        for stretch in tuple(self._stretches):
            if stretch.pump is None:
                await stretch.hand_over()
        if not any(stretch.busy for stretch in self._stretches):
            self._sync()

    async def flush(self) -> None:
        """Write everything that was taken and make it durable.

        After a write that failed nothing more is written, but what was is made durable.

        Raises:
            TransferFailed: not everything could be.
        """
        for stretch in tuple(self._stretches):
            await stretch.settle()
        if self._error is None:
            await self._drain()
        await settled(self._syncing)
        self._sync()
        await settled(self._syncing)
        self._report()
        self.check()

    async def settle(self) -> None:
        """Wait until no thread writes or syncs; nothing is reported after that by itself."""
        for stretch in tuple(self._stretches):
            await stretch.settle()
        # Whoever wanted that may have been cancelled: the file would be cut before it grows.
        await settled(self._lengthening)
        self._sync_wanted = False
        await settled(self._syncing)
        self._report()

    async def restart(self) -> None:
        """Throw away all bytes; stretches that there were are over.

        Raises:
            TransferFailed: the file cannot be cut.
        """
        await self.settle()
        self._error = None
        # First, so that no flush after a cancellation counts bytes that are cut off meanwhile.
        self._stretches = []
        self._kept = self._durable = self._told = NOTHING
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
        await settled(self._syncing)
        self.check()
        flush = partial(self._part.finish, mtime)
        self._syncing = self.submit(self._make_durable, self.written, flush)
        await settled(self._syncing)
        self.check()

    async def close(self) -> None:
        """Close the file as soon as no thread is at work on it, and wait for that."""
        self._leaving = True
        self._close_if_idle()
        await asyncio.wait([self._left])

    async def leave(self) -> None:
        """Close the file before anybody hears that it is free, even if Stop comes meanwhile."""
        try:
            await self._close_in_time()
        except asyncio.CancelledError:
            await self._close_in_time()
            raise

    async def _close_in_time(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close()
        except TimeoutError:
            # The disk hangs; the file is closed, and its lock let go, when that is over.
            log.warning("file.stuck")

    # ── for its stretches ──────────────────────────────────────────────────────────────────

    def submit(
        self,
        function: Callable[[Unpack[_Args]], _T],
        *args: *_Args,
        threads: Executor | None = None,
    ) -> asyncio.Future[_T]:
        """Have a thread at work on the file, which stays open for it."""
        future = self._loop.run_in_executor(threads or self._threads, function, *args)
        self._running += 1
        future.add_done_callback(self._back)
        return future

    def wrote(self) -> None:
        """Take that what a stretch had gathered is written."""
        if self._sync_wanted and not any(stretch.busy for stretch in self._stretches):
            self._sync()

    def fail(self, error: TransferFailed) -> None:
        """Take that a write has failed; in any thread."""
        self._error = error

    def check(self) -> None:
        """Raise TransferFailed if a write, or a sync, has failed."""
        if self._error is not None:
            raise self._error

    # ── its own ────────────────────────────────────────────────────────────────────────────

    def _covered(self, parts: list[Part]) -> Coverage:
        kept = self._kept
        return cover([Part(start=0, end=kept.offset), *kept.parts, *parts])

    async def _drain(self) -> None:
        for stretch in tuple(self._stretches):
            await stretch.drain()

    def _sync(self) -> None:
        """Begin to make durable what is written by now, not what is written meanwhile."""
        written = self.written
        if not busy(self._syncing) and written != self._durable:
            self._sync_wanted = False
            self._syncing = self.submit(self._make_durable, written, self._part.sync)
            self._syncing.add_done_callback(lambda _: self._report())

    def _make_durable(self, written: Coverage, flush: Callable[[], None]) -> None:
        try:
            flush()
        except TransferFailed as error:
            self._error = error
        else:
            self._durable = written

    def _report(self) -> None:
        if self._durable != self._told:
            self._told = self._durable
            self._durability.reached(self._told)

    def _back(self, future: asyncio.Future[_T]) -> None:
        self._running -= 1
        # Whoever waits for it may have been cancelled.
        future.exception()
        self._close_if_idle()

    async def _call(self, function: Callable[[Unpack[_Args]], _T], *args: *_Args) -> _T:
        future = self.submit(function, *args)
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
