"""How full the queue is, held against how full a caller may make it."""

from __future__ import annotations

import sqlite3

from transferd.model.errors import Conflict
from transferd.model.limits import Quota

_OTHERS = "wait until others are done, or ask the administrator for more"
_OWN = "complete or cancel some jobs first"


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


def check_size(cx: sqlite3.Connection, owner: int, what: str, size: int, quota: Quota) -> None:
    """Refuse to do *what*, since it brings a file of *size* bytes, which is counted already.

    Raises:
        Conflict: `queue_full`; what to do about it is the failure's to say that is made of it.
    """
    limit = quota.bytes_per_user
    if limit is not None and (there := _owned(cx, "bytes", owner)) > limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: it has {size} bytes, the other files of this user's jobs in the queue"
            f" have {there - size}, and {limit} are allowed together",
        )
    limit = quota.bytes_per_machine
    if limit is not None and (there := _all(cx, "bytes")) > limit:
        raise Conflict(
            "queue_full",
            f"cannot {what}: it has {size} bytes, the other files of all users' jobs in the queue"
            f" have {there - size}, and {limit} are allowed together",
        )


def _jobs(count: int) -> str:
    return "a job" if count == 1 else f"{count} jobs"


def _owned(cx: sqlite3.Connection, column: str, owner: int) -> int:
    rows = cx.execute("SELECT jobs, bytes FROM tallies WHERE owner = ?", [owner])
    return sum(row[column] for row in rows)


def _all(cx: sqlite3.Connection, column: str) -> int:
    return int(cx.execute("SELECT jobs, bytes FROM machine").fetchone()[column])
