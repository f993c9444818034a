"""What is said to a caller who wants more connections than his share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from transferd.model.job import Seconds
from transferd.wire.api import Problem

#: A caller who sends nothing hears it after this long.
_PATIENCE: Seconds = 1.0
_STATUS = 503


class Refusal(asyncio.Protocol):
    """A connection that is told why it is not served, and closed.

    The answer waits for a piece of the request: who is told while he still speaks may not hear it,
    since to write on a closed connection is an error that comes first.
    """

    def __init__(self, held: int, gone: Callable[[Refusal], None]) -> None:
        """Take how many connections the caller has, and who hears of the end of this one."""
        self._held = held
        self._gone = gone
        self._transport: asyncio.WriteTransport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self._speak)

    def data_received(self, data: bytes) -> None:
        """Answer it, whatever it is."""
        self._speak()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take that it is over."""
        if self._patience is not None:
            self._patience.cancel()
        self._gone(self)

    def _speak(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer(self._held))
            self._transport.close()


def answer(held: int) -> bytes:
    """Return the answer to a caller who has so many connections."""
    problem = Problem(
        type="about:blank",
        title="Service Unavailable",
        status=_STATUS,
        detail=f"cannot serve another connection beside your {held} until others have gone;"
        " close some, or try again in a moment",
        code="too_many_connections",
    )
    body = msgspec.json.encode(problem)
    head = (
        f"HTTP/1.1 {_STATUS} {problem.title}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Retry-After: 1",
    )
    return "\r\n".join((*head, "", "")).encode() + body
