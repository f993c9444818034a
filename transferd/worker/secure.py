"""TLS on a socket of our own, behind an asyncio transport.

asyncio's own TLS moves bytes through buffers in memory, where no thread can take a body from. Here
OpenSSL reads from the socket itself: the transport serves the headers, and lends the socket out
for the body. No call of OpenSSL ever waits; a handshake is taken step by step in a thread, since
its arithmetic takes milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from functools import cache, partial
from typing import TypeAlias

from transferd.worker.threads import Threads

#: What a step of a handshake waits for.
_Want: TypeAlias = type[ssl.SSLError]

#: So much is read before the loop turns again.
_TURN = 256 * 1024
#: More unsent bytes than this, and the protocol is asked to wait.
_BACKLOG = 64 * 1024


async def shake_hands(
    base: socket.socket,
    context: ssl.SSLContext,
    hostname: str,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """Begin TLS with *hostname* on *base*, a connected socket that does not block.

    *base* is not to be used afterwards, and is closed when this ends with an exception. A *session*
    of an earlier connection with the same context spares the server its part.

    Raises:
        ssl.SSLError: the peer cannot be trusted, or does not speak TLS.
        OSError: the connection was lost. ValueError: no certificate can be for that name.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        undo.callback(base.close)
        # A name that nobody can have would else be found out when *base* is nobody's any more.
        hostname.encode("idna")
        secure = context.wrap_socket(
            base,
            server_hostname=hostname,
            do_handshake_on_connect=False,
            # An end that nobody has signed is no end of a body (RFC 9112 9.8).
            suppress_ragged_eofs=False,
            session=session,
        )
        undo.callback(secure.close)
        while True:
            step = loop.run_in_executor(_hands(), _step, secure)
            try:
                await asyncio.wait([step])
            except asyncio.CancelledError:
                # Not closed under the step, which takes a moment.
                step.add_done_callback(partial(_close_after, undo.pop_all()))
                await asyncio.wait([step])
                raise
            wanted = step.result()
            if wanted is None:
                break
            await _ready(loop, secure, wanted)
        undo.pop_all()
    return secure


def _close_after(undo: contextlib.ExitStack, _: object) -> None:
    undo.close()


@cache
def _hands() -> Threads:
    """Return threads of their own: those for names or disks may all wait for somebody."""
    return Threads(2, "handshake")


def _step(secure: ssl.SSLSocket) -> _Want | None:
    """Go on with the handshake; returns what it waits for, None at its end."""
    try:
        secure.do_handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
        return type(want)
    return None


async def _ready(loop: asyncio.AbstractEventLoop, secure: ssl.SSLSocket, wanted: _Want) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = secure.fileno()
    reads = wanted is ssl.SSLWantReadError
    add, remove = (
        (loop.add_reader, loop.remove_reader) if reads else (loop.add_writer, loop.remove_writer)
    )
    add(descriptor, partial(_wake, ready))
    try:
        await ready
    finally:
        remove(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class SecureTransport(asyncio.Transport):
    """The transport of a TLS connection whose handshake is done; it begins to read at once.

    Its end is abrupt: `close` sends no farewell, for which a peer could let us wait.
    """

    def __init__(self, secure: ssl.SSLSocket, protocol: asyncio.Protocol) -> None:
        super().__init__({"socket": secure, "ssl_object": secure})
        self._secure = secure
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._reading = False
        self._holding_writer = False
        self._closing = self._lent = False
        protocol.connection_made(self)
        self.resume_reading()

    # ── reading ────────────────────────────────────────────────────────────────────────────

    def is_reading(self) -> bool:
        """Whether what comes is given to the protocol."""
        return self._reading

    def pause_reading(self) -> None:
        """Leave what comes where it is."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._secure.fileno())

    def resume_reading(self) -> None:
        """Give what comes to the protocol again."""
        if not self._reading and not self._closing and not self._lent:
            self._reading = True
            self._loop.add_reader(self._secure.fileno(), self._read)
            # What OpenSSL has decrypted already makes no socket readable.
            if self._secure.pending():
                self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._take()
        if self._unsent:
            # It may have waited for the peer's part in negotiating anew.
            self._write()

    def _take(self) -> None:
        taken = 0
        while self._reading and taken < _TURN:
            try:
                data = self._secure.recv(_TURN)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                # A key update: OpenSSL has something to say before it goes on.
                self._loop.add_writer(self._secure.fileno(), self._write)
                return
            except OSError as error:
                self._end(error)
                return
            if not data:
                self._protocol.eof_received()
                self._end(None)
                return
            taken += len(data)
            self._protocol.data_received(data)
        if self._reading and self._secure.pending():
            self._loop.call_soon(self._read)

    # ── writing ────────────────────────────────────────────────────────────────────────────

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        """Send *data*, as soon as that is possible."""
        if self._closing:
            return
        idle = not self._unsent
        self._unsent += data
        if idle:
            self._write()
        if len(self._unsent) > _BACKLOG and not self._holding_writer:
            self._holding_writer = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return len(self._unsent)

    def _write(self) -> None:
        try:
            while self._unsent and not self._closing:
                sent = self._secure.send(self._unsent)
                del self._unsent[:sent]
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._secure.fileno(), self._write)
            return
        except ssl.SSLWantReadError:
            # Nothing that the kernel takes would help: `_read` goes on with it.
            self._loop.remove_writer(self._secure.fileno())
            return
        except OSError as error:
            self._end(error)
            return
        if self._closing:
            return
        self._loop.remove_writer(self._secure.fileno())
        if self._holding_writer:
            self._holding_writer = False
            self._protocol.resume_writing()
        if self._reading:
            self._loop.call_soon(self._read)

    # ── lending, and the end ───────────────────────────────────────────────────────────────

    def lend(self) -> ssl.SSLSocket:
        """Give the socket out of hand, to one thread at a time, until `give_back`.

        Reading must be paused. What ends the connection meanwhile lets the thread find its end;
        the socket is closed when it is back.
        """
        self._lent = True
        return self._secure

    def give_back(self) -> None:
        """Take the socket back."""
        self._lent = False
        if self._closing:
            self._secure.close()

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self._closing

    def close(self) -> None:
        """End the connection at once."""
        self._end(None)

    def abort(self) -> None:
        """End the connection at once."""
        self._end(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whom it serves."""
        return self._protocol

    def _end(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._reading = False
        descriptor = self._secure.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._loop.call_soon(self._protocol.connection_lost, error)
        if self._lent:
            with contextlib.suppress(OSError):
                # Of the plain socket: the TLS object is the thread's.
                socket.socket.shutdown(self._secure, socket.SHUT_RDWR)
        else:
            self._secure.close()
