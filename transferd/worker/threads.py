"""Threads for what blocks: as many as the work asks for, or as many as the kernel gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """A pool that has one thread from the start, and gets by without others that it cannot have.

    An owner's limit on processes (RLIMIT_NPROC) counts threads too. Where it is reached, work waits
    for a thread that there is; the pool of the library would have begun it and lost its result.

    Raises:
        RuntimeError: there is not even one thread.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self.submit(int).result()

    def _adjust_thread_count(self) -> None:
        # Called when the work is queued; the library has no public place to hear of it.
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
