"""What reads the queue file as a whole; run it on a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from transferd.model.states import JobState

#: Faults that are told of one by one.
_FAULTS = 20

_MISWEIGHED = """
WITH found AS (
    SELECT owner, weight + length(settings) AS stored, 0 AS told FROM jobs
    UNION ALL SELECT owner, length(temporary) + 64, 0 FROM strays
    UNION ALL SELECT owner, 0, length(snapshot) + 256 FROM notices
    UNION ALL SELECT owner, -stored, -told FROM shares
)
SELECT owner FROM found GROUP BY owner HAVING sum(stored) <> 0 OR sum(told) <> 0
"""

_MISNAMED = """
SELECT 1 FROM jobs
WHERE NOT EXISTS (SELECT 1 FROM job_ids WHERE job_ids.id = jobs.id AND job = number)
UNION ALL
SELECT 1 FROM job_ids WHERE job NOT IN (SELECT number FROM jobs UNION ALL SELECT number FROM ended)
"""


def verify(cx: sqlite3.Connection) -> tuple[str, ...]:
    """Return what is wrong with the file: its pages, its references, its sums."""
    (*faults,) = (row[0] for row in cx.execute(f"PRAGMA integrity_check({_FAULTS})"))
    if faults != ["ok"]:
        return tuple(map(str, faults))
    orphans = cx.execute("PRAGMA foreign_key_check").fetchmany(_FAULTS)
    found = [f"a row of {row['table']} belongs to no row of {row['parent']}" for row in orphans]
    if _counted(cx) != _tallied(cx):
        found.append("the numbers of jobs by owner and state are not those of the jobs")
    if cx.execute(_MISNAMED).fetchone():
        found.append("the ids of jobs do not lead to the jobs")
    if cx.execute(_MISWEIGHED).fetchone():
        found.append("the bytes of owners are not those of their jobs and notices")
    return tuple(found)


def _counted(cx: sqlite3.Connection) -> set[tuple[int, int, int]]:
    rows = cx.execute("SELECT owner, state, count(*) FROM jobs GROUP BY owner, state")
    return set(map(tuple, rows))


def _tallied(cx: sqlite3.Connection) -> set[tuple[int, int, int]]:
    rows = cx.execute("SELECT owner, state, jobs FROM tallies WHERE jobs > 0")
    return set(map(tuple, rows))


def error_codes(cx: sqlite3.Connection) -> Mapping[str, int]:
    """Return how many jobs are in error, by code."""
    rows = cx.execute(
        """
        SELECT coalesce(json_extract(error, '$.code'), 'unknown') AS code, count(*) AS jobs
        FROM jobs WHERE state = ? GROUP BY code
        """,
        [JobState.ERROR],
    )
    return {str(row["code"]): int(row["jobs"]) for row in rows}


def directories(cx: sqlite3.Connection) -> Mapping[int, tuple[str, ...]]:
    """Return the directories of each owner's files, and of what could not be removed yet."""
    # rtrim() takes away every character but the slash, up to the last slash.
    rows = cx.execute(
        """
        SELECT owner, rtrim(local, replace(local, '/', '')) AS directory
        FROM files JOIN jobs ON files.job = jobs.number
        UNION
        SELECT owner, rtrim(temporary, replace(temporary, '/', '')) FROM strays
        """
    )
    found: dict[int, list[str]] = {}
    for row in rows:
        found.setdefault(int(row["owner"]), []).append(row["directory"])
    return {owner: tuple(sorted(paths)) for owner, paths in found.items()}
