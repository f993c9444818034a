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

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """A file that is being fetched."""

    since: Seconds
    #: Bytes that have become durable since then.
    moved: int = 0


class Chronicle:
    """Hears what the worker says of a run, and writes down what concerns files."""

    def __init__(self, claim: Runnable, meter: Meter, clock: Clock) -> None:
        self._claim = claim
        self._meter = meter
        self._clock = clock
        self._urls: dict[int, str] = {}
        #: How much of each file was durable last.
        self._covered: dict[int, int] = {}
        self._visits: dict[int, _Visit] = {}

    def take(self, files: Iterable[File]) -> None:
        """Take the files that the worker is told of, in place of those before."""
        self.close("stopped")
        files = tuple(files)
        self._urls = {file.index: readable(file.spec.remote) for file in files}
        self._covered = {file.index: file.bytes_covered for file in files}

    def hear(self, message: object) -> None:
        """Take a message of the worker's, before it is acted upon; any other says it is gone."""
        match message:
            case link.Opened() if message.file in self._urls:
                self._start(message.file)
            case link.Durable():
                self._reach(message.file, covered(message.offset, message.parts))
            case link.Reset() if message.file in self._covered:
                self._covered[message.file] = 0
            case link.FileDone():
                self._reach(message.file, message.size)
                self._stop(message.file, "done", message.http_status)
            case link.Failed():
                self.close(message.failure.code, message.failure.http_status)
            case link.Message():
                pass
            case _:
                self.close("worker_lost")

    def close(self, status: str, http_status: int | None = None) -> None:
        """Take that the run is over: what was on its way has stopped. Again is success."""
        for file in tuple(self._visits):
            self._stop(file, status, http_status)

    def _start(self, file: int) -> None:
        if file not in self._visits:
            self._visits[file] = _Visit(self._clock.steady())
            offset = self._covered[file]
            log.info("file.start", extra={"fields": self._fields(file) | {"offset": offset}})

    def _reach(self, file: int, count: int) -> None:
        if file in self._covered:
            moved = max(0, count - self._covered[file])
            self._covered[file] = count
            self._meter.moved(moved)
            if file in self._visits:
                self._visits[file].moved += moved

    def _stop(self, file: int, status: str, http_status: int | None) -> None:
        visit = self._visits.pop(file, None)
        if visit is None:
            return
        fields = self._fields(file) | {
            "status": status,
            "bytes": visit.moved,
            "seconds": round(self._clock.steady() - visit.since, 3),
            "http_status": http_status,
        }
        log.info("file.stop", extra={"fields": fields})

    def _fields(self, file: int) -> dict[str, object]:
        claim = self._claim
        return {"job": claim.job_id, "owner": claim.owner, "file": file, "url": self._urls[file]}
