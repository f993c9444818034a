"""A job becomes somebody else's: the row, its secrets and its notices, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from transferd.model.errors import Conflict
from transferd.model.job import Job
from transferd.model.notices import Notice, NoticeKind
from transferd.model.ownership import stripped
from transferd.model.queue import Moved
from transferd.store.outbox import write_notice
from transferd.store.queue import load
from transferd.store.rows import SELECT_NOTICE, microseconds, notice_of, text_of


def take(cx: sqlite3.Connection, number: int, owner: int, now: datetime) -> Moved:
    """Give a job to *owner*; see service.ports.JobStore.take.

    Raises:
        Conflict: `job_running`; a worker of the former owner has its secrets.
    """
    before = load(cx, number)
    if before.owner == owner:
        return Moved(job=before, before=before.state, notices=())
    if before.state.running:
        raise Conflict("job_running", f"cannot give job {before.id} away while it runs")
    ended = write_notice(cx, NoticeKind.ENDED, number, before, now)
    for table in ("credentials", "headers"):
        cx.execute(f"DELETE FROM {table} WHERE job = ?", [number])  # noqa: S608 - our own names
    cx.execute(
        "UPDATE jobs SET owner = ?, settings = ?, modified = ? WHERE number = ?",
        [owner, text_of(stripped(before.settings)), microseconds(now), number],
    )
    job = load(cx, number)
    return Moved(job=job, before=job.state, notices=(ended, *_inherited(cx, number, job)))


def _inherited(cx: sqlite3.Connection, number: int, job: Job) -> Iterator[Notice]:
    """Give the open notices of a job to its new owner, as if they had been about his job."""
    rows = cx.execute(SELECT_NOTICE + "WHERE job = ? AND settled = 0 ORDER BY number", [number])
    for row in rows.fetchall():
        notice = notice_of(row)
        # Commands and who to be are in there too, as they were at that time.
        told = replace(
            notice.job,
            owner=job.owner,
            settings=stripped(notice.job.settings),
            credentials=(),
        )
        cx.execute(
            "UPDATE notices SET owner = ?, snapshot = ?, deliveries = 0 WHERE number = ?",
            [job.owner, text_of(told), notice.number],
        )
        yield replace(notice, owner=job.owner, job=told, deliveries=0)
