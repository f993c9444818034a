"""Threads for security libraries, which may wait: for a KDC, a name server, a locked keyring.

They wait where nothing can interrupt them, so that a step which is late is left behind: its thread
goes on until the library gives up, and what it then returns is thrown away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

from transferd.auth.flow import CannotStart
from transferd.model.job import Seconds
from transferd.worker.threads import Threads

_T = TypeVar("_T")

#: Made as they are needed. So many runs can wait for a dead KDC before others wait for them.
SECURITY_THREADS = 64


def open_security_threads() -> Threads:
    """Return the threads that all runs of a worker share; nobody ever waits for their end."""
    return Threads(SECURITY_THREADS, "security")


class Steps:
    """The steps of one run: one at a time, none longer than its owner's patience."""

    def __init__(self, threads: Executor, patience: Seconds) -> None:
        self._threads = threads
        self._patience = patience
        self._free = threading.Lock()

    async def take(self, step: Callable[[], _T], abandon: Callable[[Future[_T]], None]) -> _T:
        """Call *step* in a thread and return what it returns.

        A step that is late, or whose caller is cancelled, goes on alone. *abandon* is called with
        it then: until it is done, nothing that it uses may be touched, and no other step of this
        run is begun.

        Raises:
            CannotStart: `kdc_unreachable`, it is late, or the one before it still is; and whatever
                *step* raises.
        """
        if not self._free.acquire(blocking=False):
            raise self._late("still does not answer")
        future = self._threads.submit(step)
        future.add_done_callback(self._ended)
        waiter = asyncio.wrap_future(future)
        waited = False
        try:
            waited = bool((await asyncio.wait([waiter], timeout=self._patience))[0])
        finally:
            if not waited:
                # A cancelled waiter logs no error that nobody has asked it for.
                waiter.cancel()
                future.cancel()
                abandon(future)
        if not waited:
            raise self._late(
                f"did not answer within {self._patience:g} s: its KDC or a name server is silent"
            )
        return waiter.result()

    def _ended(self, _: Future[_T]) -> None:
        self._free.release()

    def _late(self, what: str) -> CannotStart:
        return CannotStart(f"the Kerberos library {what}", code="kdc_unreachable")
