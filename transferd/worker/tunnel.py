"""The dialogue in which a proxy is asked for a tunnel, over one connection (RFC 9110 9.3.6).

It knows nothing of what goes through the tunnel, nor who opens connections or which credentials
there are. Bytes are only taken from a connection while an answer is awaited, so that whatever
begins on top of it finds it as the proxy left it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, TypeAlias

import h11
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.worker.answer import DRAIN_BYTES, DRAIN_SECONDS
from transferd.worker.faults import Peer
from transferd.worker.request import Request

#: What TLS can begin on.
Base: TypeAlias = socket.socket | asyncio.Transport

_PIECE = 64 * 1024


class Stream(Protocol):
    """Bytes to and from a proxy."""

    @property
    def base(self) -> Base:
        """What TLS with the server can begin on."""
        ...

    @property
    def quiet(self) -> bool:
        """Whether it is open and, as far as can be told without waiting, nothing has come."""
        ...

    async def send(self, data: bytes) -> None:
        """Send *data*; raises OSError."""
        ...

    async def receive(self, limit: int) -> bytes:
        """Return up to *limit* bytes, b"" at the end; raises OSError."""
        ...

    def abort(self) -> None:
        """Close it at once; idempotent."""
        ...


class PlainStream:
    """A socket, which nobody else reads from."""

    def __init__(self, base: socket.socket) -> None:
        self.base: Base = base
        self._socket = base

    @property
    def quiet(self) -> bool:
        """See Stream.quiet."""
        return self._socket.fileno() >= 0 and not is_readable(self._socket.fileno())

    async def send(self, data: bytes) -> None:
        """See Stream.send."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self, limit: int) -> bytes:
        """See Stream.receive."""
        return await asyncio.get_running_loop().sock_recv(self._socket, limit)

    def abort(self) -> None:
        """See Stream.abort."""
        self._socket.close()


