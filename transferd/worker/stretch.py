"""Bytes of one connection on their way into a file: gathered and written, or poured by a pump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from transferd.model.errors import TransferFailed
from transferd.model.job import Part, Seconds
from transferd.worker.cursor import Cursor
from transferd.worker.pump import Pump

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

#: So much is collected before a thread is asked to write it.
GATHER = 1024 * 1024


class Ground(Protocol):
    """The file, as far as one stretch of it has to do with it. Fits `sink.Sink`."""

    @property
    def due(self) -> Seconds:
        """When `tick` has something to do, on the loop's clock."""
        ...

    async def tick(self) -> None:
        """Begin to make durable what is here, if it is time to.

        Raises:
            TransferFailed: an earlier write, or sync, has failed.
        """
        ...

    def submit(
        self,
        function: Callable[[Unpack[_Args]], _T],
        *args: *_Args,
        threads: Executor | None = None,
    ) -> asyncio.Future[_T]:
        """Have a thread at work on the file, which stays open for it."""
        ...

    def wrote(self) -> None:
        """Take that what a stretch had gathered is written."""
        ...

    def fail(self, error: TransferFailed) -> None:
        """Take that a write has failed; in any thread."""
        ...

    def check(self) -> None:
        """Raise TransferFailed if a write, or a sync, has failed."""
        ...


class Stretch:
    """Bytes of a sink that come over one connection, one after the other. One task uses it."""

    def __init__(self, sink: Ground, cursor: Cursor) -> None:
        self._sink = sink
        #: Where the bytes go.
        self.cursor = cursor
        self.start = cursor.position
        #: Where the bytes end that were taken: on disk, on their way, or gathered.
        self._taken = cursor.position
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Future[None] | None = None
        self._pump: Pump | None = None

    @property
    def received(self) -> int:
        """Where the bytes end that are here."""
        return max(self._taken, self.cursor.position)

    @property
    def written(self) -> Part:
        """What has been written; whether durably is another question."""
        return Part(start=self.start, end=self.cursor.position)

    @property
    def pump(self) -> Pump | None:
        """What moves bytes into it just now."""
        return self._pump

    async def take(self, data: bytes) -> None:
        """Take the next bytes; waits while the disk is behind.

        Raises:
            TransferFailed: an earlier write, or sync, has failed.
        """
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        self._taken += len(data)
        if self._gathered_bytes >= GATHER:
            await self.hand_over()

    async def tick(self) -> None:
        """Begin to make durable what is here, if it is time to; see Ground.tick."""
        await self._sink.tick()

    @property
    def due(self) -> Seconds:
        """When `tick` has something to do, on the loop's clock."""
        return self._sink.due

    def pour(self, pump: Pump, threads: Executor) -> asyncio.Future[None]:
        """Let a pump write at the cursor, in a thread; returns what is done when it has left.

        The pump is closed then. What was taken before must be written, and nothing may be taken
        meanwhile.
        """
        self._pump = pump
        self._writing = future = self._sink.submit(pump.run, threads=threads)
        future.add_done_callback(lambda _: self._poured(pump))
        return future

    def _poured(self, pump: Pump) -> None:
        pump.close()
        self._pump = None
        self._taken = self.cursor.position
        self._sink.wrote()

    async def hand_over(self) -> None:
        """Give what is gathered to a thread; waits for the write before it."""
        while busy(self._writing):
            await settled(self._writing)
        self._sink.check()
        if self._gathered:
            chunks, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._writing = self._sink.submit(self._write, chunks)
            self._writing.add_done_callback(lambda _: self._sink.wrote())

    async def drain(self) -> None:
        """Write everything that was taken.

        Raises:
            TransferFailed: it could not be written.
        """
        await self.hand_over()
        await settled(self._writing)
        self._sink.check()

    async def settle(self) -> None:
        """Wait until no thread writes."""
        await settled(self._writing)

    @property
    def busy(self) -> bool:
        """Whether a thread takes gathered bytes just now, and tells when it is done."""
        return busy(self._writing) and self._pump is None

    def _write(self, chunks: list[bytes]) -> None:
        try:
            self.cursor.write(*chunks)
        except TransferFailed as error:
            # Of a write that failed, a part may be there; it is sound.
            self._sink.fail(error)


def busy(future: asyncio.Future[None] | None) -> bool:
    """Whether a thread is not done."""
    return future is not None and not future.done()


async def settled(future: asyncio.Future[None] | None) -> None:
    """Wait until a thread is done, however that ended."""
    if future is not None and not future.done():
        await asyncio.wait([future])
