"""Connections of one lane of a run; they are never shared with another run or another lane.

Whatever is authenticated per connection stays with the identity that authenticated it: a connector,
and with it every connection, belongs to one job alone, and within the job a connection carries the
requests of one identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from time import monotonic

import aiohappyeyeballs
import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from transferd.auth.binding import tls_server_end_point
from transferd.model.job import Seconds
from transferd.wire.link import WorkerSettings
from transferd.worker.faults import Peer, gone, translate_handshake, translate_opening
from transferd.worker.handler import Handler
from transferd.worker.request import Request
from transferd.worker.secure import SecureTransport, shake_hands
from transferd.worker.sessions import Place, Sessions
from transferd.worker.tunnel import Base, Dialogue, SecureStream, is_readable, peek, smuggled
from transferd.worker.window import Place as SocketPlace
from transferd.worker.window import open_plain

#: What aiohttp keeps of a body before it stops reading from the socket.
READ_BUFFER = 1024 * 1024

#: An idle connection is kept for so long: longer than a Kerberos library thinks between two legs,
#: shorter than what stands in between forgets a silent connection.
_KEEPALIVE: Seconds = 60.0

_numbers = itertools.count(1)


def new_number() -> int:
    """Return what no other connection of this process is called."""
    return next(_numbers)


@dataclass(slots=True, eq=False)
class Passage:
    """One request on its way to a connection, and the connection that it got."""

    request: Request
    #: Which certificates are believed on the way.
    context: ssl.SSLContext
    handler: Handler | None = None
    #: Whether that was opened for this request.
    opened: bool = False

    @property
    def number(self) -> int | None:
        """The connection's number, once there is one."""
        return None if self.handler is None else self.handler.number

    @property
    def gone(self) -> bool:
        """Whether the end of the connection, if it came now, would be no answer's.

        The request may have met a connection that its server was about to close.
        """
        if self.handler is None or self.handler.heard:
            return False
        return not self.opened or self.request.connection is not None


# aiohttp tells its connector nothing that it does not know itself.
_passage: ContextVar[Passage] = ContextVar("passage")


@contextlib.contextmanager
def passage(request: Request, context: ssl.SSLContext) -> Iterator[Passage]:
    """Make *request* the one that connections are taken for within the block."""
    entered = Passage(request, context)
    token = _passage.set(entered)
    try:
        yield entered
    finally:
        _passage.reset(token)


