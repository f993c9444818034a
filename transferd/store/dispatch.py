"""Queued jobs that are given to workers: many at once, each with what its worker needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from transferd.model.errors import InvalidTransition, StoreDamaged
from transferd.model.queue import Change, Dispatched, Moved, Runnable
from transferd.model.states import JobEvent
from transferd.store.files import open_files
from transferd.store.moves import give_notice, moved, write_move
from transferd.store.queue import rows_of
from transferd.store.rows import Row, job_of


def dispatch(
    cx: sqlite3.Connection, claims: Sequence[Runnable], now: datetime, files: int
) -> tuple[Dispatched | StoreDamaged | None, ...]:
    """Move claimed jobs; see service.ports.JobStore.dispatch."""
    rows = rows_of(cx, [claim.job_id for claim in claims])
    return tuple(_dispatch(cx, claim, rows.get(claim.job_id), now, files) for claim in claims)


def _dispatch(
    cx: sqlite3.Connection, claim: Runnable, row: Row | None, now: datetime, files: int
) -> Dispatched | StoreDamaged | None:
    if row is None or row["owner"] != claim.owner:
        return None
    try:
        job = job_of(row)
        after = moved(job, JobEvent.DISPATCH, now, Change())
        found = open_files(cx, row["number"], files)
    except InvalidTransition:
        return None
    except StoreDamaged as damaged:
        return damaged
    if not found:
        after = moved(after, JobEvent.FINISH, now, Change())
    write_move(cx, row["number"], after, JobEvent.DISPATCH)
    return Dispatched(
        moved=Moved(
            job=after, before=job.state, notices=give_notice(cx, row["number"], after, now)
        ),
        files=found,
        secret=bool(job.credentials or job.settings.header_names),
    )
