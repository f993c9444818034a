"""Threads for what blocks: as many as the work asks for, or as many as the kernel gives."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

#: How far behind everybody else on the machine's processors (nice(2)).
_BEHIND = 10


def stand_back() -> None:
    """Let others have the processors first; it holds for the thread that calls this alone.

    Bodies at full speed would keep the daemon, the worker's loop and the machine's user waiting
    for each turn of theirs. Where nobody else wants a processor, it costs nothing.
    """
    with contextlib.suppress(OSError):  # forbidden to be nice
        os.nice(_BEHIND)


class Threads(ThreadPoolExecutor):
    """A pool that has one thread from the start, and gets by without others that it cannot have.

    An owner's limit on processes (RLIMIT_NPROC) counts threads too. Where it is reached, work waits
    for a thread that there is; the pool of the library would have begun it and lost its result.

    Raises:
        RuntimeError: there is not even one thread.
    """

    def __init__(self, most: int, name: str, begin: Callable[[], None] | None = None) -> None:
        """Take how many there are at most, and what each of them does first."""
        super().__init__(most, thread_name_prefix=name, initializer=begin)
        self.submit(int).result()

    def _adjust_thread_count(self) -> None:
        # Called when the work is queued; the library has no public place to hear of it.
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
