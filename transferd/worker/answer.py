"""What came back for a request, and its body."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
from multidict import CIMultiDictProxy

from transferd.model.errors import TransferFailed
from transferd.model.job import Seconds
from transferd.worker.faults import translate
from transferd.worker.flow import Flow, flow_of
from transferd.worker.handler import Handler
from transferd.worker.request import Request

#: Of the body of an answer that nobody wants, so much is read to keep its connection, and so long…
DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS: Seconds = 2.0
#: …and so much and so long where everything hangs on that connection.
PINNED_DRAIN_BYTES = 16 * 1024 * 1024
PINNED_DRAIN_SECONDS: Seconds = 10.0


class Answer:
    """What came back for a request; whoever gets one drains, reads or closes it."""

    def __init__(
        self,
        request: Request,
        status: int,
        headers: CIMultiDictProxy[str],
        connection: object,
        response: aiohttp.ClientResponse | None,
        *,
        handler: Handler | None = None,
    ) -> None:
        self.request = request
        self.status = status
        self.headers = headers
        #: Equal for two answers exactly when they came over the same connection.
        self.connection = connection
        #: That connection's, where TLS with the server ends (`RequestLine.channel_binding`).
        self.channel_binding = None if handler is None else handler.channel_binding
        self._response = response
        self._handler = handler
        self._broken: TransferFailed | None = None

    @property
    def handler(self) -> Handler | None:
        """The end of its connection, if it is aiohttp's."""
        return self._handler

    @property
    def from_proxy(self) -> bool:
        """Whether it answers CONNECT: the server was not reached."""
        return self._response is None

    def values(self, name: str) -> tuple[str, ...]:
        """Every line of a header, in order."""
        return tuple(self.headers.getall(name, ()))

    @property
    def chunked(self) -> bool:
        """Whether the body says where it ends without a length."""
        return self.transfer_coding == "chunked"

    @property
    def transfer_coding(self) -> str | None:
        """How the body is wrapped for the journey, in lower case."""
        values = self.headers.getall("Transfer-Encoding", None)
        return ", ".join(values).strip().lower() if values else None

    async def read(self, most: int = DRAIN_BYTES) -> bytes:
        """Return up to *most* bytes of the body, b"" at its end.

        Raises:
            TransferFailed: `connection_lost`, `stalled`, `protocol_error`.
        """
        if self._response is None:
            return b""
        if self._broken is not None:
            raise self._broken
        if self._handler is not None:
            self._handler.let_go()
        try:
            return await self._response.content.read(most)
        except (aiohttp.ClientError, OSError) as error:
            self._broken = translate(error, self.request.peer)
            rescued = _rescue(self._response.content)
            self.close()
            if not rescued:
                raise self._broken from error
            return rescued

    def read_now(self) -> bytes:
        """Return what is here of the body already, without waiting for more."""
        if self._response is None or self._response.content.exception() is not None:
            return b""
        return self._response.content.read_nowait()

    def lend(self) -> Flow | None:
        """Give out of hand where the body comes from, behind what `read_now` returns.

        None: it can only be read here, since it is framed, or its connection is somebody else's,
        or nothing of it is missing. Who takes the flow closes it, and then says `taken`, or closes
        this answer.
        """
        handler, response = self._handler, self._response
        if handler is None or response is None or self.transfer_coding is not None:
            return None
        if self._broken is not None or not handler.body_waits or handler.transport is None:
            return None
        try:
            return flow_of(handler.transport)
        except OSError:
            # No more descriptors are to be had.
            return None

    def taken(self) -> None:
        """Take that the body was read from its flow, to its last byte."""
        if self._handler is not None:
            self._handler.body_taken()

    async def drain(self, *, pinned: bool = False) -> None:
        """Throw the body away; one that is long or slow costs the connection.

        *pinned* has more patience: what comes next means something on this connection alone.
        """
        most = PINNED_DRAIN_BYTES if pinned else DRAIN_BYTES
        seconds = PINNED_DRAIN_SECONDS if pinned else DRAIN_SECONDS
        drained = 0
        try:
            # Nobody wants these bytes, so nobody misses them.
            with contextlib.suppress(TransferFailed, TimeoutError):
                async with asyncio.timeout(seconds):
                    while drained <= most and (data := await self.read()):
                        drained += len(data)
        finally:
            self.close()

    def close(self) -> None:
        """Give up the rest of the body, and the connection if there is any rest."""
        if self._response is not None:
            self._response.close()


def _rescue(content: aiohttp.StreamReader) -> bytes:
    """Return what had arrived before the body broke off: aiohttp keeps it back after an error."""
    content._exception = None
    return content.read_nowait()
