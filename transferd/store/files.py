"""Files of jobs: which there are, which are open, which wait for their names."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from transferd.model.errors import BadRequest, Conflict
from transferd.model.job import File, FileSpec
from transferd.model.limits import Quota
from transferd.model.queue import FilePage
from transferd.store.quota import check_bytes, storing, weight_of
from transferd.store.rows import SELECT_FILE, Row, file_of, listed, microseconds, take_page

_INSERT = "INSERT INTO files (job, file, remote, local, checksum) VALUES (?, ?, ?, ?, ?)"
_OF_JOBS = "WHERE job IN (SELECT value FROM json_each(?))"


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


def open_rows(cx: sqlite3.Connection, jobs: Sequence[int]) -> dict[int, list[Row]]:
    """Return the rows of all files of some jobs that are not completed, for `read_files`."""
    return _by_job(cx, SELECT_FILE + _OF_JOBS + " AND completed = 0", jobs)


def publishable_rows(cx: sqlite3.Connection, jobs: Sequence[int]) -> dict[int, list[Row]]:
    """Return the rows of the files that are completed but not published, for `read_files`."""
    return _by_job(cx, SELECT_FILE + _OF_JOBS + " AND completed = 1 AND published = 0", jobs)


def _by_job(cx: sqlite3.Connection, query: str, jobs: Sequence[int]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in cx.execute(query, [listed(jobs)]):
        found.setdefault(row["job"], []).append(row)
    return found


def read_files(rows: Sequence[Row]) -> tuple[File, ...]:
    """Return the files of one job, by index."""
    return tuple(sorted(map(file_of, rows), key=lambda file: file.index))


def publish_files(cx: sqlite3.Connection, files: Sequence[tuple[int, int]]) -> None:
    """Mark files as published, each by the number of its job and its own."""
    cx.executemany(
        "UPDATE files SET published = 1 WHERE job = ? AND file = ? AND completed = 1", files
    )
