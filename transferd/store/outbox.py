"""Rows of the outbox; written by the transaction that changes the job."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from transferd.model.job import Job
from transferd.model.notices import Notice, NoticeKind
from transferd.model.states import JobState
from transferd.store.rows import microseconds, text_of

#: What the notices of one user take in the queue file, at most: some fifty thousand usual ones.
NOTICE_BYTES = 64 * 1024 * 1024

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A notice to write."""

    kind: NoticeKind
    #: The number of the job.
    number: int
    #: The job as it is when this happens.
    job: Job
    file: int | None = None


def write_notices(cx: sqlite3.Connection, due: Sequence[Due], now: datetime) -> list[Notice]:
    """Write notices, in order; only a terminal one waits to be acknowledged."""
    if not due:
        return []
    # AUTOINCREMENT keeps the last number that was ever given in this table.
    last = cx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notices'").fetchone()
    first = 1 if last is None else int(last["seq"]) + 1
    notices = [_notice(number, each, now) for number, each in enumerate(due, first)]
    cx.executemany(
        """
        INSERT INTO notices (number, kind, owner, job, snapshot, file, created, settled)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (
                notice.number,
                int(notice.kind),
                notice.owner,
                each.number,
                text_of(notice.job),
                notice.file,
                microseconds(now),
                notice.settled,
            )
            for notice, each in zip(notices, due, strict=True)
        ],
    )
    for owner in {notice.owner for notice in notices}:
        _make_room(cx, owner, first)
    return notices


def write_notice(
    cx: sqlite3.Connection, kind: NoticeKind, number: int, job: Job, now: datetime
) -> Notice:
    """Write one notice."""
    (notice,) = write_notices(cx, [Due(kind=kind, number=number, job=job)], now)
    return notice


def _notice(number: int, due: Due, now: datetime) -> Notice:
    return Notice(
        number=number,
        kind=due.kind,
        owner=due.job.owner,
        job_id=due.job.id,
        job=due.job,
        file=due.file,
        created=now,
        settled=not due.kind.terminal,
    )


def _make_room(cx: sqlite3.Connection, owner: int, first: int) -> None:
    """Forget the oldest notices of an owner who has too many, and which ids ended with them.

    Those from the *first* number on are new.

    Whoever made and cancelled jobs all day would fill the disk otherwise, since notices are kept
    for weeks.
    """
    (told,) = cx.execute("SELECT told FROM shares WHERE owner = ?", [owner]).fetchone()
    while told > NOTICE_BYTES:
        oldest = cx.execute(
            "SELECT number, kind, job FROM notices WHERE owner = ? ORDER BY number LIMIT 1",
            [owner],
        ).fetchone()
        if oldest["number"] >= first:
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
