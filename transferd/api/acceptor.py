"""Accepts connections: no more than there is room for, and none that is forgotten.

A server of asyncio accepts until the process has no descriptor left, and then fails a thousand
times a second. What it accepts right before it is closed it neither serves nor closes.

Nobody keeps others out: whoever is not served here gets a small share of the connections, and a
connection that asks for nothing is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from transferd.api.identity import peer_uid
from transferd.model.job import Seconds

log = logging.getLogger(__name__)

_BACKLOG = 1024
#: Accepted in one turn of the loop.
_AT_ONCE = 64
#: When there is no descriptor left, and no connection of ours ends.
_RETRY: Seconds = 1.0
#: A caller has so long for its first request.
_PATIENCE: Seconds = 30.0
#: Strangers have one in so many of all connections.
_STRANGERS = 8


class Acceptor:
    """Hands the connections of one listening socket to protocols."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        most: int,
        serves: Callable[[int], bool],
        counted: Callable[[int], None],
    ) -> None:
        """Take what makes the protocol of a connection, and how many there may be at once.

        Uids that are not served are strangers, who may only ask a few questions. *counted* hears
        how many connections there are.
        """
        self._counted = counted
        self._protocol = protocol
        self._most = most
        self._most_strangers = max(1, most // _STRANGERS)
        self._serves = serves
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._watching = False
        self._retry: asyncio.TimerHandle | None = None
        #: Connections that are being set up, which takes two turns of the loop.
        self._arriving: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._strangers: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        #: Whether it is in the log that there is no room; said once until half of it is free.
        self._complained = False

    def start(self, listening: socket.socket) -> None:
        """Accept from a bound socket, which is the acceptor's from now on."""
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        self._listening = listening
        self._watch()

    async def close(self) -> None:
        """Accept nobody any more; whoever was accepted is connected when this returns."""
        self._unwatch()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        if self._arriving:
            await asyncio.wait(self._arriving)

    async def cut_off(self) -> None:
        """Close what is still connected, and wait until all of it is closed."""
        for connection in self._connections:
            connection.abort()
        await self._empty.wait()

    def _watch(self) -> None:
        self._forget_retry()
        if self._listening is not None and not self._watching:
            self._watching = True
            self._loop.add_reader(self._listening, self._accept, self._listening)

    def _unwatch(self) -> None:
        self._forget_retry()
        if self._listening is not None and self._watching:
            self._watching = False
            self._loop.remove_reader(self._listening)

    def _forget_retry(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if len(self._connections) >= self._most:
                self._pause(f"there are {self._most} connections already")
                return
            try:
                sock, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(str(error))
                self._retry = self._loop.call_later(_RETRY, self._watch)
                return
            stranger = not self._serves(peer_uid(sock))
            if stranger and len(self._strangers) >= self._most_strangers:
                # Left in the kernel's queue it would keep everybody behind it waiting.
                sock.close()
            else:
                self._connect(sock, stranger=stranger)

    def _pause(self, reason: str) -> None:
        """Let callers wait in the kernel's queue until a connection ends."""
        self._unwatch()
        if not self._complained:
            self._complained = True
            log.warning("api.full", extra={"fields": {"reason": reason}})

    def _connect(self, sock: socket.socket, *, stranger: bool) -> None:
        connection = _Connection(self._protocol(), self._gone)
        self._connections.add(connection)
        self._counted(len(self._connections))
        if stranger:
            self._strangers.add(connection)
        self._empty.clear()

        async def connect() -> None:
            await self._loop.connect_accepted_socket(lambda: connection, sock)

        def connected(task: asyncio.Task[None]) -> None:
            self._arriving.discard(task)
            if task.cancelled() or task.exception() is not None:
                sock.close()
                self._gone(connection)

        task = self._loop.create_task(connect(), name="api connection")
        self._arriving.add(task)
        task.add_done_callback(connected)

    def _gone(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._counted(len(self._connections))
        self._strangers.discard(connection)
        if not self._connections:
            self._empty.set()
        if len(self._connections) <= self._most // 2:
            self._complained = False
        self._watch()


def note_request(transport: asyncio.BaseTransport | None) -> None:
    """Take note of a request on an accepted connection, which is not closed for its silence then.

    How long it stays open after an answer is HTTP's to say.
    """
    protocol = None if transport is None else transport.get_protocol()
    if isinstance(protocol, _Connection):
        protocol.asked()


class _Connection(asyncio.Protocol):
    """A protocol, and somebody who hears of its end."""

    def __init__(self, protocol: asyncio.Protocol, gone: Callable[[_Connection], None]) -> None:
        self._protocol = protocol
        self._gone = gone
        self._transport: asyncio.WriteTransport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def asked(self) -> None:
        """Stop waiting for the first request."""
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()

    def abort(self) -> None:
        """Close without sending what is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self.abort)
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.asked()
        self._protocol.connection_lost(exc)
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
