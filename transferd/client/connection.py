"""Requests and event streams over the daemon's socket; what fails here becomes our own errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from transferd.client.errors import DaemonFault, error_from
from transferd.model.errors import NoDaemon

AnswerT = TypeVar("AnswerT")

#: Finds or starts a daemon; returns where it answers. Raises NoDaemon.
Revive: TypeAlias = Callable[[], Awaitable[Path]]

#: Connecting to a Unix socket takes no time, unless the daemon hangs.
CONNECT_SECONDS = 10.0
#: The longest silence within a request; a large `complete` syncs a disk meanwhile.
SILENCE_SECONDS = 600.0

_CALL = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

#: What aiohttp raises when the other end goes away.
_CUT = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)


class NobodyListens(NoDaemon):
    """No request has been sent: nobody listens on the socket."""


def path(*parts: str | int) -> str:
    """Return a path of the API; each part is escaped."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


class Connection:
    """The way to one daemon.

    Each request has a connection of its own: a kept one may be gone with a restarted daemon, and
    then nobody could tell whether the request was served.

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
            connector=aiohttp.UnixConnector(str(self.socket), force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
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
    ) -> AnswerT:
        """Send a request and read its answer.

        Raises:
            CallerError: as the daemon answered.
            NoDaemon: nobody answers, or not to the end.
            DaemonFault: the answer is not what the API promises.
        """
        raw = await self.send(method, path, body, params=params)
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
    ) -> bytes:
        """Send a request whose answer may be anything; raises what `call` raises."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        async with self._asking(method, _url(path, params), headers, _CALL, data) as response:
            raw = await response.read()
        if response.status >= 300:
            raise error_from(response.status, raw)
        return raw

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
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; nobody has seen one that found no listener, so that it is sent again."""

        async def sent() -> aiohttp.ClientResponse:
            with self._translating():
                return await self._session.request(
                    method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
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
            raise NoDaemon(
                f"cannot hear the daemon's answer: it left {self.socket} in the middle of it; "
                "look at the job before trying again"
            ) from error
        except aiohttp.ClientError as error:
            raise DaemonFault(
                f"cannot understand what answers on {self.socket}: {error}; is that transferd?"
            ) from error


def _url(path: str, params: Mapping[str, str] | None) -> URL:
    # The host is for the Host header only. The path is escaped already.
    url = URL(f"http://transferd{path}", encoded=True)
    return url.with_query(params) if params else url
