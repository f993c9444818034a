"""An exchange without a run around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

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
    settings: WorkerSettings = SETTINGS, cacert: str | None = None
) -> AsyncIterator[Exchange]:
    """Open an exchange that trusts a CA file, and close it."""
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
