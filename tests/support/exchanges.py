"""An exchange without a run around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from transferd.model.errors import TransferFailed
from transferd.wire.link import WorkerSettings
from transferd.worker.answer import Answer
from transferd.worker.connection import Connector
from transferd.worker.exchange import Exchange
from transferd.worker.request import Request
from transferd.worker.trust import Trust

SETTINGS = WorkerSettings(user_agent="transferd/test", connect_timeout=5, stall_window=5)


@contextlib.asynccontextmanager
async def open_exchange(
    settings: WorkerSettings = SETTINGS, cacert: str | None = None, **changed: float
) -> AsyncIterator[Exchange]:
    """Open an exchange that trusts a CA file, and close it."""
    settings = msgspec.structs.replace(settings, **changed)
    with ThreadPoolExecutor(1) as threads:
        context = await Trust(threads).context(cacert)
    exchange = Exchange(Connector(), context, settings)
    try:
        yield exchange
    finally:
        await exchange.close()


async def body_of(answer: Answer) -> bytes:
    """Read a body to its end."""
    parts = []
    while data := await answer.read():
        parts.append(data)
    return b"".join(parts)


async def failure(exchange: Exchange, request: Request) -> TransferFailed:
    """Send, read, and return the failure that came of it."""
    with pytest.raises(TransferFailed) as caught:
        await body_of(await exchange.send(request))
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def sockets_to(port: int) -> int:
    """How many sockets of this process are connected to that port, and not yet closed."""
    return sum(_peer(int(name)) == port for name in os.listdir("/proc/self/fd"))


def _peer(descriptor: int) -> int | None:
    copy: int | None = None
    try:
        copy = os.dup(descriptor)
        held = socket.socket(fileno=copy)
        copy = None
        with held:
            address = held.getpeername()
            return address[1] if isinstance(address, tuple) else None
    except OSError:
        # It is no socket, or one that is connected to nobody.
        return None
    finally:
        if copy is not None:
            os.close(copy)


async def cancelled_after(turns: int, work: Coroutine[object, object, object]) -> bool:
    """Begin *work*, cancel it after so many turns of the loop, and say whether that hit it."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return task.cancelled()