class Connector(aiohttp.TCPConnector):
    """One connection at a time. It opens TCP, begins TLS, and knows what it did."""

    def __init__(
        self,
        sessions: Sessions | None = None,
        open_socket: Callable[[SocketPlace], socket.socket] = open_plain,
    ) -> None:
        """Take also what opens a socket, to be connected, for each attempt at a connection."""
        super().__init__(limit=1, keepalive_timeout=_KEEPALIVE)
        self._open_socket = open_socket
        self._tunnel: Dialogue | None = None
        self._sessions = Sessions() if sessions is None else sessions

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Take a connection from the pool, or open one.

        One over which something came that nobody had asked for is given up: it would be taken for
        the answer to the next request, the bytes of one file for those of another. So is one that
        carried a request of another identity.

        Raises:
            ConnectionGone: the request needs a connection that is not there.
            TransferFailed: none could be opened.
        """
        current = _passage.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            handler = connection.protocol
            if isinstance(handler, Handler) and (
                current.opened or _serves(handler, current.request)
            ):
                break
            connection.close()
        handler.expect()
        current.handler = handler
        return connection

    def stand(self, tunnel: Dialogue, request: Request) -> None:
        """Let the next request to the origin of *request* go through *tunnel*."""
        self.drop_tunnel()
        for handler, _ in self._idle(request):
            handler.close()
        self._tunnel = tunnel

    def drop_tunnel(self) -> None:
        """Close the tunnel that nothing went through."""
        if self._tunnel is not None:
            self._tunnel.stream.abort()
            self._tunnel = None

    def reaches(self, request: Request) -> bool:
        """Whether *request* would find a live connection, or a tunnel, that it may use."""
        tunnel = self._tunnel
        if tunnel is not None and tunnel.carries(request) and tunnel.stream.quiet:
            return True
        oldest = monotonic() - _KEEPALIVE
        return any(
            since >= oldest and _serves(handler, request) for handler, since in self._idle(request)
        )

    async def open_socket(self, url: URL, peer: Peer) -> socket.socket:
        """Open TCP to the host of *url*, at whichever of its addresses answers first (RFC 8305).

        Raises:
            TransferFailed: `name_not_resolved`, `proxy_unreachable`, and what the kernel says.
        """
        try:
            found = await self._resolve_host(url.raw_host or "", url.port or 0)
            return await aiohappyeyeballs.start_connection(
                self._convert_hosts_to_addr_infos(found),
                happy_eyeballs_delay=self._happy_eyeballs_delay,
                socket_factory=self._open_socket,
            )
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise translate_opening(error, peer) from error

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """Open a connection for the present passage; called where the pool has none."""
        current = _passage.get()
        if current.request.tunnelled:
            handler = await self._enter(current.request, current.context)
        elif current.request.connection is not None:
            raise gone(current.request.peer)
        else:
            handler = await self._open(current.request, current.context)
        current.opened = True
        return handler

    async def _open(self, request: Request, context: ssl.SSLContext) -> Handler:
        """Open a connection to the server, or to the proxy that is to forward."""
        handler = Handler(request.identity, new_number(), proxied=request.proxy is not None)
        with contextlib.ExitStack() as undo:
            undo.callback(handler.abort)
            url, peer = request.parsed, request.peer
            place, talker = (url, peer) if request.proxy is None else (request.proxy, peer.between)
            base = await self.open_socket(place, peer)
            transport: asyncio.Transport
            if place.scheme == "https":
                transport = await self._begin_tls(base, handler, context, place, talker)
            else:
                loop = asyncio.get_running_loop()
                transport, _ = await loop.create_connection(lambda: handler, sock=base)
            if url.scheme == "https":
                handler.channel_binding = _channel_binding(transport)
            undo.pop_all()
        return handler

    async def _enter(self, request: Request, context: ssl.SSLContext) -> Handler:
        """Begin TLS with the server, through the tunnel that stands."""
        tunnel = self._tunnel
        if tunnel is None or not tunnel.carries(request):
            raise gone(request.peer)
        self._tunnel = None
        with contextlib.ExitStack() as undo:
            undo.callback(tunnel.stream.abort)
            unasked = await peek(tunnel.stream)
            if unasked is not None:
                raise smuggled(request.peer) if unasked else gone(request.peer)
            handler = Handler(request.identity, tunnel.number, proxied=True)
            undo.callback(handler.abort)
            base, url = tunnel.stream.base, request.parsed
            transport = await self._begin_tls(base, handler, context, url, request.peer)
            handler.channel_binding = _channel_binding(transport)
            undo.pop_all()
        return handler

    async def _begin_tls(
        self, base: Base, handler: Handler, context: ssl.SSLContext, url: URL, peer: Peer
    ) -> asyncio.Transport:
        """Begin TLS on *base* with the host of *url*; as `begin_layered_tls`."""
        if not isinstance(base, socket.socket):
            return await begin_layered_tls(base, handler, context, url, peer)
        host = _hostname(url)
        place = (host, url.port or 0)
        session = None
        if handler.identity is None:
            # Not for who authenticates: a session shows the certificate of its beginning, and a
            # channel binding must be that of the present one.
            session = self._sessions.find(context, place)
        try:
            secure = await shake_hands(base, context, host, session)
        except (OSError, ValueError) as error:
            raise translate_handshake(error, peer) from error
        handler.on_proof = partial(self._keep_session, secure, place)
        return SecureTransport(secure, handler)

    def _keep_session(self, secure: ssl.SSLSocket, place: Place) -> None:
        self._sessions.keep(secure.context, place, secure.session)

    def _idle(self, request: Request) -> Iterator[tuple[Handler, Seconds]]:
        """Every connection of the pool that leads where *request* goes, with its last use."""
        url = request.parsed
        place = (url.raw_host, url.port, url.scheme == "https", request.proxy)
        for key, held in self._conns.items():
            if (key.host, key.port, key.is_ssl, key.proxy) == place:
                for handler, since in held:
                    if isinstance(handler, Handler):
                        yield handler, since


async def begin_layered_tls(
    base: Base, protocol: asyncio.Protocol, context: ssl.SSLContext, url: URL, peer: Peer
) -> asyncio.Transport:
    """Begin TLS with the host of *url* by asyncio's means: another TLS can be above or below it.

    Returns the transport that serves *protocol*.

    The transport tells `ssl_object` and `socket`. *base* is not to be used afterwards, and is
    closed when this ends with an exception.

    Raises:
        TransferFailed: `tls_failed`, `connection_lost`, and what the kernel says of *peer*.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        if isinstance(base, socket.socket):
            # Not with TLS at once: cancelled in its first moment, that goes on without an owner.
            lower, _ = await loop.create_connection(_Still, sock=base)
        else:
            lower = _mended(base)
        undo.callback(lower.abort)
        try:
            transport = await loop.start_tls(
                lower,
                protocol,
                context,
                server_hostname=_hostname(url),
            )
        except (OSError, ValueError) as error:
            raise translate_handshake(error, peer) from error
        if transport is None:
            raise translate_handshake(ConnectionResetError(), peer)
        undo.pop_all()
    protocol.connection_made(transport)
    return transport


