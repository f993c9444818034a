"""The rows of a job while a run reports on it: read once, changed in memory, written once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from transferd.model.errors import Conflict, InvalidTransition, file_not_found
from transferd.model.job import Inode, Job, Part, covered
from transferd.model.limits import Quota
from transferd.model.notices import Notice, NoticeKind
from transferd.model.origins import readable
from transferd.model.queue import Change, Moved
from transferd.model.reports import (
    Checkpoint,
    Connected,
    Done,
    Opened,
    Report,
    Reset,
    Sized,
)
from transferd.model.states import JobEvent, JobState
from transferd.store.moves import moved
from transferd.store.outbox import Due, kind_due
from transferd.store.quota import check_size
from transferd.store.rows import Row, job_of, microseconds, parts_of, signed, text_of

#: The largest integer of the queue file. Sums stop there: sizes are what servers say.
_MOST = 2**63 - 1
#: An error of these is newer than bytes that are reported after it, and without its retry_at the
#: job would never be tried again.
_FAILED = frozenset({JobState.ERROR, JobState.TRANSIENT_ERROR})
_UNHINDERED: Mapping[str, Any] = MappingProxyType(
    {"error": None, "attempts": 0, "retry_at": None, "retry_delay": 0.0, "stuck_seconds": 0.0}
)


@dataclass(slots=True)
class _File:
    """What a run may change of a file's row."""

    offset: int
    parts: tuple[Part, ...]
    total: int | None
    validator: str | None
    device: int | None
    inode: int | None
    born: int | None
    completed: bool
    published: bool
    length_unverified: bool

    @property
    def covered(self) -> int:
        """How many bytes there are of it."""
        return covered(self.offset, self.parts)

    def lie_in(self, inode: Inode) -> None:
        """Take which temporary file it has."""
        self.device, self.inode = signed(inode.device), signed(inode.number)
        self.born = inode.born


