"""Jobs that leave the queue completed, many in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from transferd.model.errors import CallerError, job_not_found
from transferd.model.job import JobId
from transferd.model.queue import Change, Ending, Moved, Whole
from transferd.model.states import JobEvent
from transferd.store.files import publish_files, publishable_rows, read_files
from transferd.store.moves import give_notices, moved, remove
from transferd.store.outbox import settle_job
from transferd.store.queue import rows_of
from transferd.store.rows import Row, job_of


def whole(cx: sqlite3.Connection, job_ids: Sequence[JobId]) -> tuple[Whole, ...]:
    """Return jobs with their files that are whole but have not got their names."""
    rows = rows_of(cx, job_ids)
    files = publishable_rows(cx, [row["number"] for row in rows.values()])
    return tuple(
        Whole(job=job_of(row), files=read_files(files.get(row["number"], ())))
        for job_id in job_ids
        if (row := rows.get(job_id)) is not None
    )


def complete(
    cx: sqlite3.Connection, ended: Sequence[Ending], now: datetime
) -> tuple[Moved | CallerError, ...]:
    """Mark files as published and complete their jobs; one that cannot be stays."""
    rows = rows_of(cx, [each.job_id for each in ended])
    # Whatever becomes of a job, its files have their names.
    publish_files(
        cx,
        [
            (rows[each.job_id]["number"], file)
            for each in ended
            if each.job_id in rows
            for file in each.published
        ],
    )
    numbers = {job_id: int(row["number"]) for job_id, row in rows.items()}
    # Nobody leaves twice.
    outcomes = [_judge(each, rows.pop(each.job_id, None), now) for each in ended]
    leaving = {numbers[each.job.id]: each.job for each in outcomes if isinstance(each, Moved)}
    remove(cx, leaving, now)
    for each in ended:
        if each.change is None and numbers.get(each.job_id) in leaving:
            settle_job(cx, numbers[each.job_id])
    notices = give_notices(cx, leaving, now)
    return tuple(
        replace(outcome, notices=notices[numbers[outcome.job.id]])
        if isinstance(outcome, Moved)
        else outcome
        for outcome in outcomes
    )


def _judge(each: Ending, row: Row | None, now: datetime) -> Moved | CallerError:
    if row is None:
        return job_not_found(each.job_id)
    job = job_of(row)
    try:
        after = moved(job, JobEvent.COMPLETE, now, each.change or Change())
    except CallerError as error:
        return error.with_traceback(None)  # it would keep the connection
    return Moved(job=after, before=job.state, notices=())