class _Still(asyncio.Protocol):
    """Leaves what comes for the protocol that takes its place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing."""
        if isinstance(transport, asyncio.ReadTransport):
            transport.pause_reading()


def _mended(outer: asyncio.Transport) -> asyncio.Transport:
    """Let TLS within TLS end as it should where it fails.

    It would end in a TypeError of Python's own before 3.11.8 and 3.12.2 (python/cpython#113214).
    """
    if sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2):
        abort = outer.abort
        setattr(outer, "_force_close", lambda error: abort())  # noqa: B010
    return outer


async def begin_tls_with_proxy(
    base: socket.socket, context: ssl.SSLContext, proxy: URL, peer: Peer
) -> SecureStream:
    """Begin TLS with a proxy that is to be asked for a tunnel; see `begin_layered_tls`."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = await begin_layered_tls(base, protocol, context, proxy, peer.between)
    return SecureStream(transport, reader)


def open_session(connector: Connector, settings: WorkerSettings) -> aiohttp.ClientSession:
    """Return a session that adds nothing of its own to a request: no cookies, no netrc, no proxy.

    Nor does it send anything twice. Its timeouts are per step; how long a whole transfer may take
    is the daemon's business.
    """
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        requote_redirect_url=False,
        read_bufsize=READ_BUFFER,
        max_line_size=settings.header_bytes,
        max_field_size=settings.header_bytes,
        timeout=aiohttp.ClientTimeout(
            total=None,
            connect=settings.connect_timeout,
            sock_connect=settings.connect_timeout,
            sock_read=settings.stall_window,
        ),
    )
    # Else a GET whose connection turned out to be dead would go to another one, in silence: the
    # last leg of a handshake to a server that has seen none before.
    session._retry_connection = False
    return session


def _serves(handler: Handler, request: Request) -> bool:
    """Whether *request* may go over an idle connection."""
    return (
        handler.identity == request.identity
        and request.connection in (None, handler.number)
        and not _has_spoken(handler)
    )


def _has_spoken(handler: Handler) -> bool:
    """Whether anything has come over an idle connection, read by aiohttp or not yet."""
    if handler.transport is None or handler.should_close:
        return True
    secure = handler.transport.get_extra_info("ssl_object")
    # Decrypted together with the end of a body, it waits in the kernel no more.
    if secure is not None and secure.pending():
        return True
    return is_readable(handler.transport.get_extra_info("socket").fileno())


def _hostname(url: URL) -> str:
    """Return the host as certificates name it: without the dot of the root."""
    return (url.raw_host or "").rstrip(".")


def _channel_binding(transport: asyncio.Transport) -> bytes | None:
    certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return None if certificate is None else tls_server_end_point(certificate)
