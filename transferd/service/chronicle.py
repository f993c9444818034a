"""What is put on record of one run: files that start and stop (BITS events 59 to 61), and bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from transferd.model.job import File, Seconds, covered
from transferd.model.origins import readable
from transferd.service.meter import Meter
from transferd.service.ports import Clock, Runnable
from transferd.wire import link
from transferd.wire.message import Message

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """A file that is being fetched."""

    #: None: since less than anybody has measured.
    since: Seconds | None
    #: Bytes that have become durable since then.
    moved: int = 0


class Chronicle:
    """Hears what the worker says of a run, and writes down what concerns files."""

    def __init__(self, claim: Runnable, meter: Meter, clock: Clock) -> None:
        self._claim = claim
        self._meter = meter
        self._clock = clock
        self._files: dict[int, File] = {}
        #: How much of each file was durable last.
        self._covered: dict[int, int] = {}
        self._visits: dict[int, _Visit] = {}

    def take(self, files: Iterable[File]) -> None:
        """Take the files that the worker is told of, in place of those before."""
        self.close("stopped")
        self._files = {file.index: file for file in files}
        self._covered = {index: file.bytes_covered for index, file in self._files.items()}

    def hear(self, message: object) -> None:
        """Take a message of the worker's, once it is kept; any other says it is gone."""
        match message:
            case link.Opened() if message.file in self._files:
                self._start(message.file)
            case link.Durable() if message.file in self._files:
                self._reach(message.file, covered(message.offset, message.parts))
            case link.Reset() if message.file in self._covered:
                self._covered[message.file] = 0
            case link.FileDone() if message.file in self._files:
                moved = self._reach(message.file, message.size)
                # A small file is done before anybody hears that it has begun.
                visit = self._visits.pop(message.file, None) or _Visit(None, moved)
                self._write_stop(message.file, visit, "done", message.http_status)
            case link.Failed():
                self.close(message.failure.code, message.failure.http_status)
            case Message():
                pass
            case _:
                self.close("worker_lost")

    def close(self, status: str, http_status: int | None = None) -> None:
        """Take that the run is over: what was on its way has stopped. Again is success."""
        visits, self._visits = self._visits, {}
        for file, visit in visits.items():
            self._write_stop(file, visit, status, http_status)

    def _start(self, file: int) -> None:
        if file not in self._visits:
            self._visits[file] = _Visit(self._clock.steady())
            offset = self._covered[file]
            log.info("file.start", extra={"fields": self._fields(file) | {"offset": offset}})

    def _reach(self, file: int, count: int) -> int:
        """Take how much of a file is durable, and return how much more that is."""
        moved = max(0, count - self._covered[file])
        self._covered[file] = count
        self._meter.moved(moved)
        if file in self._visits:
            self._visits[file].moved += moved
        return moved

    def _write_stop(self, file: int, visit: _Visit, status: str, http_status: int | None) -> None:
        since = visit.since
        fields = self._fields(file) | {
            "status": status,
            "bytes": visit.moved,
            "seconds": None if since is None else round(self._clock.steady() - since, 3),
            "http_status": http_status,
        }
        log.info("file.stop", extra={"fields": fields})

    def _fields(self, file: int) -> dict[str, object]:
        claim, url = self._claim, readable(self._files[file].spec.remote)
        return {"job": claim.job_id, "owner": claim.owner, "file": file, "url": url}
