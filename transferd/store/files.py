"""Files of jobs, and the sums over them that the job's row keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from transferd.model.errors import BadRequest, Conflict, NotFound
from transferd.model.job import File, FileSpec, Inode, covered
from transferd.model.limits import Quota
from transferd.model.origins import readable
from transferd.model.queue import Checkpoint, FilePage
from transferd.model.states import JobState
from transferd.store.quota import check_bytes, check_size, storing, weight_of
from transferd.store.rows import (
    SELECT_FILE,
    Row,
    file_of,
    microseconds,
    parts_of,
    signed,
    take_page,
    text_of,
)

_INSERT = "INSERT INTO files (job, file, remote, local, checksum) VALUES (?, ?, ?, ?, ?)"


def append_files(
    cx: sqlite3.Connection, job: int, first: int, specs: Sequence[FileSpec]
) -> tuple[File, ...]:
    """Add files to a job that has *first* of them; sums are the caller's.

    Raises:
        Conflict: `duplicate_destination`.
    """
    files = tuple(File(index=index, spec=spec) for index, spec in enumerate(specs, first))
    try:
        cx.executemany(
            _INSERT,
            (
                (
                    job,
                    file.index,
                    file.spec.remote,
                    file.spec.local,
                    None if file.spec.checksum is None else str(file.spec.checksum),
                )
                for file in files
            ),
        )
    except sqlite3.IntegrityError:
        local = _repeated(cx, job, first, specs)
        raise Conflict(
            "duplicate_destination",
            f"cannot write two files of one job to {local}; give each a destination of its own",
        ) from None
    return files


def _repeated(cx: sqlite3.Connection, job: int, first: int, specs: Sequence[FileSpec]) -> str:
    """Find the destination that is there twice, after an insertion that stopped at it."""
    query = "SELECT file FROM files WHERE job = ? AND local = ?"
    for index, spec in enumerate(specs, first):
        found = cx.execute(query, [job, spec.local]).fetchone()
        if found is not None and found["file"] != index:
            return spec.local
    raise AssertionError("a destination was refused that is there once")


def add_files(
    cx: sqlite3.Connection,
    job: int,
    specs: Sequence[FileSpec],
    now: datetime,
    *,
    files_per_job: int,
    quota: Quota,
) -> tuple[File, ...]:
    """Append files to a job, with its sums.

    Raises:
        Conflict: `duplicate_destination`, `queue_full`.
        BadRequest: `too_many_files`.
    """
    there, owner = cx.execute(
        "SELECT files_total, owner FROM jobs WHERE number = ?", [job]
    ).fetchone()
    if there + len(specs) > files_per_job:
        raise BadRequest(
            "too_many_files",
            f"cannot add {len(specs)} files to the {there} that the job has:"
            f" {files_per_job} are allowed; use another job",
        )
    check_bytes(cx, owner, "add files", quota)
    files = append_files(cx, job, there, specs)
    with storing(cx, owner, "add files", quota):
        cx.execute(
            """
            UPDATE jobs SET files_total = files_total + ?1, sizes_unknown = sizes_unknown + ?1,
                            weight = weight + ?2, modified = ?3
            WHERE number = ?4
            """,
            [len(files), weight_of(specs), microseconds(now), job],
        )
    return files


def page_of_files(cx: sqlite3.Connection, job: int, *, after: int, limit: int) -> FilePage:
    """Return a page of files."""
    query = SELECT_FILE + "WHERE job = ? AND file > ? ORDER BY file LIMIT ?"
    rows, more = take_page(cx.execute(query, [job, after, limit + 1]), limit)
    files = tuple(map(file_of, rows))
    return FilePage(files=files, next=files[-1].index if more else None)


def open_files(cx: sqlite3.Connection, job: int, limit: int) -> tuple[File, ...]:
    """Return the first files that are not completed."""
    query = SELECT_FILE + "WHERE job = ? AND completed = 0 ORDER BY file LIMIT ?"
    return tuple(map(file_of, cx.execute(query, [job, limit])))


def publishable_files(cx: sqlite3.Connection, job: int) -> tuple[File, ...]:
    """Return the files that are completed but not published."""
    query = SELECT_FILE + "WHERE job = ? AND completed = 1 AND published = 0 ORDER BY file"
    return tuple(map(file_of, cx.execute(query, [job])))


def set_inode(cx: sqlite3.Connection, job: int, file: int, inode: Inode) -> None:
    """Keep which temporary file a file has."""
    _get(cx, job, file)
    cx.execute(
        "UPDATE files SET device = ?, inode = ?, born = ? WHERE job = ? AND file = ?",
        [signed(inode.device), signed(inode.number), inode.born, job, file],
    )


def checkpoint(cx: sqlite3.Connection, checkpoints: Sequence[Checkpoint], now: datetime) -> None:
    """Keep what is durable of files, in the order of the checkpoints."""
    for each in checkpoints:
        job = cx.execute("SELECT number FROM jobs WHERE id = ?", [each.job_id]).fetchone()
        row = None if job is None else _find(cx, job["number"], each.file)
        # A completed file has its size already; what comes late must not take it away.
        if row is not None and not row["completed"]:
            _keep_offset(cx, row, each, now)


def _keep_offset(cx: sqlite3.Connection, row: Row, checkpoint: Checkpoint, now: datetime) -> None:
    validator, parts = checkpoint.validator, checkpoint.parts
    cx.execute(
        """
        UPDATE files SET offset = ?, parts = ?, total = ?, validator = ?
        WHERE job = ? AND file = ?
        """,
        [
            checkpoint.offset,
            text_of(parts) if parts else None,
            checkpoint.total,
            None if validator is None else text_of(validator),
            row["job"],
            row["file"],
        ],
    )
    there = covered(checkpoint.offset, parts)
    _count(cx, row, there=there, total=checkpoint.total)
    if there > _covered(row):
        _progressed(cx, row["job"], now)


def size_file(cx: sqlite3.Connection, job: int, file: int, total: int, quota: Quota) -> None:
    """Keep the size that a server has named for a file, before the first byte of it.

    Raises:
        Conflict: `queue_full`: with it, the job's owner or the machine would have too many bytes.
    """
    row = _get(cx, job, file)
    if row["completed"] or row["total"] == total:
        return
    cx.execute("UPDATE files SET total = ? WHERE job = ? AND file = ?", [total, job, file])
    _count(cx, row, there=_covered(row), total=total)
    owner, remote = cx.execute(
        """
        SELECT owner, remote FROM jobs JOIN files ON job = number WHERE number = ? AND file = ?
        """,
        [job, file],
    ).fetchone()
    check_size(cx, owner, f"fetch {readable(remote)}", total, quota)


def reset_file(cx: sqlite3.Connection, job: int, file: int) -> None:
    """Forget what was fetched of a file; its temporary file stays the same."""
    row = _get(cx, job, file)
    cx.execute(
        """
        UPDATE files SET offset = 0, parts = NULL, total = NULL, validator = NULL,
                         completed = 0, published = 0, length_unverified = 0
        WHERE job = ? AND file = ?
        """,
        [job, file],
    )
    _count(cx, row, there=0, total=None)


def complete_file(
    cx: sqlite3.Connection,
    job: int,
    file: int,
    size: int,
    inode: Inode,
    *,
    length_unverified: bool,
    now: datetime,
) -> bool:
    """Mark a file as completed; False when it was before."""
    row = _get(cx, job, file)
    if row["completed"]:
        return False
    cx.execute(
        """
        UPDATE files SET completed = 1, offset = ?1, parts = NULL, total = ?1,
                         length_unverified = ?2, device = ?3, inode = ?4, born = ?5
        WHERE job = ?6 AND file = ?7
        """,
        [
            size,
            length_unverified,
            signed(inode.device),
            signed(inode.number),
            inode.born,
            job,
            file,
        ],
    )
    _count(cx, row, there=size, total=size, completed=True)
    _progressed(cx, job, now)
    return True


def publish_files(cx: sqlite3.Connection, job: int, files: Sequence[int]) -> None:
    """Mark files as published."""
    cx.executemany(
        "UPDATE files SET published = 1 WHERE job = ? AND file = ? AND completed = 1",
        [(job, file) for file in files],
    )


def _find(cx: sqlite3.Connection, job: int, file: int) -> Row | None:
    query = """
        SELECT job, file, offset, parts, total, completed FROM files WHERE job = ? AND file = ?
        """
    row: Row | None = cx.execute(query, [job, file]).fetchone()
    return row


def _covered(row: Row) -> int:
    return covered(row["offset"], parts_of(row))


def _get(cx: sqlite3.Connection, job: int, file: int) -> Row:
    row = _find(cx, job, file)
    if row is None:
        raise NotFound("file_not_found", f"cannot find file {file}: the job has no such file")
    return row


def _count(
    cx: sqlite3.Connection, before: Row, *, there: int, total: int | None, completed: bool = False
) -> None:
    """Bring the job's sums up to date with one file that has changed: *there* are so many bytes.

    Sums stop where integers do: sizes are what servers say.
    """
    cx.execute(
        """
        UPDATE jobs SET files_transferred = files_transferred + ?1,
                        sizes_unknown = sizes_unknown + ?2,
                        bytes_known = max(min(bytes_known + ?3, 9223372036854775807), 0),
                        bytes_transferred = max(min(bytes_transferred + ?4, 9223372036854775807), 0)
        WHERE number = ?5
        """,
        [
            completed - before["completed"],
            (total is None) - (before["total"] is None),
            (total or 0) - (before["total"] or 0),
            there - _covered(before),
            before["job"],
        ],
    )


def _progressed(cx: sqlite3.Connection, job: int, now: datetime) -> None:
    """Bytes have moved: what held the job up before is over.

    Not so for a job that failed meanwhile: its error is newer than these bytes, and without its
    retry_at it would never be tried again.
    """
    cx.execute("UPDATE jobs SET modified = ? WHERE number = ?", [microseconds(now), job])
    cx.execute(
        """
        UPDATE jobs SET error = NULL, attempts = 0, retry_at = NULL, retry_delay = 0,
                        stuck_seconds = 0
        WHERE number = ? AND state NOT IN (?, ?)
        """,
        [job, JobState.ERROR, JobState.TRANSIENT_ERROR],
    )
