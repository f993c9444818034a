"""Questions about many jobs; each is answered from an index, however long the queue is.

States are written out where a partial index depends on them, and the index is named: the planner
would rather take all jobs of a state and sort them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from heapq import merge
from itertools import islice, zip_longest

from transferd.model.job import Cost, JobId, Priority, Seconds
from transferd.model.queue import Admitted, Agenda, JobPage, Runnable, Stray, Wanted
from transferd.model.states import FINAL, JobState
from transferd.store.rows import SELECT_JOB, Row, job_of, microseconds, take_page

_IN_QUEUE = frozenset(JobState) - FINAL
#: Behind every position: all jobs of a queue are skipped by one step, since SQLite starts at the
#: first entry that is not less, and passes over equal ones one by one.
_LAST = 2**63 - 1


def page_of_jobs(
    cx: sqlite3.Connection,
    *,
    owner: int | None,
    states: frozenset[JobState] | None,
    after: int,
    limit: int,
) -> JobPage:
    """Return a page of jobs, oldest first."""
    numbers = _numbers(cx, owner, states, after, limit + 1)
    query = SELECT_JOB + "WHERE number = ?"
    rows, more = take_page((cx.execute(query, [number]).fetchone() for number in numbers), limit)
    return JobPage(
        jobs=tuple(map(job_of, rows)),
        next=numbers[len(rows) - 1] if more else None,
    )


def _numbers(
    cx: sqlite3.Connection,
    owner: int | None,
    states: frozenset[JobState] | None,
    after: int,
    limit: int,
) -> list[int]:
    if owner is None and states is None:
        rows = cx.execute(
            "SELECT number FROM jobs WHERE number > ? ORDER BY number LIMIT ?", [after, limit]
        )
        return [row["number"] for row in rows]
    # One query for each state and a merge: an index gives the order within one state only.
    wanted = _IN_QUEUE if states is None else _IN_QUEUE & states
    each = [_numbers_in(cx, owner, state, after, limit) for state in wanted]
    return list(islice(merge(*each), limit))


def _numbers_in(
    cx: sqlite3.Connection, owner: int | None, state: JobState, after: int, limit: int
) -> list[int]:
    if owner is None:
        rows = cx.execute(
            "SELECT number FROM jobs WHERE state = ? AND number > ? ORDER BY number LIMIT ?",
            [state, after, limit],
        )
    else:
        rows = cx.execute(
            """
            SELECT number FROM jobs WHERE owner = ? AND state = ? AND number > ?
            ORDER BY number LIMIT ?
            """,
            [owner, state, after, limit],
        )
    return [row["number"] for row in rows]


def counts(cx: sqlite3.Connection) -> Mapping[JobState, int]:
    """Return how many jobs are in each state that a job in the queue can have."""
    found = dict.fromkeys(sorted(_IN_QUEUE), 0)
    for row in cx.execute("SELECT state, jobs FROM tallies"):
        found[JobState(row["state"])] += row["jobs"]
    return found


def tallies(cx: sqlite3.Connection) -> Mapping[int, Mapping[JobState, int]]:
    """Return how many jobs each owner has in each state; owners without a job are left out."""
    found: dict[int, dict[JobState, int]] = {}
    for row in cx.execute("SELECT owner, state, jobs FROM tallies WHERE jobs > 0"):
        found.setdefault(row["owner"], {})[JobState(row["state"])] = row["jobs"]
    return found


def agenda(cx: sqlite3.Connection, front: Wanted, back: Wanted, admitted: Admitted) -> Agenda:
    """Return what there is to schedule; see service.ports.JobStore.agenda."""
    waiting: dict[Priority, Sequence[Runnable]] = {}
    for priority in Priority:
        foreground = priority is Priority.FOREGROUND
        costs = admitted.get(priority, frozenset())
        found = runnable(cx, priority, front if foreground else back, costs)
        if found:
            waiting[priority] = found
        if found and not foreground:
            break
    return Agenda(waiting=waiting, next_due=next_due(cx))


def runnable(
    cx: sqlite3.Connection, priority: Priority, wanted: Wanted, costs: frozenset[Cost]
) -> tuple[Runnable, ...]:
    """Return queued jobs of one priority: each owner's first, then each one's second…

    It takes one look into the index for each owner and cost, and one for each job: how many jobs an
    owner has makes no difference, nor how many there are that may not run.
    """
    queues = _queues(cx, priority, costs) if costs else {}
    line = sorted((min(rows, key=_position) for rows in queues.values()), key=_position)
    found, rounds = list(line), 1
    while line and rounds < wanted.each and (left := wanted.limit - len(found)) > 0:
        # As many rounds as fill what is left, if everybody takes part in all of them.
        ahead = min(max(1, left // len(line)), wanted.each - rounds)
        behind = [_behind(cx, priority, queues[row["owner"]], row, ahead) for row in line]
        for turn in zip_longest(*behind):
            line = sorted(filter(None, turn), key=_position)
            found += line[: wanted.limit - len(found)]
        line = [rows[-1] for rows in behind if len(rows) == ahead]
        rounds += ahead
    return tuple(
        Runnable(
            job_id=JobId(row["id"]),
            owner=row["owner"],
            priority=priority,
            cost=Cost(row["cost"]),
        )
        for row in found
    )


def _position(row: Row) -> int:
    return int(row["position"])


def _queues(
    cx: sqlite3.Connection, priority: Priority, costs: frozenset[Cost]
) -> dict[int, list[Row]]:
    """Return the first queued job of each owner for each of these costs."""
    queues: dict[int, list[Row]] = {}
    owner, cost = -1, max(Cost)
    while row := cx.execute(
        """
        SELECT id, owner, cost, position FROM jobs INDEXED BY jobs_queued
        WHERE state = 0 AND priority = ? AND (owner, cost, position) > (?, ?, ?)
        ORDER BY owner, cost, position LIMIT 1
        """,
        [priority, owner, cost, _LAST],
    ).fetchone():
        owner, cost = row["owner"], row["cost"]
        if cost in costs:
            queues.setdefault(owner, []).append(row)
    return queues


def _behind(
    cx: sqlite3.Connection, priority: Priority, firsts: Iterable[Row], row: Row, count: int
) -> list[Row]:
    """Return up to *count* jobs of the same owner, with the costs of *firsts*, queued next."""
    each = (
        cx.execute(
            """
            SELECT id, owner, cost, position FROM jobs INDEXED BY jobs_queued
            WHERE state = 0 AND priority = ? AND owner = ? AND cost = ? AND position > ?
            ORDER BY position LIMIT ?
            """,
            [priority, row["owner"], first["cost"], row["position"], count],
        )
        for first in firsts
    )
    return list(islice(merge(*each, key=_position), count))


def next_due(cx: sqlite3.Connection) -> Seconds | None:
    """Return the earliest retry_at of a waiting job."""
    row = cx.execute(
        """
        SELECT retry_at FROM jobs INDEXED BY jobs_waiting
        WHERE state = 5 AND retry_at IS NOT NULL ORDER BY retry_at LIMIT 1
        """
    ).fetchone()
    return None if row is None else float(row["retry_at"])


def untouched_since(cx: sqlite3.Connection, moment: datetime, limit: int) -> tuple[JobId, ...]:
    """Return jobs that were modified before a moment, the oldest first."""
    rows = cx.execute(
        "SELECT id FROM jobs WHERE modified < ? ORDER BY modified LIMIT ?",
        [microseconds(moment), limit],
    )
    return tuple(JobId(row["id"]) for row in rows)


def strays(cx: sqlite3.Connection, *, after: int, limit: int) -> tuple[Stray, ...]:
    """Return temporaries to remove."""
    rows = cx.execute(
        "SELECT number, owner, temporary FROM strays WHERE number > ? ORDER BY number LIMIT ?",
        [after, limit],
    )
    return tuple(
        Stray(number=row["number"], owner=row["owner"], temporary=row["temporary"]) for row in rows
    )
