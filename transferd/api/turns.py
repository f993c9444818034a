"""Whose turn it is to be answered: each caller has so many requests in work, the rest of his wait.

The queue file has one reader and the daemon one loop. Without turns somebody with a thousand
connections would be served a thousand times before anybody else is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

#: What one caller asks for at once; more would only make everybody wait longer.
_AT_ONCE = 8


class Turns:
    """Places of each caller, which exist while he has requests."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, uid: int) -> AsyncIterator[None]:
        """Wait until it is a caller's turn, and have it until the block ends."""
        places = self._places.get(uid)
        if places is None:
            places = self._places[uid] = asyncio.Semaphore(_AT_ONCE)
        async with places:
            yield
