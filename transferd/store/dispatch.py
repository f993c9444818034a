"""Queued jobs that are given to workers: many at once, each with what its worker needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from transferd.model.errors import InvalidTransition, StoreDamaged
from transferd.model.job import File
from transferd.model.notices import Notice
from transferd.model.queue import Change, Dispatched, Moved, Runnable
from transferd.model.states import JobEvent
from transferd.store.files import open_files, open_rows, read_files
from transferd.store.moves import give_notices, moved, write_moves
from transferd.store.queue import rows_of
from transferd.store.rows import Row, job_of

#: Files of a job up to which all that are open are read at once with those of other jobs.
_FEW = 16


def dispatch(
    cx: sqlite3.Connection, claims: Sequence[Runnable], now: datetime, files: int
) -> tuple[Dispatched | StoreDamaged | None, ...]:
    """Move claimed jobs; see service.ports.JobStore.dispatch."""
    rows = rows_of(cx, [claim.job_id for claim in claims])
    few = [row["number"] for row in rows.values() if row["files_total"] <= min(files, _FEW)]
    small: dict[int, list[Row]] = {number: [] for number in few}
    small |= open_rows(cx, few)

    def first_files(row: Row) -> tuple[File, ...]:
        number = row["number"]
        return read_files(small[number]) if number in small else open_files(cx, number, files)

    outcomes = [_dispatch(claim, rows.get(claim.job_id), now, first_files) for claim in claims]
    moved_jobs = {
        rows[each.moved.job.id]["number"]: each.moved.job
        for each in outcomes
        if isinstance(each, Dispatched)
    }
    write_moves(cx, moved_jobs, JobEvent.DISPATCH)
    notices = give_notices(cx, moved_jobs, now)
    return tuple(
        _told(each, notices[rows[each.moved.job.id]["number"]])
        if isinstance(each, Dispatched)
        else each
        for each in outcomes
    )


def _dispatch(
    claim: Runnable, row: Row | None, now: datetime, first_files: Callable[[Row], tuple[File, ...]]
) -> Dispatched | StoreDamaged | None:
    if row is None or row["owner"] != claim.owner:
        return None
    try:
        job = job_of(row)
        after = moved(job, JobEvent.DISPATCH, now, Change())
        found = first_files(row)
    except InvalidTransition:
        return None
    except StoreDamaged as damaged:
        return damaged
    if not found:
        after = moved(after, JobEvent.FINISH, now, Change())
    return Dispatched(
        moved=Moved(job=after, before=job.state, notices=()),
        files=found,
        secret=bool(job.credentials or job.settings.header_names),
    )


def _told(dispatched: Dispatched, notices: tuple[Notice, ...]) -> Dispatched:
    if not notices:
        return dispatched
    return replace(dispatched, moved=replace(dispatched.moved, notices=notices))
