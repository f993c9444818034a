"""Requests and event streams over the daemon's socket; what fails here becomes our own errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Self, TypeAlias, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from transferd.client.connector import Connector
from transferd.client.errors import DaemonFault, error_from
from transferd.model.errors import NoDaemon, NotFound
from transferd.model.job import Seconds

AnswerT = TypeVar("AnswerT")

#: Finds or starts a daemon; returns where it answers. Raises NoDaemon.
Revive: TypeAlias = Callable[[], Awaitable[Path]]

#: Connecting to a Unix socket takes no time, unless the daemon hangs.
CONNECT_SECONDS = 10.0
#: The longest silence within a request; a large `complete` syncs a disk meanwhile.
SILENCE_SECONDS = 600.0

_CALL = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

#: A request that may be repeated is sent again after these times, when its answer was cut off: a
#: daemon that was told to restart is back by then, or its socket takes callers for the next one.
REPEATS = (0.0, 0.2, 1.0)
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})

#: What aiohttp raises when the other end goes away.
_CUT = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)


class CutOff(NoDaemon):
    """The request may have been served; its answer was not heard."""


class NobodyListens(NoDaemon):
    """No request has been sent: nobody listens on the socket."""


def path(*parts: str | int) -> str:
    """Return a path of the API; each part is escaped."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


class Connection:
    """The way to one daemon.

    Each request has a connection of its own: a kept one may be gone with a restarted daemon, and
    then nobody could tell whether the request was served. Where it does not matter whether a
    request is served twice, it is repeated when its answer was cut off.

    With *revive*, a daemon is found or started anew whenever nobody listens on the socket.
    """

    def __init__(self, socket: Path, revive: Revive | None = None) -> None:
        self.socket = socket
        #: Whether somebody answered when the daemon was last asked.
        self.answered = True
        self._revive = revive
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=Connector(str(self.socket), force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_counting()],
            timeout=_CALL,
        )
        return self

    @property
    def starts(self) -> bool:
        """Whether a daemon is started when none answers."""
        return self._revive is not None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        *,
        answer: type[AnswerT],
        params: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> AnswerT:
        """Send a request and read its answer; *repeatable* says that twice is as good as once.

        Raises:
            CallerError: as the daemon answered.
            NoDaemon: nobody answers, or not to the end.
            DaemonFault: the answer is not what the API promises.
        """
        raw = await self.send(method, path, body, params=params, repeatable=repeatable)
        try:
            return msgspec.json.decode(raw, type=answer)
        except msgspec.MsgspecError as error:
            raise DaemonFault(
                f"cannot understand the daemon's answer to {method} {path}: {error}; "
                "are daemon and client of the same version?"
            ) from error

    async def send(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        *,
        params: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> bytes:
        """Send a request whose answer may be anything; raises what `call` raises."""
        data = None if body is None else msgspec.json.encode(body)
        waits = REPEATS if repeatable or method in _REPEATABLE else ()
        attempts = _Attempts()
        status, raw = await self._persist(method, _url(path, params), data, waits, attempts)
        repeated = attempts.count > 1
        if status < 300 or (repeated and method == "DELETE" and status == NotFound.status):
            return raw  # what is gone by now, the request before has removed
        raise error_from(status, raw)

    async def _persist(
        self,
        method: str,
        url: URL,
        data: bytes | None,
        waits: Iterable[Seconds],
        attempts: _Attempts,
    ) -> tuple[int, bytes]:
        """Send a request, and again after each wait if its answer is cut off.

        Raises what `call` raises, but for what is answered.
        """
        left = iter(waits)
        cut: CutOff | None = None
        while True:
            try:
                return await self._exchange(method, url, data, attempts)
            except (CutOff, NobodyListens) as error:
                cut = error if isinstance(error, CutOff) else cut
                if cut is None or (wait := next(left, None)) is None:
                    raise (cut or error) from error.__cause__
                await asyncio.sleep(wait)

    async def _exchange(
        self, method: str, url: URL, data: bytes | None, attempts: _Attempts
    ) -> tuple[int, bytes]:
        headers = {} if data is None else {"Content-Type": "application/json"}
        async with self._asking(method, url, headers, _CALL, data, attempts) as response:
            return response.status, await response.read()

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], last_id: int | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an event stream; its chunks end when the daemon ends it.

        Raises what `call` raises, also while chunks are read.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        async with self._asking("GET", _url(path, params), headers, _STREAM) as response:
            if response.status != 200:
                raise error_from(response.status, await response.read())
            yield response.content.iter_any()

    @contextlib.asynccontextmanager
    async def _asking(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        data: bytes | None = None,
        attempts: _Attempts | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; nobody has seen one that found no listener, so that it is sent again."""

        async def sent() -> aiohttp.ClientResponse:
            with self._translating():
                return await self._session.request(
                    method,
                    url,
                    data=data,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    trace_request_ctx=attempts,
                )

        try:
            response = await sent()
        except NobodyListens:
            if self._revive is None:
                raise
            await self._move(await self._revive())
            response = await sent()
        self.answered = True
        async with response:
            with self._translating():
                yield response

    async def _move(self, socket: Path) -> None:
        """Go to another socket from now on; what still hangs on the old one is cut."""
        if socket == self.socket:
            return
        self.socket = socket
        before, self._http = self._session, None
        await self.__aenter__()
        await before.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("the connection to the daemon is not open: use `async with`")
        return self._http

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn aiohttp's exceptions into ours."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or error.os_error
            self.answered = False
            raise NobodyListens(
                f"cannot reach the daemon: {self.socket}: {str(reason).lower()}; is it running?"
            ) from error
        except aiohttp.ServerTimeoutError as error:
            self.answered = False
            raise NoDaemon(
                f"cannot reach the daemon: {self.socket} does not answer; is it stopped?"
            ) from error
        except _CUT as error:
            self.answered = False
            raise CutOff(
                f"cannot hear the daemon's answer: it left {self.socket} in the middle of it; "
                "look at the job before trying again"
            ) from error
        except aiohttp.ClientError as error:
            raise DaemonFault(
                f"cannot understand what answers on {self.socket}: {error}; is that transferd?"
            ) from error


class _Attempts:
    """How often a request was sent; aiohttp repeats some by itself, too."""

    def __init__(self) -> None:
        self.count = 0


def _counting() -> aiohttp.TraceConfig:
    async def count(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        if isinstance(context.trace_request_ctx, _Attempts):
            context.trace_request_ctx.count += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(count)
    return trace


def _url(path: str, params: Mapping[str, str] | None) -> URL:
    # The host is for the Host header only. The path is escaped already.
    url = URL(f"http://transferd{path}", encoded=True)
    return url.with_query(params) if params else url
