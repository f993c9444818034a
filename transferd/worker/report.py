"""What a worker says to the daemon's log: records over its link, no secrets, and not too many."""

from __future__ import annotations

import logging
import threading
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from contextlib import suppress

from transferd.logs import Value, contents
from transferd.model.job import Seconds
from transferd.wire.link import Said

#: So many records at once, and so many a second in the long run.
BURST, RATE = 200, 20.0


class Report(logging.Handler):
    """Says what is logged over the link; keeps it until there is one."""

    def __init__(self, clock: Callable[[], Seconds] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._room = float(BURST)
        self._measured = clock()
        self._left_out = 0
        self._kept: list[Said] = []
        self._post: Callable[[Said], None] | None = None
        self._loop: AbstractEventLoop | None = None
        self._thread = 0

    def attach(self, post: Callable[[Said], None]) -> None:
        """Say it with *post* from now on, in the running loop; also what was said before."""
        self.acquire()
        try:
            self._post, self._loop = post, get_running_loop()
            self._thread = threading.get_ident()
            kept, self._kept = self._kept, []
        finally:
            self.release()
        for said in kept:
            post(said)

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record, or count it where there were too many."""
        try:
            if not self._has_room():
                self._left_out += 1
                return
            if self._left_out:
                self._say(Said("warning", "log.suppressed", {"records": self._left_out}))
                self._left_out = 0
            event, fields = contents(record)
            said = {name: _sendable(value) for name, value in fields.items()}
            self._say(Said(_level(record.levelno), event, said))
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be said
            self.handleError(record)

    def _has_room(self) -> bool:
        now = self._clock()
        self._room = min(self._room + (now - self._measured) * RATE, BURST)
        self._measured = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def _say(self, said: Said) -> None:
        if self._post is None or self._loop is None:
            self._kept.append(said)
        elif threading.get_ident() == self._thread:
            self._post(said)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._post, said)


def set_up_report() -> Report:
    """Send all logging of this process to a new report, in place of where it went before."""
    report = Report()
    logging.basicConfig(handlers=[report], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    return report


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


def _sendable(value: Value) -> Value:
    """Return a value that JSON has: names of files may be no UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
