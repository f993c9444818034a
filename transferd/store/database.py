"""The queue file: one connection writes, another reads, each in its own thread.

Plain sqlite3 rather than a library that awaits each statement: a transaction is one function, so
that nothing can come in between and no cancellation can leave it open.

Exactly one connection of this process ever writes or checkpoints. SQLite before 3.51.3 could
damage a file in WAL mode when two of them did so at the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

from transferd.store.connection import ConnectionThread, Done, Failed, Operation, Outcome, T
from transferd.store.faults import describe
from transferd.store.migrations import MIGRATIONS
from transferd.store.schema import open_reader, open_writer

#: Operations in one transaction at most; bounds how long the first of them waits for the last.
_GROUP = 256
#: …and no other one joins them after so many seconds.
_LONGEST = 0.25

#: Hears how many seconds each `commit` and each `read` took, waiting included.
Observe: TypeAlias = Callable[[str, float], None]


def unobserved(operation: str, seconds: float) -> None:
    """Hear nothing."""


class Database:
    """An open queue file."""

    def __init__(
        self, path: Path, writer: ConnectionThread, reader: ConnectionThread, observe: Observe
    ) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._observe = observe

    @classmethod
    async def open(
        cls, path: Path, migrations: Sequence[str] = MIGRATIONS, observe: Observe = unobserved
    ) -> Self:
        """Open the file at an absolute *path*, or make it; bring its schema up to date.

        The caller holds the state directory's lock.

        Raises:
            StoreDamaged: it is not a sound queue file.
            StoreTooNew: a newer transferd has written it.
            StoreError: it cannot be used.
        """
        writer = ConnectionThread(
            "transferd-store-writer",
            partial(open_writer, path, migrations),
            partial(transact, path),
            _GROUP,
        )
        reader = ConnectionThread(
            "transferd-store-reader", partial(open_reader, path), partial(look, path), 1
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(writer.close)
            await writer.open()
            stack.push_async_callback(reader.close)
            await reader.open()
            stack.pop_all()
        return cls(path, writer, reader, observe)

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction; return when its changes are on disk.

        Operations that wait share a transaction and its one fsync. One that raises is undone
        alone. It must not keep the connection, nor return anything that reads from it.

        Raises: what the operation raises, StoreError for sqlite3's own errors and a failed commit.
        """
        return await self._timed("commit", self._writer.call(operation))

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation on one snapshot, which holds every write acknowledged before."""
        return await self._timed("read", self._reader.call(operation))

    async def aside(self, operation: Operation[T]) -> T:
        """Run a long operation that only reads on a connection of its own: nobody waits for it.

        A caller that is cancelled interrupts it.

        Raises: as `read`.
        """
        connections: list[sqlite3.Connection] = []

        def work() -> Outcome:
            with contextlib.closing(open_reader(self._path)) as connection:
                connections.append(connection)
                return _look(self._path, connection, operation)

        try:
            outcome = await asyncio.to_thread(work)
        except asyncio.CancelledError:
            with contextlib.suppress(sqlite3.Error):  # it may be closed by now
                for connection in connections:
                    connection.interrupt()
            raise
        if isinstance(outcome, Failed):
            raise outcome.error
        value: T = outcome.value
        return value

    async def beat(self) -> None:
        """Wait until both threads have done something: one that never does hangs."""
        await self._writer.beat()
        await self._reader.beat()

    async def _timed(self, what: str, call: Awaitable[T]) -> T:
        clock = asyncio.get_running_loop().time
        began = clock()
        value = await call
        self._observe(what, clock() - began)
        return value

    async def close(self) -> None:
        """Finish what waits and close the file; again is success."""
        # The writer is the last to close, so that it can fold the WAL into the file.
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._writer.close)
            await self._reader.close()


def transact(
    path: Path, connection: sqlite3.Connection, operations: Sequence[Operation[Any]]
) -> Sequence[Outcome]:
    """Run operations in one transaction, each of them undone alone when it raises.

    Where they take long, only the first ones: nobody waits for all of the others, and a thread at
    work is one that has done something. When the transaction itself fails, every one of them fails.
    """
    if not operations:
        return []
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = list(_attempts(path, connection, operations))
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - belongs to every caller of the group
        _roll_back(connection)
        # An exception of its own for each: raising one in several tasks mixes their traces.
        return [Failed(_translated(error, f"write to {path}")) for _ in operations]
    return outcomes


def _attempts(
    path: Path, connection: sqlite3.Connection, operations: Sequence[Operation[Any]]
) -> Iterator[Outcome]:
    end = time.monotonic() + _LONGEST
    for operation in operations:
        yield _attempt(path, connection, operation)
        if time.monotonic() > end:
            return


def _attempt(path: Path, connection: sqlite3.Connection, operation: Operation[Any]) -> Outcome:
    connection.execute("SAVEPOINT operation")
    try:
        outcome: Outcome = Done(operation(connection))
    except Exception as error:
        if not connection.in_transaction:
            # After some errors (disk full, I/O) SQLite gives up the whole transaction.
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = Failed(_translated(error, f"write to {path}"))
    connection.execute("RELEASE operation")
    return outcome


def look(
    path: Path, connection: sqlite3.Connection, operations: Sequence[Operation[Any]]
) -> Sequence[Outcome]:
    """Run operations that only read, each on a snapshot of its own."""
    return [_look(path, connection, operation) for operation in operations]


def _look(path: Path, connection: sqlite3.Connection, operation: Operation[Any]) -> Outcome:
    try:
        connection.execute("BEGIN")
        return Done(operation(connection))
    except Exception as error:  # noqa: BLE001 - belongs to the caller
        return Failed(_translated(error, f"read {path}"))
    finally:
        _roll_back(connection)


def _translated(error: Exception, what: str) -> Exception:
    return describe(error, what) if isinstance(error, sqlite3.Error) else error


def _roll_back(connection: sqlite3.Connection) -> None:
    # Fails only for what has ended the transaction already.
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
