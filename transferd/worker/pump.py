"""Moves the body of an answer from its connection to its file, in a thread of its own.

Neither the loop nor Python's lock is in the way of the bytes: each call into the kernel, or into
OpenSSL, lets go of it.
"""

from __future__ import annotations

import math
import os
import select
from time import monotonic

from transferd.model.job import Seconds
from transferd.worker.cursor import Cursor
from transferd.worker.flow import PIPE, Flow
from transferd.worker.pace import Pace


class Pump:
    """One body on its way. A thread runs it; the loop looks on, and may stop it."""

    def __init__(self, flow: Flow, cursor: Cursor, limit: int, pace: Pace) -> None:
        """Take bytes from *flow* until *cursor* stands at *limit*.

        Raises:
            OSError: there are no more descriptors to be had.
        """
        self._flow = flow
        self._cursor = cursor
        self._pace = pace
        #: May be lowered while it runs: somebody else fetches the rest.
        self.limit = limit
        #: Whether the connection ended before that.
        self.ended = False
        self._stopped = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: How long it has waited, and since when it waits again: one value, for two threads.
        self._waits: tuple[Seconds, Seconds | None] = (0.0, None)

    @property
    def waited(self) -> Seconds:
        """How long the server has been waited for, in all: neither the disk nor the pace counts."""
        waited, since = self._waits
        return waited if since is None else waited + max(0.0, monotonic() - since)

    def stop(self) -> None:
        """Let the thread leave as soon as no call into the kernel holds it."""
        if not self._stopped:
            self._stopped = True
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let go of the connection; when the thread has left."""
        self._stopped = True
        os.close(self._wake)
        self._flow.close()

    def run(self) -> None:
        """Move bytes until there are no more to move, or `stop` was called.

        Raises:
            OSError: the connection was lost. TransferFailed: the file could not be written.
        """
        news = select.poll()
        news.register(self._wake, select.POLLIN)
        pause = select.poll()
        pause.register(self._wake, select.POLLIN)
        news.register(self._flow.fileno(), select.POLLIN)
        while not self._stopped and (left := self.limit - self._cursor.position) > 0:
            room, wait = self._pace.room(monotonic())
            if room <= 0:
                pause.poll(_milliseconds(wait))
                continue
            moved = self._flow.carry(self._cursor, min(left, room, PIPE))
            if moved is None:
                self._wait(news, wait)
            elif moved == 0:
                self.ended = True
                return
            else:
                self._pace.took(monotonic(), moved)

    def _wait(self, news: select.poll, most: Seconds) -> None:
        waited, began = self._waits[0], monotonic()
        self._waits = (waited, began)
        news.poll(_milliseconds(most))
        self._waits = (waited + monotonic() - began, None)


def _milliseconds(wait: Seconds) -> float | None:
    """Return a time as poll(2) has it; it is not asked again too early."""
    return None if math.isinf(wait) else math.ceil(wait * 1000)
