"""Questions to the user database, in threads that nobody waits for in the end: a name server may be
dead, and neither the loop nor the threads of others, nor the end of the daemon, wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from transferd.model.job import Seconds

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

#: A directory service that is silent for longer is not waited for.
LOOKUP_SECONDS: Seconds = 10.0


class Lookups(Generic[K, T]):
    """Answers of a function that may block.

    There is one thread for a question at most, however often it is asked.
    """

    def __init__(self, find: Callable[[K], T], patience: Seconds = LOOKUP_SECONDS) -> None:
        self._find = find
        self._patience = patience
        self._open: dict[K, asyncio.Future[T]] = {}

    async def find(self, key: K) -> T:
        """Return what the function returns, and raise what it raises.

        Raises:
            TimeoutError: the user database does not answer.
        """
        answer = self._open.get(key)
        if answer is None:
            answer = self._open[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(partial(self._close, key))
            ask = partial(self._ask, key, answer)
            threading.Thread(target=ask, name=f"lookup of {key}", daemon=True).start()
        await asyncio.wait([answer], timeout=self._patience)
        if not answer.done():
            raise TimeoutError(
                f"the user database did not answer within {self._patience:g} s; is its server up?"
            )
        return answer.result()

    def _close(self, key: K, answer: asyncio.Future[T]) -> None:
        del self._open[key]
        answer.exception()  # whoever asked may have given up

    def _ask(self, key: K, answer: asyncio.Future[T]) -> None:
        say: Callable[[], None]
        try:
            found = self._find(key)
        except Exception as error:  # noqa: BLE001 - it is the asker's
            say = partial(answer.set_exception, error)
        else:
            say = partial(answer.set_result, found)
        with suppress(RuntimeError):  # the daemon is gone
            answer.get_loop().call_soon_threadsafe(say)