class SecureStream:
    """A TLS connection with the proxy."""

    def __init__(self, base: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        self.base: Base = base
        self._transport = base
        self._reader = reader

    @property
    def quiet(self) -> bool:
        """See Stream.quiet; what came is only told by `has_ended_or_spoken`."""
        return not self._transport.is_closing() and not self._reader.at_eof()

    async def send(self, data: bytes) -> None:
        """See Stream.send; a request is small enough to wait in the transport."""
        self._transport.write(data)

    async def receive(self, limit: int) -> bytes:
        """See Stream.receive."""
        return await self._reader.read(limit)

    def abort(self) -> None:
        """See Stream.abort."""
        self._transport.abort()


def is_readable(descriptor: int) -> bool:
    """Whether bytes or the end of the connection wait in the kernel."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))


async def peek(stream: Stream) -> bytes | None:
    """Return a byte that has come already, b"" where the connection ended, None for nothing.

    A byte is lost by that: whatever came unasked ends the use of the connection.
    """
    if not stream.quiet:
        with contextlib.suppress(OSError):
            return await stream.receive(1)
        return b""
    try:
        async with asyncio.timeout(0):
            return await stream.receive(1)
    except TimeoutError:
        return None
    except OSError:
        return b""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a proxy answered."""

    status: int
    headers: CIMultiDictProxy[str]
    #: Whether it can be asked again over the same connection.
    kept: bool

    @property
    def stands(self) -> bool:
        """Whether the tunnel stands."""
        return self.status // 100 == 2


class Dialogue:
    """One connection to a proxy: asked for a tunnel until one stands, and then that tunnel."""

    def __init__(self, stream: Stream, proxy: URL, identity: str | None, number: int) -> None:
        self.stream = stream
        self.number = number
        self._proxy = proxy
        self._identity = identity
        #: Where the tunnel leads that stands.
        self._leads_to: URL | None = None
        #: Whether an answer was read to its end.
        self.answered = False
        #: Whether any byte of the present answer has come.
        self.heard = False

    def serves(self, request: Request) -> bool:
        """Whether *request* may be made over this connection."""
        return (
            self._proxy == request.proxy
            and self._identity == request.identity
            and request.connection in (None, self.number)
        )

    def carries(self, request: Request) -> bool:
        """Whether *request* may go through the tunnel that stands here."""
        return self.serves(request) and self._leads_to == request.parsed.origin()

    async def ask(self, request: Request, user_agent: str, header_bytes: int) -> Verdict:
        """Ask for a tunnel to the origin of *request*.

        The body of a 407 is read where that keeps the connection. Interim answers count towards
        *header_bytes*.

        Raises:
            EOFError: the proxy closed the connection; OSError: it was lost.
            h11.RemoteProtocolError: what came is not HTTP/1.1, or too large.
            TransferFailed: `protocol_error`, something came through the tunnel unasked.
        """
        self.heard = False
        wire = h11.Connection(h11.CLIENT, header_bytes + 1)
        asked = wire.send(_question(request, user_agent))
        ended = wire.send(h11.EndOfMessage())
        await self.stream.send((asked or b"") + (ended or b""))
        head = await self._head(wire, header_bytes)
        headers = _headers(head)
        if head.status_code // 100 == 2:
            if wire.trailing_data[0]:
                raise smuggled(request.peer)
            self._leads_to = request.parsed.origin()
            return Verdict(head.status_code, headers, True)
        kept = False
        if head.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            kept = _persists(head, headers) and await self._drain(wire)
        self.answered = kept
        return Verdict(head.status_code, headers, kept)

    async def _head(self, wire: h11.Connection, budget: int) -> h11.Response:
        while not isinstance(event := wire.next_event(), h11.Response):
            if event is not h11.NEED_DATA:
                # An interim answer: it was paid for when it came.
                continue
            if budget <= 0:
                raise h11.RemoteProtocolError(
                    "too many header bytes", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                )
            data = await self._receive(min(budget, _PIECE))
            budget -= len(data)
            wire.receive_data(data)
        return event

    async def _drain(self, wire: h11.Connection) -> bool:
        """Read the body away, and say whether the connection can be used after it."""
        drained = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not isinstance(event := wire.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        wire.receive_data(await self._receive(_PIECE))
                    elif isinstance(event, h11.Data):
                        drained += len(event.data)
                    if drained > DRAIN_BYTES:
                        return False
        except (TimeoutError, OSError, EOFError, h11.RemoteProtocolError):
            # Nobody wants these bytes, so nobody misses them.
            return False
        return not wire.trailing_data[0]

    async def _receive(self, limit: int) -> bytes:
        data = await self.stream.receive(limit)
        if not data:
            raise EOFError
        self.heard = True
        return data


def smuggled(peer: Peer) -> TransferFailed:
    """Return the failure of a tunnel out of which something came before anything went in."""
    message = (
        f"cannot reach {peer.server}: proxy {peer.proxy} sent bytes of its own after it had opened"
        " the tunnel"
    )
    return TransferFailed(Failure(code="protocol_error", message=message))


def _question(request: Request, user_agent: str) -> h11.Request:
    url = request.parsed
    # Both are the authority of the server, with its port (RFC 9112 3.2.3).
    target = f"{url.host_subcomponent}:{url.port}"
    fields = [("Host", target), ("User-Agent", user_agent.strip())]
    if request.proxy_authorization is not None:
        fields.append(("Proxy-Authorization", request.proxy_authorization))
    headers = [(name.encode("ascii"), value.encode()) for name, value in fields]
    return h11.Request(method="CONNECT", target=target, headers=headers)


def _headers(head: h11.Response) -> CIMultiDictProxy[str]:
    # As aiohttp reads those of servers: bytes that are no UTF-8 do not get lost.
    fields = (
        (name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
        for name, value in head.headers.raw_items()
    )
    return CIMultiDictProxy(CIMultiDict(fields))


def _persists(head: h11.Response, headers: CIMultiDictProxy[str]) -> bool:
    """Whether the proxy keeps the connection (RFC 9112 9.3); HTTP/1.0 must say so."""
    lines = (*headers.getall("Connection", ()), *headers.getall("Proxy-Connection", ()))
    options = {option.strip().lower() for line in lines for option in line.split(",")}
    if "close" in options:
        return False
    return head.http_version >= b"1.1" or "keep-alive" in options
