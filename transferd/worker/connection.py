"""Connections of one lane of a run; they are never shared with another run or another lane.

Whatever is authenticated per connection stays with the identity that authenticated it, because a
connector, and with it every connection, belongs to one job alone.
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
import stat
import weakref
from concurrent.futures import Executor

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.wire.link import WorkerSettings

#: What aiohttp keeps of a body before it stops reading from the socket.
READ_BUFFER = 1024 * 1024


class Connector(aiohttp.TCPConnector):
    """One connection at a time, and a name for each."""

    def __init__(self) -> None:
        super().__init__(limit=1)
        self._names: weakref.WeakKeyDictionary[ResponseHandler, object] = (
            weakref.WeakKeyDictionary()
        )
        #: Equal for two requests exactly when they went over the same connection.
        self.latest: object = None

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Take a connection from the pool, or open one.

        One over which something came that nobody had asked for is given up: it would be taken for
        the answer to the next request, the bytes of one file for those of another.
        """
        connection = await super().connect(req, traces, timeout)
        while (protocol := connection.protocol) in self._names and _has_spoken(protocol):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if protocol is not None:
            self.latest = self._names.setdefault(protocol, object())
        return connection


def _has_spoken(protocol: ResponseHandler | None) -> bool:
    """Whether anything has come over an idle connection, read by aiohttp or not yet."""
    if protocol is None or protocol.transport is None or protocol.should_close:
        return True
    waiting = select.poll()
    waiting.register(protocol.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def open_session(connector: Connector, settings: WorkerSettings) -> aiohttp.ClientSession:
    """Return a session that adds nothing of its own to a request: no cookies, no netrc, no proxy.

    Its timeouts are per step; how long a whole transfer may take is the daemon's business.
    """
    return aiohttp.ClientSession(
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


class Trust:
    """Which certificates are trusted; a context for each CA file, shared by all runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}

    async def context(self, cacert: str | None) -> ssl.SSLContext:
        """Return the context that trusts the CAs in *cacert*, or the system's.

        A file that has changed is read again.

        Raises:
            TransferFailed: `tls_failed`, the file cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._load, cacert)
        except (OSError, ValueError) as error:
            message = f"cannot use the CA file {cacert}: {_reason(error)}"
            raise TransferFailed(Failure(code="tls_failed", message=message)) from error

    def _load(self, cacert: str | None) -> ssl.SSLContext:
        key: tuple[object, ...] = (cacert,)
        if cacert is not None:
            found = os.stat(cacert)
            if not stat.S_ISREG(found.st_mode):
                # A FIFO would keep its reader, a thread that files need, for ever.
                raise ValueError("it is not a regular file")
            key = (cacert, found.st_ino, found.st_size, found.st_mtime_ns)
        context = self._contexts.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=cacert)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[key] = context
        return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "it holds no certificate"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
