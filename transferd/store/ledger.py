"""The rows of one job while a run reports on it: read once, changed in memory, written once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from transferd.model.errors import Conflict, InvalidTransition, file_not_found
from transferd.model.job import Inode, Job, JobId, Part, covered
from transferd.model.limits import Quota
from transferd.model.notices import Notice, NoticeKind
from transferd.model.origins import readable
from transferd.model.queue import Change, Moved
from transferd.model.reports import (
    Checkpoint,
    Connected,
    Done,
    Kept,
    Opened,
    Report,
    Reset,
    Sized,
)
from transferd.model.states import JobEvent, JobState
from transferd.store.files import open_files
from transferd.store.moves import moved
from transferd.store.outbox import kind_due, write_notice
from transferd.store.queue import row_of
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


def keep(
    cx: sqlite3.Connection,
    job_id: JobId,
    reports: Sequence[Report],
    now: datetime,
    *,
    quota: Quota,
    extend: int | None,
) -> Kept:
    """Put reports into the rows of their job; see service.ports.JobStore.keep.

    Raises:
        NotFound: `job_not_found`, `file_not_found`.
    """
    ledger = _Ledger(cx, row_of(cx, job_id), now, quota)
    for report in reports:
        ledger.put(report)
    done = extend is not None and ledger.refusal is None and ledger.whole
    if done:
        ledger.move(JobEvent.FINISH)
    ledger.write()
    return Kept(
        moved=ledger.moved,
        files=() if done or extend is None else open_files(cx, ledger.number, extend),
        refusal=ledger.refusal,
        overtaken=ledger.overtaken,
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


class _Ledger:
    def __init__(self, cx: sqlite3.Connection, row: Row, now: datetime, quota: Quota) -> None:
        self._cx = cx
        self._now = now
        self._quota = quota
        self._job = job_of(row)
        self._before = self._job.state
        self._files: dict[int, _File] = {}
        #: Whether the job's row is another one now, and whether bytes have moved.
        self._changed = self._progressed = False
        #: Whether the job is behind the sums and what has moved.
        self._stale = False
        self._transferred = int(row["files_transferred"])
        self._unknown = int(row["sizes_unknown"])
        self._known = self._known_before = int(row["bytes_known"])
        self._bytes = int(row["bytes_transferred"])
        self._notices: list[Notice] = []
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

    @property
    def moved(self) -> Moved:
        """The job as it is now, and what was written to the outbox."""
        return Moved(job=self._current(), before=self._before, notices=tuple(self._notices))

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
        job = self._current()
        self._notices.append(write_notice(self._cx, kind, self.number, job, self._now, file=file))

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
        row = self._cx.execute(_READ_FILE, [self.number, index]).fetchone()
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

    def write(self) -> None:
        """Write what has changed."""
        self._cx.executemany(
            _WRITE_FILE,
            [
                (
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
                for index, file in self._files.items()
            ],
        )
        if self._changed:
            self._write_job()

    def _write_job(self) -> None:
        job = self._current()
        self._cx.execute(
            _WRITE_JOB,
            [
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
            ],
        )


def _stored(total: int) -> int:
    return max(0, min(total, _MOST))


_READ_FILE = """
SELECT offset, parts, total, validator, device, inode, born, completed, published,
       length_unverified
FROM files WHERE job = ? AND file = ?
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
