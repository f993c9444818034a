"""What runs report, put into the rows of their jobs: many runs at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from transferd.model.errors import NotFound, StoreDamaged, job_not_found
from transferd.model.job import JobId
from transferd.model.limits import Quota
from transferd.model.notices import Notice
from transferd.model.reports import Connected, Kept, Report, Sized
from transferd.model.states import JobEvent
from transferd.store.files import open_files
from transferd.store.ledger import Ledger, read_rows, write_ledgers
from transferd.store.outbox import write_notices
from transferd.store.queue import rows_of
from transferd.store.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What one run reports; see service.ports.JobStore.keep."""

    job_id: JobId
    reports: Sequence[Report]
    now: datetime
    quota: Quota
    extend: int | None


#: What becomes of it.
Outcome: TypeAlias = Kept | NotFound | StoreDamaged


def keep(cx: sqlite3.Connection, heard: Sequence[Hearing]) -> list[Outcome]:
    """Put reports into the rows of their jobs; one that cannot be read is left as it is."""
    return [outcome for batch in _batches(heard) for outcome in _keep(cx, batch)]


def _batches(heard: Sequence[Hearing]) -> Iterator[list[Hearing]]:
    """Divide what is kept together, so that each sees in the rows what it depends on."""
    batch: list[Hearing] = []
    there: set[JobId] = set()
    for each in heard:
        # Sizes are held against the sums of all jobs.
        sized = each.quota.bounds_bytes and any(isinstance(r, Sized) for r in each.reports)
        if batch and (sized or each.job_id in there):
            yield batch
            batch, there = [], set()
        batch.append(each)
        there.add(each.job_id)
    if batch:
        yield batch


def _keep(cx: sqlite3.Connection, batch: Sequence[Hearing]) -> list[Outcome]:
    rows = rows_of(cx, [each.job_id for each in batch])
    files = read_rows(
        cx,
        [
            (rows[each.job_id]["number"], file)
            for each in batch
            if each.job_id in rows
            for file in {r.file for r in each.reports if not isinstance(r, Connected)}
        ],
    )
    ledgers = [_hear(cx, each, rows.get(each.job_id), files) for each in batch]
    changed = [ledger for ledger in ledgers if isinstance(ledger, Ledger)]
    write_ledgers(cx, changed)
    now = batch[0].now
    written = iter(write_notices(cx, [due for ledger in changed for due in ledger.due], now))
    return [
        _kept(cx, each, ledger, [next(written) for _ in ledger.due])
        if isinstance(ledger, Ledger)
        else ledger
        for each, ledger in zip(batch, ledgers, strict=True)
    ]


def _hear(
    cx: sqlite3.Connection, heard: Hearing, row: Row | None, files: dict[int, dict[int, Row]]
) -> Ledger | NotFound | StoreDamaged:
    if row is None:
        return job_not_found(heard.job_id)
    try:
        ledger = Ledger(cx, row, files.get(row["number"], {}), heard.now, heard.quota)
        for report in heard.reports:
            ledger.put(report)
    except (NotFound, StoreDamaged) as error:
        return error.with_traceback(None)  # it would keep the connection
    if _done(heard, ledger):
        ledger.move(JobEvent.FINISH)
    return ledger


def _done(heard: Hearing, ledger: Ledger) -> bool:
    return heard.extend is not None and ledger.refusal is None and ledger.whole


def _kept(
    cx: sqlite3.Connection, heard: Hearing, ledger: Ledger, notices: Sequence[Notice]
) -> Kept:
    asked = heard.extend is not None and not _done(heard, ledger)
    return Kept(
        moved=ledger.moved(notices),
        files=open_files(cx, ledger.number, heard.extend or 0) if asked else (),
        refusal=ledger.refusal,
        overtaken=ledger.overtaken,
    )
