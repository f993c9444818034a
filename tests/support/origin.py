"""A programmable HTTP/1.1 origin on raw streams, so that it can misbehave in every way.

It runs in the test's own loop, on any loopback address, and records every request that it saw.
A page is a coroutine function of the request and the wire; `Document` is the page of a file that
can be resumed, with a knob for each way of getting that wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self, TypeAlias

Fields: TypeAlias = Iterable[tuple[str, str]]

DAY_BEFORE = "Mon, 05 Jan 2026 10:00:00 GMT"
TODAY = "Tue, 06 Jan 2026 10:00:00 GMT"
#: A head may be so large.
HEAD_BYTES = 1024 * 1024
_PIECE = 64 * 1024
_REASONS = {200: "OK", 206: "Partial Content", 302: "Found", 401: "Unauthorized"}


@dataclass(frozen=True)
class Seen:
    """One request, as it arrived."""

    method: str
    target: str
    #: Names in lower case, in order.
    headers: tuple[tuple[str, str], ...]
    #: Number of the connection at this origin.
    connection: int

    def get(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def path(self) -> str:
        """The path of an origin-form or absolute-form target."""
        return re.sub(r"^http://[^/]*", "", self.target)

    @property
    def range_start(self) -> int | None:
        """First byte of `Range: bytes=N-`, None without a range."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.get("range") or "")
        return int(match[1]) if match else None

    @property
    def range_end(self) -> int | None:
        """Behind the last byte of `Range: bytes=N-M`, None where it is open."""
        match = re.fullmatch(r"bytes=\d+-(\d+)", self.get("range") or "")
        return int(match[1]) + 1 if match else None


class Wire:
    """The sending side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.open = True
        #: Goes with the next head.
        self.extra: list[tuple[str, str]] = []

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: Fields) -> None:
        """Send a status line and headers."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in [*headers, *self.extra]]
        self.extra = []
        await self.raw("\r\n".join([*lines, "", ""]).encode("utf-8"))

    async def answer(self, status: int, headers: Fields = (), body: bytes = b"") -> None:
        """Send a whole answer with its length."""
        await self.head(status, [*headers, ("Content-Length", str(len(body)))])
        await self.raw(body)

    def close(self) -> None:
        """End the connection after what was sent."""
        self.open = False

    def drop(self) -> None:
        """Tear the connection down at once."""
        self.open = False
        self.writer.transport.abort()


Page: TypeAlias = Callable[[Seen, Wire], Awaitable[None]]


class Origin:
    """A server; `pages` by path without query, everything else is 404."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = 0
        self.pages: dict[str, Page] = {}
        self.seen: list[Seen] = []
        self.connections = 0
        #: Connections that are over, as far as this side goes.
        self.served = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    def url(self, path: str) -> str:
        """The absolute URL of a path."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}{path}"

    @property
    def said(self) -> str:
        """Everything that any client ever said to this origin in heads, for a search."""
        return "\n".join(
            f"{seen.method} {seen.target} {name}: {value}"
            for seen in self.seen
            for name, value in [*seen.headers, ("", "")]
        )

    def requests(self, path: str) -> list[Seen]:
        """The requests for a path, in order."""
        return [seen for seen in self.seen if seen.path.partition("?")[0] == path]

    async def saw(self, count: int) -> None:
        """Wait until *count* requests have arrived."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.seen) >= count)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve until the block ends."""
        server = await self._listen()
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._connected, self.host, self.port, ssl=self._tls, limit=HEAD_BYTES
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        wire = Wire(reader, writer)
        try:
            await self._converse(wire, self.connections)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self.served += 1

    async def _converse(self, wire: Wire, number: int) -> None:
        while wire.open:
            seen = read_head(await wire.reader.readuntil(b"\r\n\r\n"), number)
            async with self._news:
                self.seen.append(seen)
                self._news.notify_all()
            page = self.pages.get(seen.path.partition("?")[0], _missing)
            await page(seen, wire)
            if seen.get("connection") == "close":
                wire.close()


