"""Threads that own a connection: the event loop never waits for the disk, and no cancellation
reaches a statement.

A caller hands over a plain function of the connection and waits for its outcome. A caller that is
cancelled stops waiting; its function still runs, as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from transferd.model.errors import StoreError

T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class Done:
    """An operation that returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation that raised."""

    error: Exception


Outcome: TypeAlias = Done | Failed
#: Carries operations on a connection; one outcome each, in their order. It never raises. Where it
#: would take long it carries the first ones only, and is given the others again.
Carrier: TypeAlias = Callable[[sqlite3.Connection, Sequence[Operation[Any]]], Sequence[Outcome]]


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    operation: Operation[Any]
    outcome: asyncio.Future[Any]


class ConnectionThread:
    """One thread with one connection, which takes operations in the order in which they came."""

    def __init__(
        self, name: str, connect: Callable[[], sqlite3.Connection], carry: Carrier, group: int
    ) -> None:
        """Prepare a thread that hands at most *group* operations at once to *carry*."""
        self._connect = connect
        self._carry = carry
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Sequence[_Call | None]] = SimpleQueue()
        #: What the thread is told of at the end of this turn of the loop: it is woken once.
        self._fresh: list[_Call | None] = []
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        #: Done when the thread is done with anything again.
        self._step: asyncio.Future[None] = self._loop.create_future()
        # Not to be waited for at exit: a daemon that forgot to close must end all the same, and a
        # transaction that is cut off there is rolled back by the next start.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def open(self) -> None:
        """Start the thread and open its connection.

        Raises: what *connect* raises.
        """
        self._thread.start()
        await asyncio.shield(self._opened)

    async def call(self, operation: Operation[T]) -> T:
        """Run an operation in the thread and return what it returns.

        Raises: what the operation raises, and StoreError when the connection is closed.
        """
        if self._closing:
            raise StoreError("cannot use the queue file: it is closed; the daemon is going down")
        call = _Call(operation, self._loop.create_future())
        self._tell(call)
        value: T = await call.outcome
        return value

    def _tell(self, call: _Call | None) -> None:
        if not self._fresh:
            self._loop.call_soon(self._hand_over)
        self._fresh.append(call)

    def _hand_over(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._calls.put(fresh)

    async def beat(self) -> None:
        """Wait until the thread has done anything at all: one that never does hangs."""
        nobody = self._loop.create_future()
        nobody.cancel()
        self._tell(_Call(_nothing, nobody))
        await asyncio.shield(self._step)

    async def close(self) -> None:
        """Run what waits, close the connection and end the thread; again is success."""
        if not self._thread.ident:
            return
        if not self._closing:
            self._closing = True
            self._tell(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - belongs to the one who waits in open()
            self._loop.call_soon_threadsafe(_settle, self._opened, Failed(error))
        else:
            self._loop.call_soon_threadsafe(_settle, self._opened, Done(None))
            try:
                self._serve(connection)
            finally:
                connection.close()
        finally:
            self._loop.call_soon_threadsafe(_settle, self._ended, Done(None))

    def _serve(self, connection: sqlite3.Connection) -> None:
        calls: list[_Call] = []
        more = True
        while more or calls:
            more = more and self._take(calls)
            group = calls[: self._group]
            outcomes = self._carry(connection, [call.operation for call in group])
            done, calls = calls[: len(outcomes)], calls[len(outcomes) :]
            self._loop.call_soon_threadsafe(self._settle_all, done, outcomes)

    def _take(self, calls: list[_Call]) -> bool:
        """Add what waits to *calls*, and wait where there is none; False after the last of all."""
        with contextlib.suppress(Empty):
            while len(calls) < self._group:
                for call in self._calls.get(block=not calls):
                    if call is None:
                        return False
                    calls.append(call)
        return True

    def _settle_all(self, calls: Sequence[_Call], outcomes: Sequence[Outcome]) -> None:
        for call, outcome in zip(calls, outcomes, strict=True):
            _settle(call.outcome, outcome)
        step, self._step = self._step, self._loop.create_future()
        step.set_result(None)


def _nothing(_: sqlite3.Connection) -> None:
    """Do nothing."""


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():  # its caller was cancelled
        return
    match outcome:
        case Done(value):
            future.set_result(value)
        case Failed(error):
            future.set_exception(error)
