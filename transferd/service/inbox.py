"""What a worker has said of a run, until the run takes it: bounded, so that the link waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from transferd.service.testimony import RunMessage
from transferd.wire import link

#: With so many messages waiting, the worker's link is not read until there are fewer.
ROOM = 128


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone."""

    #: Whose worker, and what became of it: the beginning of a sentence.
    reason: str


#: What a run cannot go on after without a decision.
End: TypeAlias = link.Drained | link.Failed | link.Stopped | Lost


@dataclass(frozen=True, slots=True)
class Batch:
    """What was said up to some moment, in order."""

    said: Sequence[RunMessage]
    #: What it ends with, if that is an end.
    end: End | None


class Inbox:
    """Messages for one run, in order. One task takes them."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._messages: deque[RunMessage | Lost] = deque()
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._closed = False

    def put(self, message: RunMessage | Lost) -> None:
        """Add a message; whoever reads the link waits for room after that.

        An offset that nobody has looked at is replaced by the next one of the same file.
        """
        if self._closed:
            return
        last = self._messages[-1] if self._messages else None
        match last, message:
            case link.Durable(file=before), link.Durable(file=now) if before == now:
                self._messages.pop()
        self._messages.append(message)
        self._news.set()
        if len(self._messages) >= self._room:
            self._space.clear()

    async def take(self) -> Batch:
        """Wait for messages and take all that are here, up to an end."""
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        said: list[RunMessage] = []
        end: End | None = None
        while self._messages and end is None:
            message = self._messages.popleft()
            if isinstance(message, End):
                end = message
            else:
                said.append(message)
        if len(self._messages) < self._room:
            self._space.set()
        return Batch(said, end)

    def put_back(self, said: Sequence[RunMessage]) -> None:
        """Have messages taken again before all others."""
        if not self._closed:
            self._messages.extendleft(reversed(said))
            self._news.set()

    async def room(self) -> None:
        """Wait until the run has caught up, or takes nothing more."""
        await self._space.wait()

    def close(self) -> None:
        """Take nothing more: the run is over."""
        self._closed = True
        self._messages.clear()
        self._space.set()

    def __len__(self) -> int:
        return len(self._messages)