class Ledger:
    """What reports have made of a job and its files; `write_ledgers` puts it into the rows."""

    def __init__(
        self,
        cx: sqlite3.Connection,
        row: Row,
        files: Mapping[int, Row],
        now: datetime,
        quota: Quota,
    ) -> None:
        """Take the row of the job, and those of the files that will be reported on."""
        self._cx = cx
        self._now = now
        self._quota = quota
        self._job = job_of(row)
        self._before = self._job.state
        self._rows = files
        self._files: dict[int, _File] = {}
        #: Whether the job's row is another one now, and whether bytes have moved.
        self._changed = self._progressed = False
        #: Whether the job is behind the sums and what has moved.
        self._stale = False
        self._transferred = int(row["files_transferred"])
        self._unknown = int(row["sizes_unknown"])
        self._known = self._known_before = int(row["bytes_known"])
        self._bytes = int(row["bytes_transferred"])
        #: What is to be told of it.
        self.due: list[Due] = []
        self.number = int(row["number"])
        self.refusal: Conflict | None = None
        self.overtaken: InvalidTransition | None = None

    # ── what is reported ─────────────────────────────────────────────────────────────────

    def put(self, report: Report) -> None:
        """Take a report."""
        match report:
            case Connected():
                self.move(JobEvent.CONNECT)
            case Done():
                self._finish(report)
            case Opened():
                self._file(report.file).lie_in(report.inode)
            case Checkpoint():
                self._reach(self._file(report.file), report)
            case Sized():
                self._size(report)
            case Reset():
                self._reset(self._file(report.file))

    def _reach(self, file: _File, checkpoint: Checkpoint) -> None:
        # A completed file has its size already; what comes late must not take it away.
        if file.completed:
            return
        more = covered(checkpoint.offset, checkpoint.parts) > file.covered
        self._discount(file)
        file.offset, file.parts = checkpoint.offset, checkpoint.parts
        file.total = checkpoint.total
        validator = checkpoint.validator
        file.validator = None if validator is None else text_of(validator)
        self._count(file)
        self._progressed |= more

    def _size(self, report: Sized) -> None:
        file = self._file(report.file)
        if self.refusal is not None or file.completed or file.total == report.total:
            return
        growth = self._known - self._known_before + report.total - (file.total or 0)
        try:
            self._check_size(report, growth)
        except Conflict as full:
            self.refusal = full
            return
        self._discount(file)
        file.total = report.total
        self._count(file)

    def _check_size(self, report: Sized, growth: int) -> None:
        if not self._quota.bounds_bytes:
            return
        query = "SELECT remote FROM files WHERE job = ? AND file = ?"
        (remote,) = self._cx.execute(query, [self.number, report.file]).fetchone()
        what = f"fetch {readable(remote)}"
        check_size(self._cx, self._job.owner, what, report.total, growth, self._quota)

    def _reset(self, file: _File) -> None:
        self._discount(file)
        file.offset, file.parts, file.total, file.validator = 0, (), None, None
        file.completed = file.published = file.length_unverified = False
        self._count(file)

    def _finish(self, done: Done) -> None:
        file = self._file(done.file)
        if file.completed:
            return
        self._discount(file)
        file.offset, file.parts, file.total = done.size, (), done.size
        file.completed, file.length_unverified = True, done.length_unverified
        file.lie_in(done.inode)
        self._count(file)
        self._progressed = True
        if self._job.settings.notify_kinds & NoticeKind.FILE_TRANSFERRED:
            self._notify(NoticeKind.FILE_TRANSFERRED, done.file)

    # ── the job ──────────────────────────────────────────────────────────────────────────

    @property
    def whole(self) -> bool:
        """Whether every file is completed."""
        return self._transferred == self._job.files_total

    def moved(self, notices: Sequence[Notice]) -> Moved:
        """Return the job as it is now, with what was written to the outbox."""
        return Moved(job=self._current(), before=self._before, notices=tuple(notices))

    def move(self, event: JobEvent) -> None:
        """Let something happen to the job, unless it stands elsewhere by now."""
        try:
            after = moved(self._current(), event, self._now, Change())
        except InvalidTransition as error:
            self.overtaken = self.overtaken or error
            return
        if after.state is self._job.state:
            return
        self._job, self._changed = after, True
        kind = kind_due(after)
        if kind is not None:
            self._notify(kind)

    def _notify(self, kind: NoticeKind, file: int | None = None) -> None:
        due = Due(kind=kind, number=self.number, job=self._current(), file=file)
        self.due.append(due)

    def _current(self) -> Job:
        """Return the job with its sums; where bytes have moved, what held it up is over."""
        if self._stale:
            sums: dict[str, Any] = {
                "files_transferred": self._transferred,
                "bytes_total": None if self._unknown else _stored(self._known),
                "bytes_transferred": _stored(self._bytes),
            }
            if self._progressed:
                sums["modified"] = self._now
                sums |= {} if self._job.state in _FAILED else _UNHINDERED
            self._job = replace(self._job, **sums)
            self._stale = self._progressed = False
        return self._job

    # ── rows ─────────────────────────────────────────────────────────────────────────────

    def _file(self, index: int) -> _File:
        file = self._files.get(index)
        if file is None:
            file = self._files[index] = self._read(index)
        return file

    def _read(self, index: int) -> _File:
        row = self._rows.get(index)
        if row is None:
            raise file_not_found(index)
        return _File(
            offset=row["offset"],
            parts=parts_of(row),
            total=row["total"],
            validator=row["validator"],
            device=row["device"],
            inode=row["inode"],
            born=row["born"],
            completed=bool(row["completed"]),
            published=bool(row["published"]),
            length_unverified=bool(row["length_unverified"]),
        )

    def _discount(self, file: _File) -> None:
        """Take a file that is about to change out of the sums."""
        self._add(file, -1)

    def _count(self, file: _File) -> None:
        """Put a file that has changed into the sums."""
        self._add(file, 1)
        self._changed = self._stale = True

    def _add(self, file: _File, sign: int) -> None:
        self._transferred += sign * file.completed
        self._unknown += sign * (file.total is None)
        self._known += sign * (file.total or 0)
        self._bytes += sign * file.covered

    def file_rows(self) -> Iterator[tuple[object, ...]]:
        """Yield what there is to write of each file, as _WRITE_FILE takes it."""
        for index, file in self._files.items():
            yield (
                file.offset,
                text_of(file.parts) if file.parts else None,
                file.total,
                file.validator,
                file.device,
                file.inode,
                file.born,
                file.completed,
                file.published,
                file.length_unverified,
                self.number,
                index,
            )

    def job_rows(self) -> Iterator[tuple[object, ...]]:
        """Yield what there is to write of the job, if it has changed, as _WRITE_JOB takes it."""
        if not self._changed:
            return
        job = self._current()
        yield (
            job.state,
            None if job.error is None else text_of(job.error),
            microseconds(job.modified),
            None if job.transferred_at is None else microseconds(job.transferred_at),
            job.attempts,
            job.retry_at,
            job.retry_delay,
            job.stuck_seconds,
            self._transferred,
            self._unknown,
            _stored(self._known),
            _stored(self._bytes),
            self.number,
        )


def read_rows(
    cx: sqlite3.Connection, files: Sequence[tuple[int, int]]
) -> dict[int, dict[int, Row]]:
    """Return rows of files, each asked for by the number of its job and its own."""
    found: dict[int, dict[int, Row]] = {}
    if files:
        for row in cx.execute(_READ_FILES, [msgspec.json.encode(files).decode()]):
            found.setdefault(row["job"], {})[row["file"]] = row
    return found


def write_ledgers(cx: sqlite3.Connection, ledgers: Sequence[Ledger]) -> None:
    """Write what has changed, but for what is to be told."""
    cx.executemany(_WRITE_FILE, [row for ledger in ledgers for row in ledger.file_rows()])
    cx.executemany(_WRITE_JOB, [row for ledger in ledgers for row in ledger.job_rows()])


def _stored(total: int) -> int:
    return max(0, min(total, _MOST))


_READ_FILES = """
SELECT file, job, offset, parts, total, validator, device, inode, born, completed, published,
       length_unverified
FROM json_each(?) CROSS JOIN files
WHERE job = json_extract(json_each.value, '$[0]') AND file = json_extract(json_each.value, '$[1]')
"""
_WRITE_FILE = """
UPDATE files SET offset = ?, parts = ?, total = ?, validator = ?, device = ?, inode = ?, born = ?,
                 completed = ?, published = ?, length_unverified = ?
WHERE job = ? AND file = ?
"""
_WRITE_JOB = """
UPDATE jobs SET state = ?, error = ?, modified = ?, transferred_at = ?, attempts = ?, retry_at = ?,
                retry_delay = ?, stuck_seconds = ?, files_transferred = ?, sizes_unknown = ?,
                bytes_known = ?, bytes_transferred = ?
WHERE number = ?
"""
