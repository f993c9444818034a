"""The outbox as the service sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from transferd.model.errors import notice_not_found
from transferd.model.job import JobId
from transferd.model.notices import TERMINAL, Look, Notice, NoticeKind, Settlement
from transferd.store.database import Database
from transferd.store.rows import (
    SELECT_NOTICE,
    listed,
    microseconds,
    moment_of,
    notice_of,
    take_page,
)

#: Texts of one page: a listener who reads nothing keeps it in memory, and there may be thousands.
_PAGE_CHARS = 32 * 1024
#: Rows that one transaction forgets, so that a long outbox does not hold up the queue.
_PRUNED_AT_ONCE = 2000


class SqliteNoticeStore:
    """The outbox, in an SQLite file (service.ports.NoticeStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replay(
        self,
        *,
        after: int,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        limit: int,
    ) -> tuple[Notice, ...]:
        """Return notices with a number greater than *after*, in order."""
        return await self._database.read(
            partial(_select, after=after, owner=owner, job_id=job_id, kinds=kinds, limit=limit)
        )

    async def look(
        self,
        *,
        after: int,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        limit: int,
    ) -> Look:
        """Return what `bounds` and `replay` do, of one moment."""
        select = partial(_select, after=after, owner=owner, job_id=job_id, kinds=kinds, limit=limit)

        def operation(cx: sqlite3.Connection) -> Look:
            oldest, newest = _bounds(cx, owner)
            notices = select(cx) if after < newest else ()
            return Look(oldest=oldest, newest=newest, notices=notices)

        return await self._database.read(operation)

    async def unsettled(
        self,
        *,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int,
        limit: int,
    ) -> tuple[Notice, ...]:
        """Return terminal notices that nobody has acknowledged, in order."""
        return await self._database.read(
            partial(
                _select,
                after=after,
                owner=owner,
                job_id=job_id,
                kinds=kinds & TERMINAL,
                limit=limit,
                open_only=True,
            )
        )

    async def notice(self, number: int) -> Notice:
        """Return one."""
        return await self._database.read(partial(_get, number=number))

    async def bounds(self, owner: int | None = None) -> tuple[int, int]:
        """Return the oldest number that is still there and the newest ever given."""
        return await self._database.read(partial(_bounds, owner=owner))

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Raise the deliveries of notices by one; those that are gone are ignored."""

        def operation(cx: sqlite3.Connection) -> None:
            cx.execute(
                """
                UPDATE notices SET deliveries = deliveries + told.times
                FROM (SELECT value, count(*) AS times FROM json_each(?) GROUP BY value) AS told
                WHERE number = told.value
                """,
                [listed(numbers)],
            )

        await self._database.write(operation)

    async def settle(self, number: int, owner: int | None = None) -> Notice:
        """Mark a notice as acknowledged; doing it again is success."""

        def operation(cx: sqlite3.Connection) -> Notice:
            notice = _get(cx, number)
            if owner not in (None, notice.owner):
                raise notice_not_found(number)
            cx.execute("UPDATE notices SET settled = 1 WHERE number = ?", [number])
            return replace(notice, settled=True)

        return await self._database.write(operation)

    async def settle_all(self, numbers: Sequence[int], owner: int) -> tuple[Settlement, ...]:
        """Mark those notices as acknowledged that are *owner*'s; returns what was found of all."""
        return await self._database.write(partial(_settle_all, numbers=numbers, owner=owner))

    async def prune(self, before: datetime) -> int:
        """Forget notices older than *before*, and remembered ids as old.

        Returns how many notices were forgotten. It takes several transactions when there are many.
        """
        forgotten = 0
        while True:
            notices, ids = await self._database.write(partial(_prune, before=microseconds(before)))
            forgotten += notices
            if not notices and not ids:
                return forgotten


def _get(cx: sqlite3.Connection, number: int) -> Notice:
    row = cx.execute(SELECT_NOTICE + "WHERE number = ?", [number]).fetchone()
    if row is None:
        raise notice_not_found(number)
    return notice_of(row)


def _settle_all(
    cx: sqlite3.Connection, numbers: Sequence[int], owner: int
) -> tuple[Settlement, ...]:
    rows = cx.execute(
        """
        SELECT number, owner, created, settled FROM notices
        WHERE number IN (SELECT value FROM json_each(?))
        """,
        [listed(numbers)],
    )
    there = {row["number"]: row for row in rows}
    found = tuple(
        Settlement(
            number=row["number"],
            owner=row["owner"],
            created=moment_of(row["created"]),
            new=row["owner"] == owner and not row["settled"],
        )
        for number in numbers
        if (row := there.get(number)) is not None
    )
    cx.execute(
        "UPDATE notices SET settled = 1 WHERE number IN (SELECT value FROM json_each(?))",
        [listed(each.number for each in found if each.new)],
    )
    return found


def _bounds(cx: sqlite3.Connection, owner: int | None) -> tuple[int, int]:
    # AUTOINCREMENT keeps the last number that was ever given in this table.
    last = cx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notices'").fetchone()
    newest = 0 if last is None else int(last["seq"])
    (oldest,) = cx.execute("SELECT min(number) FROM notices").fetchone()
    forgotten = cx.execute("SELECT forgotten FROM shares WHERE owner = ?", [owner]).fetchone()
    return max(
        newest + 1 if oldest is None else int(oldest),
        0 if forgotten is None else int(forgotten["forgotten"]) + 1,
    ), newest


def _select(
    cx: sqlite3.Connection,
    *,
    after: int,
    owner: int | None,
    job_id: JobId | None,
    kinds: NoticeKind,
    limit: int,
    open_only: bool = False,
) -> tuple[Notice, ...]:
    # Only what is asked for stands in the query, so that each has an index of its own; the job is
    # the narrowest, the plus keeps the planner from taking the owner's instead.
    conditions = ["number > ?", "kind & ?"]
    values: list[int | str] = [after, int(kinds)]
    if job_id is not None:
        conditions.append("job = (SELECT job FROM job_ids WHERE id = ?)")
        values.append(job_id)
    if owner is not None:
        conditions.append("owner = ?" if job_id is None else "+owner = ?")
        values.append(owner)
    if open_only:
        conditions.append("settled = 0")
    query = f"{SELECT_NOTICE} WHERE {' AND '.join(conditions)} ORDER BY number LIMIT ?"
    rows, _ = take_page(cx.execute(query, [*values, limit]), limit, _PAGE_CHARS)
    return tuple(map(notice_of, rows))


def _prune(cx: sqlite3.Connection, before: int) -> tuple[int, int]:
    bounds = [before, _PRUNED_AT_ONCE]
    notices = cx.execute(
        """
        DELETE FROM notices WHERE number IN (
            SELECT number FROM notices WHERE created < ? ORDER BY created LIMIT ?
        )
        """,
        bounds,
    ).rowcount
    ids = cx.execute(
        """
        DELETE FROM ended WHERE number IN (
            SELECT number FROM ended WHERE ended_at < ? ORDER BY ended_at LIMIT ?
        )
        """,
        bounds,
    ).rowcount
    return notices, ids
