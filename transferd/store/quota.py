"""How full the queue is, held against how full a caller may make it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transferd.model.errors import Conflict
from transferd.model.job import FileSpec
from transferd.model.limits import Quota

_OTHERS = "wait until others are done, or ask the administrator for more"
_OWN = "complete or cancel some jobs first"
#: About what a job's row takes beside its settings, and a file's beside its names.
JOB_BYTES, _FILE_BYTES = 512, 128


def check_jobs(cx: sqlite3.Connection, owner: int, new: int, quota: Quota) -> None:
    """Refuse *new* jobs, which are there already, where they are too many.

    Raises:
        Conflict: `too_many_jobs` of the owner, `queue_full` of the machine.
    """
    limit = quota.jobs_per_user
    if limit is not None and (there := _owned(cx, "jobs", owner)) > limit:
        raise Conflict(
            "too_many_jobs",
            f"cannot make {_jobs(new)} beside the {there - new} in the queue:"
            f" one user may have {limit}; {_OWN}",
        )
    limit = quota.jobs_per_machine
    if limit is not None and (there := _all(cx, "jobs")) > limit:
        raise Conflict(
            "queue_full",
            f"cannot make {_jobs(new)} beside the {there - new} that all users have in the queue:"
            f" it holds {limit}; {_OTHERS}",
        )


def check_bytes(cx: sqlite3.Connection, owner: int, what: str, quota: Quota) -> None:
    """Refuse to do *what* for an owner, or on a machine, with no room for one more byte.

    Raises:
        Conflict: `queue_full`.
    """
    limit = quota.bytes_per_user
    if limit is not None and (there := _owned(cx, "bytes", owner)) >= limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: the files of this user's jobs in the queue have {there} bytes,"
            f" and {limit} are allowed; {_OWN}",
        )
    limit = quota.bytes_per_machine
    if limit is not None and (there := _all(cx, "bytes")) >= limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: the files of all users' jobs in the queue have {there} bytes,"
            f" and {limit} are allowed; {_OTHERS}",
        )


def check_size(
    cx: sqlite3.Connection, owner: int, what: str, size: int, growth: int, quota: Quota
) -> None:
    """Refuse to do *what*, since it brings a file of *size* bytes.

    *growth* is by how much more there will be than is counted yet.

    Raises:
        Conflict: `queue_full`; what to do about it is the failure's to say that is made of it.
    """
    limit = quota.bytes_per_user
    if limit is not None and (there := _owned(cx, "bytes", owner) + growth) > limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: it has {size} bytes, the other files of this user's jobs in the queue"
            f" have {there - size}, and {limit} are allowed together",
        )
    limit = quota.bytes_per_machine
    if limit is not None and (there := _all(cx, "bytes") + growth) > limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: it has {size} bytes, the other files of all users' jobs in the queue"
            f" have {there - size}, and {limit} are allowed together",
        )


def weight_of(files: Sequence[FileSpec]) -> int:
    """Return about how many bytes files take in the queue file; an index repeats destinations."""
    return sum(len(file.remote) + 2 * len(file.local) + _FILE_BYTES for file in files)


@contextmanager
def storing(cx: sqlite3.Connection, owner: int, what: str, quota: Quota) -> Iterator[None]:
    """Let an owner's jobs take more of the queue file in the block, as far as that is allowed.

    Raises:
        Conflict: `queue_full`; they take more than is allowed, and more than before.
    """
    before = _stored(cx, owner)
    yield
    limit, there = quota.stored_bytes_per_user, _stored(cx, owner)
    if limit is not None and there > max(limit, before):
        raise Conflict(
            "queue_full",
            f"cannot {what}: this user's jobs would take {there} bytes of the queue file,"
            f" and {limit} are allowed; {_OWN}",
        )


def _stored(cx: sqlite3.Connection, owner: int) -> int:
    row = cx.execute("SELECT stored FROM shares WHERE owner = ?", [owner]).fetchone()
    return 0 if row is None else int(row["stored"])


def _jobs(count: int) -> str:
    return "a job" if count == 1 else f"{count} jobs"


def _owned(cx: sqlite3.Connection, column: str, owner: int) -> int:
    rows = cx.execute("SELECT jobs, bytes FROM tallies WHERE owner = ?", [owner])
    return sum(row[column] for row in rows)


def _all(cx: sqlite3.Connection, column: str) -> int:
    return int(cx.execute("SELECT jobs, bytes FROM machine").fetchone()[column])
