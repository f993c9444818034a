"""Rows of the outbox; written by the transaction that changes the job."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from transferd.model.job import Job
from transferd.model.notices import Notice, NoticeKind
from transferd.model.states import JobState
from transferd.store.rows import microseconds, text_of

#: What the notices of one user take in the queue file, at most: some fifty thousand usual ones.
NOTICE_BYTES = 64 * 1024 * 1024

#: What a notice takes beside the job, as the triggers of the queue file count it.
_ROW_BYTES = 256

#: What a job's listeners are told when it comes into a state.
_KINDS = {
    JobState.TRANSFERRED: NoticeKind.TRANSFERRED,
    JobState.ERROR: NoticeKind.ERROR,
    JobState.ACKNOWLEDGED: NoticeKind.ENDED,
    JobState.CANCELLED: NoticeKind.ENDED,
}


def kind_due(job: Job) -> NoticeKind | None:
    """Return what a job that has just come into its state gives notice of.

    ENDED always; TRANSFERRED and ERROR when the job asks for them.
    """
    kind = _KINDS.get(job.state)
    if kind is None or kind is NoticeKind.ENDED or kind & job.settings.notify_kinds:
        return kind
    return None


def write_notice(
    cx: sqlite3.Connection,
    kind: NoticeKind,
    number: int,
    job: Job,
    now: datetime,
    *,
    file: int | None = None,
) -> Notice:
    """Write a notice of the job of a *number*; only a terminal one waits to be acknowledged."""
    settled, text = not kind.terminal, text_of(job)
    given, before = cx.execute(
        """
        INSERT INTO notices (kind, owner, job, snapshot, file, created, settled)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        RETURNING number, (SELECT told FROM shares WHERE shares.owner = ?2)
        """,
        [int(kind), job.owner, number, text, file, microseconds(now), settled],
    ).fetchone()
    if (before or 0) + len(text) + _ROW_BYTES > NOTICE_BYTES:
        _make_room(cx, job.owner, given)
    return Notice(
        number=given,
        kind=kind,
        owner=job.owner,
        job_id=job.id,
        job=job,
        file=file,
        created=now,
        settled=settled,
    )


def _make_room(cx: sqlite3.Connection, owner: int, newest: int) -> None:
    """Forget the oldest notices of an owner who has too many, and which ids ended with them.

    Whoever made and cancelled jobs all day would fill the disk otherwise, since notices are kept
    for weeks.
    """
    (told,) = cx.execute("SELECT told FROM shares WHERE owner = ?", [owner]).fetchone()
    while told > NOTICE_BYTES:
        oldest = cx.execute(
            "SELECT number, kind, job FROM notices WHERE owner = ? ORDER BY number LIMIT 1",
            [owner],
        ).fetchone()
        if oldest["number"] == newest:
            return
        if oldest["kind"] == NoticeKind.ENDED:
            # Of a job that he has handed over the others who had it may still want to hear.
            query = "DELETE FROM ended WHERE number = ? AND owner = ?"
            cx.execute(query, [oldest["job"], owner])
        cx.execute("DELETE FROM notices WHERE number = ?", [oldest["number"]])
        (told,) = cx.execute(
            "UPDATE shares SET forgotten = ? WHERE owner = ? RETURNING told",
            [oldest["number"], owner],
        ).fetchone()


def settle_job(cx: sqlite3.Connection, number: int) -> None:
    """Settle a job's open notices: something newer has made them moot."""
    cx.execute("UPDATE notices SET settled = 1 WHERE job = ? AND settled = 0", [number])
