"""Jobs that leave the queue completed, many in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from transferd.model.errors import CallerError
from transferd.model.job import JobId
from transferd.model.queue import Ending, Moved, Whole
from transferd.model.states import JobEvent
from transferd.store.files import publish_files, publishable_files
from transferd.store.moves import apply
from transferd.store.queue import find, load


def whole(cx: sqlite3.Connection, job_ids: Sequence[JobId]) -> tuple[Whole, ...]:
    """Return jobs with their files that are whole but have not got their names."""
    query = "SELECT number FROM jobs WHERE id = ?"
    rows = (cx.execute(query, [job_id]).fetchone() for job_id in job_ids)
    return tuple(
        Whole(job=load(cx, row["number"]), files=publishable_files(cx, row["number"]))
        for row in rows
        if row is not None
    )


def complete(
    cx: sqlite3.Connection, ended: Sequence[Ending], now: datetime
) -> tuple[Moved | CallerError, ...]:
    """Mark files as published and complete their jobs; one that cannot be stays."""
    return tuple(_complete(cx, each, now) for each in ended)


def _complete(cx: sqlite3.Connection, each: Ending, now: datetime) -> Moved | CallerError:
    try:
        # Whatever becomes of the job, its files have their names.
        publish_files(cx, find(cx, each.job_id), each.published)
        return apply(cx, each.job_id, JobEvent.COMPLETE, now, each.change)
    except CallerError as error:
        return error.with_traceback(None)  # it would keep the connection