def read_head(head: bytes, connection: int) -> Seen:
    """Read a request's head."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    return Seen(method, target, headers, connection)


async def _missing(seen: Seen, wire: Wire) -> None:
    await wire.answer(404, body=b"nothing here\n")


def fixed(status: int, headers: Fields = (), body: bytes = b"") -> Page:
    """A page that always gives the same answer."""
    kept = list(headers)

    async def page(seen: Seen, wire: Wire) -> None:
        await wire.answer(status, kept, body)

    return page


def redirect(location: str, status: int = 302) -> Page:
    """A page that sends its visitors elsewhere."""
    return fixed(status, [("Location", location)], b"over there\n")


def raw_answer(data: bytes, *, close: bool = True) -> Page:
    """A page that sends bytes which need not be HTTP."""

    async def page(seen: Seen, wire: Wire) -> None:
        await wire.raw(data)
        if close:
            wire.close()

    return page


def in_turn(*pages: Page) -> Page:
    """A page that is another one at each visit; the last one stays."""
    queue = deque(pages)

    async def page(seen: Seen, wire: Wire) -> None:
        current = queue.popleft() if len(queue) > 1 else queue[0]
        await current(seen, wire)

    return page


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a file."""

    body: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = DAY_BEFORE
    date: str | None = TODAY

    def headers(self) -> list[tuple[str, str]]:
        """The validators, as headers."""
        values = [("ETag", self.etag), ("Last-Modified", self.last_modified), ("Date", self.date)]
        return [(name, value) for name, value in values if value is not None]

    def matches(self, if_range: str) -> bool:
        """RFC 9110 13.1.5: strong comparison of a tag, equality of a date."""
        if if_range.startswith('"'):
            return if_range == self.etag
        return not if_range.startswith("W/") and if_range == self.last_modified


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one answer's body; offsets count the bytes of that answer."""

    #: Drop the connection there.
    cut: int | None = None
    #: Wait there for `Document.go`.
    stall: int | None = None
    #: Change the document to that version there; the answer goes on with the old bytes.
    change_to: Version | None = None
    #: Overwrite the document in place: the second half of the answer is the new bytes.
    overwrite_with: Version | None = None


@dataclass(kw_only=True)
class Document:
    """The page of a file; honours Range and If-Range unless told otherwise."""

    version: Version
    ranges: bool = True
    if_range: bool = True
    #: length, chunked or close
    framing: str = "length"
    extra: Fields = ()
    #: Rewrites the headers of an answer, the way to lie.
    rewrite: Callable[[int, dict[str, str]], tuple[int, dict[str, str]]] | None = None
    #: Seconds between pieces of `drip_bytes`.
    drip: float = 0.0
    drip_bytes: int = 1
    #: One for each answer with a body, in order; then none.
    faults: deque[Fault] = field(default_factory=deque)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when an answer waits for `go`.
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        version = self.version
        size = len(version.body)
        start = self._start(seen, version)
        headers = dict([*version.headers(), *self.extra])
        end = size
        if start is None:
            status, start = 200, 0
        elif start >= size:
            await wire.answer(416, [("Content-Range", f"bytes */{size}")])
            return
        else:
            status = 206
            end = min(seen.range_end or size, size)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if self.framing == "length":
            headers["Content-Length"] = str(end - start)
        elif self.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        if self.rewrite is not None:
            status, headers = self.rewrite(status, headers)
        await wire.head(status, headers.items())
        await self._send(wire, version.body[start:end])

    def _start(self, seen: Seen, version: Version) -> int | None:
        start = seen.range_start
        condition = seen.get("if-range")
        if not self.ranges or start is None:
            return None
        if condition is not None and self.if_range and not version.matches(condition):
            return None
        return start

    async def _send(self, wire: Wire, body: bytes) -> None:
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.overwrite_with is not None:
            self.version = fault.overwrite_with
            half = len(body) // 2
            body = body[:half] + self.version.body[len(self.version.body) - len(body) + half :]
        sent = 0
        for piece in self._pieces(body, fault):
            await self._trip(fault, sent, wire)
            if not wire.open:
                return
            if self.drip:
                await asyncio.sleep(self.drip)
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if self.framing == "chunked" else piece
            await wire.raw(framed)
            sent += len(piece)
        await self._trip(fault, sent, wire)
        if self.framing == "chunked" and wire.open:
            await wire.raw(b"0\r\n\r\n")
        if self.framing == "close":
            wire.close()

    async def _trip(self, fault: Fault, sent: int, wire: Wire) -> None:
        if fault.change_to is not None and sent == 0:
            self.version = fault.change_to
        if sent == fault.stall:
            self.stalled.set()
            await self.go.wait()
        if sent == fault.cut:
            wire.open = False
            wire.writer.close()

    def _pieces(self, body: bytes, fault: Fault) -> Iterator[bytes]:
        size = self.drip_bytes if self.drip else _PIECE
        marks = sorted({0, len(body), *range(0, len(body), size), *_marks(fault, len(body))})
        for start, end in itertools.pairwise(marks):
            yield body[start:end]


def _marks(fault: Fault, size: int) -> Iterator[int]:
    for mark in (fault.cut, fault.stall):
        if mark is not None and mark < size:
            yield mark
