"""aiohttp's end of a connection, as far as it is ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import ClientPayloadError, hdrs
from aiohttp.client_proto import ResponseHandler

from transferd.worker.line import Line

#: Bytes of a body that is worth to be fetched otherwise than through the parser.
LONG = 256 * 1024


class Handler(ResponseHandler):
    """aiohttp's end of one connection, and what is known of that connection.

    Of an answer with a long body it reads the head, and of the body what came along with that. The
    rest stays in the kernel until somebody says how it is to be fetched.
    """

    def __init__(self, identity: str | None, number: int, *, proxied: bool) -> None:
        super().__init__(asyncio.get_running_loop())
        #: Whether it ends at a proxy, or goes through one.
        self.proxied = proxied
        #: What `Answer.connection` says.
        self.number = number
        self.identity = identity
        #: See `RequestLine.channel_binding`.
        self.channel_binding: bytes | None = None
        #: Whether anything has come since the last request was given to it.
        self.heard = False
        #: Called once, when the server has proved that it speaks HTTP.
        self.on_proof: Callable[[], None] | None = None
        #: What whoever paces its bodies knows of it.
        self.line: Line | None = None
        self._holding = False
        self._begun = False

    def expect(self) -> None:
        """Take that a request is given to it now."""
        self.heard = self._begun = False

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self.heard = True
        super().data_received(data)
        if self._payload is not None and not self._begun:
            self._begun = True
            self._tell_proof()
            if self._is_long():
                self._holding = True
                self._pause_transport_reading()
                # It is we who do not read, not the server who does not send.
                self._drop_timeout()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take that the connection has ended; with an error, no body has (RFC 9112 9.8).

        aiohttp would take the end of any connection for that of a body without a length.
        """
        payload = self._payload
        if exc is not None and payload is not None and not payload.is_eof():
            payload.set_exception(ClientPayloadError("the connection was lost"), exc)
            self._parser = None
        # Without a body it is an end like any other.
        super().connection_lost(None if isinstance(exc, ssl.SSLEOFError) else exc)

    def _is_long(self) -> bool:
        """Whether the answer that has just begun announces a long body, and more of it is due."""
        if not self._buffer or self._payload is None or self._payload.is_eof():
            return False
        ((message, _), _) = self._buffer[-1]
        length = message.headers.get(hdrs.CONTENT_LENGTH, "")
        return length.isdecimal() and int(length) >= LONG

    def _tell_proof(self) -> None:
        tell, self.on_proof = self.on_proof, None
        if tell is not None:
            tell()

    def _resume_transport_reading(self) -> None:
        if not self._holding:
            super()._resume_transport_reading()

    def let_go(self) -> None:
        """Read the rest of the body like its beginning."""
        if self._holding:
            self._holding = False
            self._reschedule_timeout()
            if not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()

    @property
    def body_waits(self) -> bool:
        """Whether the body has a rest, and all that was read of it has been parsed."""
        return self._holding and not self._reading_paused and self.is_connected()

    def body_taken(self) -> None:
        """Take that somebody else has read the rest of the body, to its last byte."""
        payload, self._parser = self._payload, None
        self._holding = False
        if payload is not None:
            payload.feed_eof()

    def close(self) -> None:
        """Close at once: the farewells of TLS would last for as long as the peer likes."""
        self.abort()
