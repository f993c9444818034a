"""Events of jobs: the state, what goes with it and the notice, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from transferd.model.errors import Conflict
from transferd.model.job import Job, JobId, Seconds
from transferd.model.notices import Notice
from transferd.model.paths import temporary_path
from transferd.model.queue import Change, Moved
from transferd.model.states import RUNNING, JobEvent, JobState, advance
from transferd.store.outbox import Due, kind_due, settle_job, write_notices
from transferd.store.queue import find, load, next_positions
from transferd.store.rows import SELECT_JOB, Row, job_of, listed, microseconds, text_of

#: The owner takes the job up again: what held it up before is forgotten.
_TAKEN_UP = frozenset({JobEvent.RESUME, JobEvent.REOPEN})
_ENDING = frozenset({JobEvent.COMPLETE, JobEvent.CANCEL})
#: So many of a job's next files may have a temporary file that the queue was not told of yet: those
#: that are open, and small ones that are done and wait with others for the disk.
_AHEAD = 1024


def moved(job: Job, event: JobEvent, now: datetime, change: Change) -> Job:
    """Return the job after an event that changes its state.

    Raises:
        InvalidTransition: the table has no such move.
    """
    state = advance(job.state, event)
    again, finished = event in _TAKEN_UP, event is JobEvent.FINISH
    # Only a waiting job has something to wait for; without a retry it waits for an event.
    retry = change.retry if state is JobState.TRANSIENT_ERROR else None
    return replace(
        job,
        state=state,
        modified=now,
        transferred_at=now if finished else None if again else job.transferred_at,
        error=None if finished else change.failure or job.error,
        error_count=job.error_count + (change.failure is not None and change.counts),
        attempts=0 if again else job.attempts + (retry is not None and change.tried),
        retry_at=None if retry is None else retry.at,
        retry_delay=0.0 if again else job.retry_delay if retry is None else retry.delay,
        retry_here=retry is not None and retry.here,
        active_seconds=0.0 if again else job.active_seconds + change.active,
        stuck_seconds=0.0 if again else job.stuck_seconds + change.stuck,
    )


def apply(
    cx: sqlite3.Connection, job_id: JobId, event: JobEvent, now: datetime, change: Change | None
) -> Moved:
    """Move a job; an event that leaves its state as it is changes nothing.

    Raises:
        InvalidTransition, Conflict(`job_empty`), NotFound(`job_not_found`).
    """
    number = find(cx, job_id)
    before = load(cx, number)
    after = moved(before, event, now, change or Change())
    if event is JobEvent.RESUME and not before.files_total:
        raise Conflict("job_empty", "cannot resume a job without files; add one first")
    if after.state is before.state:
        return Moved(job=before, before=before.state, notices=())
    if event in _TAKEN_UP or (event in _ENDING and change is None):
        settle_job(cx, number)
    if after.state.final:
        remove(cx, {number: after}, now)
    else:
        write_move(cx, number, after, event)
    notices = give_notices(cx, {number: after}, now)[number]
    return Moved(job=after, before=before.state, notices=notices)


def give_notices(
    cx: sqlite3.Connection, jobs: Mapping[int, Job], now: datetime
) -> dict[int, tuple[Notice, ...]]:
    """Write what is to be told of jobs, by their numbers, that have just come into their states."""
    due = [
        Due(kind=kind, number=number, job=job)
        for number, job in jobs.items()
        if (kind := kind_due(job)) is not None
    ]
    written = write_notices(cx, due, now)
    found: dict[int, tuple[Notice, ...]] = dict.fromkeys(jobs, ())
    found |= {each.number: (notice,) for each, notice in zip(due, written, strict=True)}
    return found


def write_move(cx: sqlite3.Connection, number: int, job: Job, event: JobEvent) -> None:
    """Write a job that has moved."""
    write_moves(cx, {number: job}, event)


def write_moves(cx: sqlite3.Connection, jobs: Mapping[int, Job], event: JobEvent) -> None:
    """Write jobs by their numbers that have moved; those that were queued are last in the queue."""
    queued = sum(job.state is JobState.QUEUED for job in jobs.values())
    places = iter(next_positions(cx, queued) if queued else ())
    cx.executemany(
        """
        UPDATE jobs SET state = ?, error = ?, error_count = ?, modified = ?, transferred_at = ?,
                        attempts = ?, retry_at = ?, retry_delay = ?, retry_here = ?,
                        active_seconds = ?, stuck_seconds = ?, position = coalesce(?, position),
                        dispatched = max(dispatched, ?)
        WHERE number = ?
        """,
        [
            (
                job.state,
                None if job.error is None else text_of(job.error),
                job.error_count,
                microseconds(job.modified),
                None if job.transferred_at is None else microseconds(job.transferred_at),
                job.attempts,
                job.retry_at,
                job.retry_delay,
                job.retry_here,
                job.active_seconds,
                job.stuck_seconds,
                next(places) if job.state is JobState.QUEUED else None,
                event is JobEvent.DISPATCH,
                number,
            )
            for number, job in jobs.items()
        ],
    )


def remove(cx: sqlite3.Connection, jobs: Mapping[int, Job], now: datetime) -> None:
    """Take jobs by their numbers out of the queue, with their files and secrets.

    What others may need of them is remembered.
    """
    numbers = listed(jobs)
    unnamed = cx.execute(
        """
        SELECT value FROM json_each(?)
        WHERE EXISTS (SELECT 1 FROM files WHERE job = value AND published = 0)
        """,
        [numbers],
    )
    cx.executemany(
        "INSERT INTO strays (owner, temporary) VALUES (?, ?)",
        [
            (jobs[number].owner, temporary_path(local, jobs[number].id))
            for (number,) in unnamed.fetchall()
            for local in _temporaries(cx, number)
        ],
    )
    cx.executemany(
        "INSERT INTO ended (number, id, owner, ended_at) VALUES (?, ?, ?, ?)",
        [(number, job.id, job.owner, microseconds(now)) for number, job in jobs.items()],
    )
    cx.execute("DELETE FROM jobs WHERE number IN (SELECT value FROM json_each(?))", [numbers])


def _temporaries(cx: sqlite3.Connection, number: int) -> list[str]:
    """Return the destinations beside which a temporary file may lie.

    A worker makes the file first and tells of it then, so that the next files in order are among
    them; none are when no worker ever had the job.
    """
    rows = cx.execute(
        """
        SELECT local FROM files
        WHERE job = ?1 AND published = 0 AND (inode IS NOT NULL OR offset > 0 OR completed = 1)
        UNION ALL
        SELECT local FROM (
            SELECT local FROM files
            WHERE job = ?1 AND completed = 0 AND inode IS NULL AND offset = 0
              AND (SELECT dispatched FROM jobs WHERE number = ?1)
            ORDER BY file LIMIT ?2
        )
        """,
        [number, _AHEAD],
    )
    return [row["local"] for row in rows]


def recover(cx: sqlite3.Connection, steady: Seconds) -> int:
    """Bring running jobs back into the queue, at their old places, and cut waits to their delay.

    Returns how many jobs were brought back.
    """
    requeued = 0
    for state in sorted(RUNNING):
        requeued += cx.execute(
            "UPDATE jobs SET state = ? WHERE state = ?", [advance(state, JobEvent.REQUEUE), state]
        ).rowcount
    cx.execute(
        """
        UPDATE jobs INDEXED BY jobs_waiting_since SET retry_at = ?1 + retry_delay
        WHERE state = 5 AND retry_at IS NOT NULL AND retry_at - retry_delay > ?1
        """,
        [steady],
    )
    return requeued


def retry(cx: sqlite3.Connection, steady: Seconds, now: datetime, limit: int) -> tuple[Moved, ...]:
    """Queue waiting jobs whose retry_at has come, the longest overdue first."""
    rows = cx.execute(
        SELECT_JOB + "INDEXED BY jobs_waiting"
        " WHERE state = 5 AND retry_at <= ? ORDER BY retry_at LIMIT ?",
        [steady, limit],
    )
    return tuple([_retry(cx, row, now) for row in rows.fetchall()])


def hasten(
    cx: sqlite3.Connection, front: Seconds, back: Seconds, after: int, limit: int
) -> int | None:
    """Bring waits forward; see service.ports.JobStore.hasten."""
    query = "SELECT number FROM jobs WHERE state = 5 AND number > ? ORDER BY number LIMIT ?"
    numbers = [row["number"] for row in cx.execute(query, [after, limit])]
    # A server that has answered said itself when it wants to see somebody again, if it was that one
    # that answered. What is not waited for was counted as stuck beforehand.
    cx.executemany(
        """
        UPDATE jobs SET
            retry_at = min(retry_at, CASE priority WHEN 0 THEN ?1 ELSE ?2 END),
            stuck_seconds = max(0.0, stuck_seconds - max(0.0, coalesce(
                retry_at - CASE priority WHEN 0 THEN ?1 ELSE ?2 END, 0.0)))
        WHERE number = ?3 AND (retry_here OR json_extract(error, '$.http_status') IS NULL)
        """,
        [(front, back, number) for number in numbers],
    )
    return numbers[-1] if len(numbers) == limit else None


def _retry(cx: sqlite3.Connection, row: Row, now: datetime) -> Moved:
    before = job_of(row)
    after = moved(before, JobEvent.RETRY, now, Change())
    write_move(cx, row["number"], after, JobEvent.RETRY)
    return Moved(job=after, before=before.state, notices=())


def forget_strays(cx: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Forget temporaries that are removed."""
    cx.executemany("DELETE FROM strays WHERE number = ?", [(number,) for number in numbers])
