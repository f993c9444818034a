"""Accepts connections: no more than there is room for, and none that is forgotten.

A server of asyncio accepts until the process has no descriptor left, and then fails a thousand
times a second. What it accepts right before it is closed it neither serves nor closes.

Nobody keeps others out: callers share the connections (`room`), who wants more than his share is
told so, and a connection that asks for nothing is closed.

A daemon that goes down answers whoever it has accepted: it waits a moment for requests that have
not come, and closes no connection with a request on its way. Who was not accepted is the next
daemon's, where the service manager keeps the listening socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
from collections.abc import Callable
from functools import partial

from transferd.api.identity import Visitor
from transferd.api.refusal import Refusal
from transferd.api.room import Room
from transferd.model.job import Seconds
from transferd.wire.ancillary import forbid_descriptors, refuse_descriptors

log = logging.getLogger(__name__)

_BACKLOG = 1024
#: Accepted in one turn of the loop.
_AT_ONCE = 64
#: When there is no descriptor left, and no connection of ours ends.
_RETRY: Seconds = 1.0
#: A caller has so long for its first request.
_PATIENCE: Seconds = 30.0
#: So many refusals are spoken at once; one more caller is left without a word.
_REFUSALS = 32


class Acceptor:
    """Hands the connections of one listening socket to protocols."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        most: int,
        identify: Callable[[socket.socket], Visitor],
        counted: Callable[[int], None],
    ) -> None:
        """Take what makes the protocol of a connection, and how many there may be at once.

        *identify* tells who is at the other end; *counted* hears how many connections there are.
        """
        self._protocol = protocol
        self._room = Room(most)
        self._identify = identify
        self._counted = counted
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._watching = False
        self._retry: asyncio.TimerHandle | None = None
        #: Connections that are being set up, which takes two turns of the loop.
        self._arriving: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._refusals: set[Refusal] = set()
        #: Who was refused, until he has no connection any more: said once.
        self._refused: set[int] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        #: Whether it is in the log that there is no room; said once until half of it is free.
        self._complained = False

    def start(self, listening: socket.socket) -> None:
        """Accept from a bound socket, which is the acceptor's from now on."""
        # Also for those who send before they are accepted.
        forbid_descriptors(listening)
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

    async def hear_out(self, patience: Seconds) -> None:
        """Let come what callers have sent, or are about to send, after `close`.

        Whoever has not asked for anything yet gets *patience* to do so. Nobody can send another
        request when this returns, and every one that was sent is being served.
        """
        waiting = {connection.heard for connection in self._connections if connection.fresh}
        if waiting:
            await asyncio.wait(waiting, timeout=patience)
        idle = {connection.hush() for connection in self._connections if not connection.busy}
        if idle:
            await asyncio.wait(idle)

    async def cut_off(self) -> None:
        """Close what is still connected, and wait until all of it is closed."""
        for connection in self._connections:
            connection.abort()
        for refusal in self._refusals:
            refusal.abort()
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
            if self._room.full:
                self._pause(f"there are {self._room.most} connections already")
                return
            try:
                sock, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(str(error))
                self._retry = self._loop.call_later(_RETRY, self._watch)
                return
            sock = refuse_descriptors(sock)
            if _is_alone(sock):
                sock.close()
                continue
            visitor = self._identify(sock)
            if visitor.operator or self._room.admits(visitor.uid):
                self._connect(sock, visitor.uid)
            else:
                # Left in the kernel's queue he would keep everybody behind him waiting.
                self._refuse(sock, visitor.uid)

    def _pause(self, reason: str) -> None:
        """Let callers wait in the kernel's queue until a connection ends."""
        self._unwatch()
        if not self._complained:
            self._complained = True
            log.warning("api.full", extra={"fields": {"reason": reason}})

    def _connect(self, sock: socket.socket, uid: int) -> None:
        connection = _Connection(self._protocol(), sock, uid, self._gone)
        self._connections.add(connection)
        self._room.enter(uid)
        self._counted(len(self._connections))
        self._arrive(connection, sock, partial(self._gone, connection))

    def _refuse(self, sock: socket.socket, uid: int) -> None:
        held = self._room.held(uid)
        if uid not in self._refused:
            self._refused.add(uid)
            log.warning("api.refused", extra={"fields": {"uid": uid, "connections": held}})
        if len(self._refusals) >= _REFUSALS:
            sock.close()
            return
        refusal = Refusal(held, self._spoken)
        self._refusals.add(refusal)
        self._arrive(refusal, sock, partial(self._spoken, refusal))

    def _arrive(
        self, guest: asyncio.Protocol, sock: socket.socket, gone: Callable[[], None]
    ) -> None:
        """Set up a connection."""
        self._empty.clear()

        async def connect() -> None:
            await self._loop.connect_accepted_socket(lambda: guest, sock)

        def connected(task: asyncio.Task[None]) -> None:
            self._arriving.discard(task)
            if task.cancelled() or task.exception() is not None:
                sock.close()
                gone()

        task = self._loop.create_task(connect(), name="api connection")
        self._arriving.add(task)
        task.add_done_callback(connected)

    def _gone(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._room.leave(connection.uid)
        self._counted(len(self._connections))
        if not self._room.held(connection.uid):
            self._refused.discard(connection.uid)
        if len(self._connections) <= self._room.most // 2:
            self._complained = False
        self._note_empty()
        self._watch()

    def _spoken(self, refusal: Refusal) -> None:
        self._refusals.discard(refusal)
        self._note_empty()

    def _note_empty(self) -> None:
        if not self._connections and not self._refusals:
            self._empty.set()


def _is_alone(sock: socket.socket) -> bool:
    """Whether the caller has closed his end already: to serve him would keep others waiting."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def note_request(transport: asyncio.BaseTransport | None) -> Callable[[], None]:
    """Take note of a request on an accepted connection; returns what notes that it is answered.

    A connection that has asked for something is not closed for its silence. How long it stays open
    after an answer is HTTP's to say.
    """
    protocol = None if transport is None else transport.get_protocol()
    if not isinstance(protocol, _Connection):
        return lambda: None
    protocol.asked()
    return protocol.answered


async def parted(transport: asyncio.BaseTransport | None) -> None:
    """Wait until whoever is at the other end of an accepted connection has gone."""
    protocol = None if transport is None else transport.get_protocol()
    if isinstance(protocol, _Connection):
        await asyncio.shield(protocol.lost)


class _Connection(asyncio.Protocol):
    """A protocol, and somebody who hears of its end."""

    def __init__(
        self,
        protocol: asyncio.Protocol,
        sock: socket.socket,
        uid: int,
        gone: Callable[[_Connection], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.uid = uid
        #: Whether a request is being served.
        self.busy = False
        #: Done when the first request has come, or none can come any more.
        self.heard: asyncio.Future[None] = loop.create_future()
        #: Done when the connection is no more.
        self.lost: asyncio.Future[None] = loop.create_future()
        self._hushed: asyncio.Future[None] = loop.create_future()
        self._hushing = False
        self._protocol = protocol
        self._socket = sock
        self._gone = gone
        self._transport: asyncio.WriteTransport | None = None
        self._patience: asyncio.TimerHandle | None = None

    @property
    def fresh(self) -> bool:
        """Whether nothing was asked for yet."""
        return not self.heard.done()

    def asked(self) -> None:
        """Take note of a request; it need not be waited for any more."""
        self.busy = True
        self._stop_waiting()

    def answered(self) -> None:
        """Take note that the request is answered, but for what is to be written."""
        self.busy = False

    def hush(self) -> asyncio.Future[None]:
        """Let nothing more be sent; what is returned is done when all that was is read.

        Whoever sends then is told so by the kernel, and may send it to somebody else: nobody can
        be in doubt whether a request was served.
        """
        self._hushing = True
        with contextlib.suppress(OSError):  # the other end is gone
            self._socket.shutdown(socket.SHUT_RD)
        return self._hushed

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
        self._stop_waiting()
        self._stop_reading()
        self.lost.set_result(None)
        self._protocol.connection_lost(exc)
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        self._stop_reading()
        closes = self._protocol.eof_received()
        # Who was told to send no more still waits for an answer.
        return self._hushing or closes

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _stop_waiting(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()
        if not self.heard.done():
            self.heard.set_result(None)

    def _stop_reading(self) -> None:
        if not self._hushed.done():
            self._hushed.set_result(None)
