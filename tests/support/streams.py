"""Ports of this host whose connections end with the test, and bytes that run through them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
#: Given the number of a connection, from 1 on, and its stream; the connection ends with it.
Serve: TypeAlias = Callable[[int, Stream], Awaitable[None]]

_PIECE = 65536


@contextlib.asynccontextmanager
async def listening(
    serve: Serve,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    backlog: int = 100,
) -> AsyncIterator[int]:
    """Serve every connection until the block ends; yields the port.

    A connection is closed after what was sent, and aborted where that is not to be: a stream
    broke or ended too soon, or the block ends.
    """
    numbers = itertools.count(1)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(next(numbers), (reader, writer))
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0, ssl=tls, backlog=backlog)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until one of the two ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()


async def join(client: Stream, server: Stream) -> None:
    """Pass on what comes from either, until the server ends."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(pump(client[0], server[1]))
        await group.create_task(pump(server[0], client[1]))
        up.cancel()


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, size: int) -> None:
    """Pass on so many bytes; raises EOFError when there are fewer."""
    await target.drain()
    while size:
        data = await source.read(min(size, _PIECE))
        if not data:
            raise EOFError
        size -= len(data)
        target.write(data)
        await target.drain()
