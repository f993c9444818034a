"""A client of the socket API that costs as little as it can: it shares the machine with the daemon.

Connections are kept; requests are written by hand and answers read by their framing alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from transferd.wire.api import AcknowledgementAnswer
from transferd.wire.bodies import MOST_NOTICES, AcknowledgementBody, FileBody, JobBody, JobsBody

#: Seconds between two looks at what nobody tells.
_LOOK = 0.01
_NOTHING = b"Content-Length: 0\r\n"


class _Error(msgspec.Struct):
    code: str
    message: str


class _Job(msgspec.Struct):
    id: str
    error: _Error | None = None


class Notice(msgspec.Struct):
    """What of an event is looked at."""

    number: int | None
    kind: str
    job: _Job


class _Blocker(msgspec.Struct):
    code: str


class _Reasons(msgspec.Struct):
    blockers: list[_Blocker]


class _Health(msgspec.Struct):
    jobs: dict[str, int]


_NOTICE = msgspec.json.Decoder(Notice)
_SETTLED = msgspec.json.Decoder(AcknowledgementAnswer)


class Line:
    """One connection that is kept, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, socket: Path) -> Line:
        """Connect to a daemon."""
        return cls(*await asyncio.open_unix_connection(str(socket), limit=2**20))

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return what the answer holds.

        Raises:
            RuntimeError: the answer is an error.
        """
        self._send(method, path, body)
        status, fields = await self._head()
        answer = await self._reader.readexactly(int(fields[b"content-length"]))
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return answer

    async def events(self, kinds: str) -> AsyncIterator[bytes]:
        """Listen from now on: yields nothing first, once the daemon has begun, then pieces."""
        self._send("GET", f"/v1/events?kinds={kinds}", None)
        status, _ = await self._head()
        if status != 200:
            raise RuntimeError(f"events: {status}")
        yield b""
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]

    @property
    def over(self) -> bool:
        """Whether the daemon has hung up, as it does after a while without a request."""
        return self._reader.at_eof()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    def _send(self, method: str, path: str, body: bytes | None) -> None:
        fields = _NOTHING
        if body is not None:
            fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: transferd\r\n".encode()
        self._writer.write(head + fields + b"\r\n" + (body or b""))

    async def _head(self) -> tuple[int, dict[bytes, bytes]]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = (line.partition(b":") for line in lines[1:] if line)
        status = int(lines[0].split(b" ", 2)[1])
        return status, {name.lower(): value.strip() for name, _, value in fields}


class Client:
    """Makes jobs, hears which are transferred, and does what their owner does then."""

    def __init__(self, socket: Path, lines: asyncio.Queue[Line]) -> None:
        self._socket = socket
        self._lines = lines
        self._awaited: dict[str, asyncio.Future[Notice]] = {}
        #: Notices to acknowledge with the next request; there is one at a time.
        self._heard: list[int] = []
        self._settling = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, socket: Path, lines: int = 4) -> AsyncIterator[Client]:
        """Connect to a daemon and begin to listen; at most *lines* requests wait at once."""
        async with contextlib.AsyncExitStack() as stack:
            pool: asyncio.Queue[Line] = asyncio.Queue()
            client = cls(socket, pool)
            stack.callback(client._hang_up)
            for _ in range(lines):
                pool.put_nowait(await Line.open(socket))
            stack.callback((ear := await Line.open(socket)).close)
            events = ear.events("transferred,error")
            await anext(events)
            stack.push_async_callback(_ended, asyncio.create_task(client._listen(events)))
            yield client

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request on a connection that is free; raises what `Line.ask` raises."""
        line = await self._lines.get()
        try:
            if line.over:
                line.close()
                line = await Line.open(self._socket)
            return await line.ask(method, path, body)
        finally:
            self._lines.put_nowait(line)

    async def create(self, bodies: Sequence[JobBody]) -> None:
        """Make jobs, all or none, in one request."""
        wish = bodies[0] if len(bodies) == 1 else JobsBody(jobs=list(bodies))
        await self.ask("POST", "/v1/jobs", msgspec.json.encode(wish))

    def outcome(self, job_id: str) -> asyncio.Future[Notice]:
        """Return what will hold the notice that a job is transferred; ask before it is made.

        The future raises RuntimeError when the job has failed; it is cancelled when the daemon
        has gone.
        """
        future = asyncio.get_running_loop().create_future()
        self._awaited[job_id] = future
        return future

    async def submit(self, bodies: Sequence[JobBody]) -> list[Notice]:
        """Make jobs, of which each has an id, and return when all of them are transferred.

        Raises:
            RuntimeError: they are refused, or one of them fails.
        """
        outcomes = [self.outcome(str(body.id)) for body in bodies]
        await self.create(bodies)
        return await asyncio.gather(*outcomes)

    async def acknowledge(self, notices: Sequence[Notice]) -> None:
        """Say that notices have been dealt with: as the library does it, all that wait together.

        Raises:
            RuntimeError: one of them could not be.
        """
        self._heard += [notice.number for notice in notices if notice.number is not None]
        async with self._settling:
            while self._heard:
                numbers, self._heard = self._heard[:MOST_NOTICES], self._heard[MOST_NOTICES:]
                body = msgspec.json.encode(AcknowledgementBody(numbers=numbers))
                answer = _SETTLED.decode(await self.ask("POST", "/v1/notices/ack", body))
                if answer.refused:
                    raise RuntimeError(f"not acknowledged: {answer.refused[0]}")

    async def act(self, job_id: str, verb: str) -> None:
        """Complete a job, cancel it, and so on."""
        await self.ask("POST", f"/v1/jobs/{job_id}/{verb}")

    async def why(self, job_id: str) -> list[str]:
        """Return the codes of what holds a job."""
        answer = await self.ask("GET", f"/v1/jobs/{job_id}/why")
        return [each.code for each in msgspec.json.decode(answer, type=_Reasons).blockers]

    async def states(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        return msgspec.json.decode(await self.ask("GET", "/v1/health"), type=_Health).jobs

    async def emptied(self) -> None:
        """Return when no job is in the queue."""
        while True:
            if not any((await self.states()).values()):
                return
            await asyncio.sleep(_LOOK)

    def _hang_up(self) -> None:
        while not self._lines.empty():
            self._lines.get_nowait().close()

    async def _listen(self, events: AsyncIterator[bytes]) -> None:
        rest = b""
        try:
            async for piece in events:
                *whole, rest = (rest + piece).split(b"\n\n")
                for event in whole:
                    self._hear(event)
        finally:
            for future in self._awaited.values():
                future.cancel("the daemon tells nothing any more")

    def _hear(self, event: bytes) -> None:
        _, found, data = event.partition(b"\ndata: ")
        if not found:  # a heartbeat
            return
        notice = _NOTICE.decode(data)
        future = self._awaited.pop(notice.job.id, None)
        if future is None:
            return
        if notice.kind == "transferred":
            future.set_result(notice)
        else:
            future.set_exception(RuntimeError(f"the job failed: {notice.job.error}"))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def job(files: Sequence[tuple[str, Path]], **fields: Any) -> JobBody:
    """Return a wish for a foreground job that starts at once, of `(url, place)`s."""
    bodies = [FileBody(remote=url, local=str(place)) for url, place in files]
    body = JobBody(id=str(uuid4()), name="bench", priority="foreground", files=bodies, start=True)
    return msgspec.structs.replace(body, **fields)
