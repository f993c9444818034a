"""Requests and event streams over the daemon's socket; what fails here becomes our own errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import h11
import msgspec

from transferd.client.connector import connected
from transferd.client.errors import DaemonFault, error_from
from transferd.client.exchange import CutShort, Exchange, Silent
from transferd.model.errors import NoDaemon, NotFound
from transferd.model.units import Seconds

AnswerT = TypeVar("AnswerT")

#: Finds or starts a daemon; returns where it answers. Raises NoDaemon.
Revive: TypeAlias = Callable[[], Awaitable[Path]]

#: Connecting to a Unix socket takes no time, unless the daemon hangs.
CONNECT_SECONDS = 10.0
#: The longest silence within a request; a large `complete` syncs a disk meanwhile.
SILENCE_SECONDS = 600.0

#: A request that may be repeated is sent again after these times, when its answer was cut off: a
#: daemon that was told to restart is back by then, or its socket takes callers for the next one.
REPEATS = (0.0, 0.2, 1.0)
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})


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
        self._open = False
        self._exchanges: set[Exchange] = set()

    async def __aenter__(self) -> Self:
        self._open = True
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
        self._open = False
        self._cut()

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
        status, raw, repeated = await self._persist(method, _target(path, params), data, waits)
        if status < 300 or (repeated and method == "DELETE" and status == NotFound.status):
            return raw  # what is gone by now, the request before has removed
        raise error_from(status, raw)

    async def _persist(
        self, method: str, target: str, data: bytes | None, waits: Iterable[Seconds]
    ) -> tuple[int, bytes, bool]:
        """Send a request, and again after each wait if its answer is cut off.

        Returns: status and body of the answer, and whether an earlier one may have been lost.
        Raises what `call` raises, but for what is answered.
        """
        left = iter(waits)
        cut: CutOff | None = None
        while True:
            try:
                return *await self._exchange(method, target, data), cut is not None
            except (CutOff, NobodyListens) as error:
                cut = error if isinstance(error, CutOff) else cut
                if cut is None or (wait := next(left, None)) is None:
                    raise (cut or error) from error.__cause__
                await asyncio.sleep(wait)

    async def _exchange(self, method: str, target: str, data: bytes | None) -> tuple[int, bytes]:
        headers = {} if data is None else {"Content-Type": "application/json"}
        async with self._asking(method, target, headers, SILENCE_SECONDS, data) as (status, answer):
            return status, await answer.read()

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
        async with self._asking("GET", _target(path, params), headers, None) as (status, answer):
            if status != 200:
                raise error_from(status, await answer.read())
            yield answer.chunks()

    @contextlib.asynccontextmanager
    async def _asking(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        silence: Seconds | None,
        data: bytes | None = None,
    ) -> AsyncIterator[tuple[int, Exchange]]:
        """Send a request; yields the status of the answer, and where its body comes from."""
        exchange = await self._begin(silence)
        self._exchanges.add(exchange)
        try:
            with self._translating():
                status = await exchange.ask(method, target, headers, data)
                self.answered = True
                yield status, exchange
        finally:
            self._exchanges.discard(exchange)
            exchange.close()

    async def _begin(self, silence: Seconds | None) -> Exchange:
        """Connect; where nobody listens, to the daemon that is found or started then."""
        if not self._open:
            raise RuntimeError("the connection to the daemon is not open: use `async with`")
        try:
            return await self._connect(silence)
        except NobodyListens:
            if self._revive is None:
                raise
        self._move(await self._revive())
        return await self._connect(silence)

    async def _connect(self, silence: Seconds | None) -> Exchange:
        with self._translating():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return Exchange(await connected(str(self.socket)), silence)
            except TimeoutError as error:
                raise Silent from error
            except OSError as error:
                self.answered = False
                raise NobodyListens(
                    f"cannot reach the daemon: {self.socket}: {_reason(error)}; is it running?"
                ) from error

    def _move(self, socket: Path) -> None:
        """Go to another socket from now on; what still hangs on the old one is cut."""
        if socket != self.socket:
            self.socket = socket
            self._cut()

    def _cut(self) -> None:
        for exchange in self._exchanges:
            exchange.cut()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn what fails on the socket into our own errors."""
        try:
            yield
        except Silent as error:
            self.answered = False
            raise NoDaemon(
                f"cannot reach the daemon: {self.socket} does not answer; is it stopped?"
            ) from error
        except CutShort as error:
            self.answered = False
            raise CutOff(
                f"cannot hear the daemon's answer: it left {self.socket} in the middle of it; "
                "look at the job before trying again"
            ) from error
        except h11.RemoteProtocolError as error:
            raise DaemonFault(
                f"cannot understand what answers on {self.socket}: {error}; is that transferd?"
            ) from error


def _reason(error: OSError) -> str:
    return str(error.strerror or error).lower()


def _target(path: str, params: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path
