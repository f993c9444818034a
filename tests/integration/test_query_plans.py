"""A queue of a million jobs answers as fast as an empty one: every question has its index."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.support.store import (
    ALICE,
    EVERY_COST,
    EVERYBODY,
    NOW,
    credential,
    done,
    file_specs,
    offset,
    settings,
    spec,
    stumble,
)
from transferd.model.credentials import Scheme, Target
from transferd.model.job import Cost, JobId, Priority
from transferd.model.limits import Quota
from transferd.model.notices import TERMINAL
from transferd.model.queue import Ending, Runnable, Wanted
from transferd.model.reports import Reset, Sized
from transferd.model.states import JobEvent, JobState
from transferd.store import queries
from transferd.store.connection import Operation, T
from transferd.store.database import Database
from transferd.store.jobs import SqliteJobStore
from transferd.store.notices import SqliteNoticeStore
from transferd.store.vault import Vault

JOB = JobId("00000000-0000-4000-8000-000000000001")
CLAIM = Runnable(job_id=JOB, owner=ALICE, priority=Priority.NORMAL)
NINE = Wanted(limit=9, each=9)
#: Every limit is looked at.
FULL = Quota(
    jobs_per_user=9,
    jobs_per_machine=9,
    bytes_per_user=999,
    bytes_per_machine=999,
    stored_bytes_per_user=99_999,
)
#: Small by nature: a row for each owner and state, one row, one row for each table, and what the
#: question itself names.
_SMALL = ("tallies", "machine", "positions", "sqlite_sequence", "json_each")
_PARTIAL = (" jobs_waiting", " notices_open")


Statement = tuple[str, Sequence[Any]]


class Spy:
    """A connection that keeps what it is asked, with the values still apart from the text."""

    def __init__(self, cx: sqlite3.Connection, asked: list[Statement]) -> None:
        self._cx = cx
        self._asked = asked

    def execute(self, text: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Keep and run a statement."""
        self._asked.append((text, values))
        return self._cx.execute(text, values)

    def executemany(self, text: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        """Keep and run a statement; its first values stand for all."""
        kept = list(rows)
        self._asked += [(text, values) for values in kept[:1]]
        return self._cx.executemany(text, kept)


class SpyDatabase(Database):
    """A database whose operations run on a spy."""

    asked: list[Statement]

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation on a spy."""
        return await super().write(self._spied(operation))

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation on a spy."""
        return await super().read(self._spied(operation))

    def _spied(self, operation: Operation[T]) -> Operation[T]:
        return lambda cx: operation(cast(sqlite3.Connection, Spy(cx, self.asked)))

    async def steps(self) -> list[tuple[str, str]]:
        """Return each step that SQLite takes, with its statement."""
        asked, self.asked = self.asked, []
        assert asked

        def explain(cx: sqlite3.Connection) -> list[tuple[str, str]]:
            return [
                (row["detail"], " ".join(text.split()))
                for text, values in asked
                for row in cx.execute(f"EXPLAIN QUERY PLAN {text}", values)
            ]

        return await super().read(explain)


async def nothing_new() -> bool:
    """No key was put back."""
    return False


class Plans:
    """A queue with one job of three files, and how SQLite goes about what it is asked."""

    def __init__(self, database: SpyDatabase) -> None:
        self._database = database
        vault = Vault([b"k" * 32], lambda size: b"n" * size, [b"m" * 32])
        self.jobs = SqliteJobStore(database, vault, lambda: JOB, nothing_new)
        self.notices = SqliteNoticeStore(database)

    async def fill(self) -> None:
        """Make the job, unseen."""
        self._database.asked = []
        await self.jobs.create(ALICE, [spec(3)], NOW, quota=Quota(jobs_per_user=9))
        await self.jobs.set_credentials(JOB, [credential()], NOW)
        self._database.asked = []

    async def walks(self) -> list[tuple[str, str]]:
        """Return each step that reads a whole table, or sorts what it has read."""
        return [step for step in await self._database.steps() if _walks(step[0])]

    async def indexes(self) -> list[str]:
        """Return the indexes that are used, in turn."""
        found = [re.search(r"INDEX (\w+)", detail) for detail, _ in await self._database.steps()]
        return [each[1] for each in found if each]

    async def effort(self, operation: Operation[object]) -> int:
        """Return how many instructions of SQLite's machine an operation takes."""
        taken = itertools.count()

        def count(cx: sqlite3.Connection) -> int:
            cx.set_progress_handler(lambda: next(taken) < 0, 1)
            operation(cx)
            cx.set_progress_handler(None, 0)
            return next(taken)

        return await Database.read(self._database, count)


def _walks(detail: str) -> bool:
    scanned = re.match(r"SCAN (\w+)", detail)
    return "TEMP B-TREE" in detail or bool(
        # A partial index in the order that is asked for holds nothing but the answer.
        scanned and scanned[1] not in _SMALL and not detail.endswith(_PARTIAL)
    )


@pytest_asyncio.fixture
async def plans(tmp_path: Path) -> AsyncIterator[Plans]:
    """A queue that tells its plans."""
    database = await SpyDatabase.open(tmp_path / "queue.db")
    opened = Plans(database)
    await opened.fill()
    yield opened
    await database.close()


Question = Callable[[Plans], Awaitable[object]]
_EVERY = frozenset(JobState)

QUESTIONS: dict[str, Question] = {
    "agenda": lambda p: p.jobs.agenda(NINE, NINE, EVERYBODY),
    "runnable": lambda p: p.jobs.runnable(Priority.NORMAL, NINE, EVERY_COST),
    "dispatch": lambda p: p.jobs.dispatch([CLAIM], NOW, files=9),
    "retry": lambda p: p.jobs.retry(1e9, NOW, limit=9),
    "hasten": lambda p: p.jobs.hasten(1.0, 2.0, after=0, limit=9),
    "untouched": lambda p: p.jobs.untouched_since(NOW, 9),
    "recover": lambda p: p.jobs.recover(1e9),
    "counts": lambda p: p.jobs.counts(),
    "tallies": lambda p: p.jobs.tallies(),
    "size": lambda p: p.jobs.keep(JOB, [Sized(file=0, total=5)], NOW, quota=FULL),
    "everything": lambda p: p.jobs.jobs(owner=None, states=None, after=0, limit=9),
    "of owner": lambda p: p.jobs.jobs(owner=ALICE, states=None, after=0, limit=9),
    "in states": lambda p: p.jobs.jobs(owner=None, states=_EVERY, after=0, limit=9),
    "of owner in states": lambda p: p.jobs.jobs(owner=ALICE, states=_EVERY, after=0, limit=9),
    "files": lambda p: p.jobs.files(JOB, after=0, limit=9),
    "open files": lambda p: p.jobs.open_files(JOB, 9),
    "whole": lambda p: p.jobs.whole([JOB]),
    "secrets": lambda p: p.jobs.secrets(JOB, NOW),
    "strays": lambda p: p.jobs.strays(9),
    "forget strays": lambda p: p.jobs.forget_strays([1]),
    "add files": lambda p: p.jobs.add_files(
        JOB, file_specs(2, first=5), NOW, files_per_job=9, quota=FULL
    ),
    "settings": lambda p: p.jobs.change_settings(JOB, lambda now: now, NOW, quota=FULL),
    "remove credential": lambda p: p.jobs.remove_credential(JOB, Target.SERVER, Scheme.BASIC, NOW),
    "reports": lambda p: p.jobs.keep(JOB, [offset(5), Reset(file=0)], NOW, extend=9),
    "done": lambda p: p.jobs.keep(JOB, [done(), done(1), done(2)], NOW, extend=9),
    "published": lambda p: p.jobs.mark_published(JOB, [0]),
    "completed": lambda p: p.jobs.complete([Ending(job_id=JOB, published=(0,), change=None)], NOW),
    "resume": lambda p: p.jobs.apply(JOB, JobEvent.DISPATCH, NOW),
    "cancel": lambda p: p.jobs.apply(JOB, JobEvent.CANCEL, NOW),
    "take": lambda p: p.jobs.take(JOB, ALICE + 1, NOW),
    "replay": lambda p: p.notices.replay(after=0, owner=None, job_id=None, kinds=TERMINAL, limit=9),
    "look": lambda p: p.notices.look(after=0, owner=ALICE, job_id=None, kinds=TERMINAL, limit=9),
    "replay of owner": lambda p: p.notices.replay(
        after=0, owner=ALICE, job_id=None, kinds=TERMINAL, limit=9
    ),
    "replay of job": lambda p: p.notices.replay(
        after=0, owner=ALICE, job_id=JOB, kinds=TERMINAL, limit=9
    ),
    "unsettled": lambda p: p.notices.unsettled(
        after=0, owner=None, job_id=None, kinds=TERMINAL, limit=9
    ),
    "unsettled of owner": lambda p: p.notices.unsettled(
        after=0, owner=ALICE, job_id=None, kinds=TERMINAL, limit=9
    ),
    "unsettled of job": lambda p: p.notices.unsettled(
        after=0, owner=ALICE, job_id=JOB, kinds=TERMINAL, limit=9
    ),
    "bounds": lambda p: p.notices.bounds(),
    "bounds of owner": lambda p: p.notices.bounds(ALICE),
    "prune": lambda p: p.notices.prune(NOW),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
async def test_no_question_reads_a_whole_table(plans: Plans, question: Question) -> None:
    """DESIGN 3: the queue is scheduled from indexes, never by loading it."""
    await question(plans)
    assert await plans.walks() == []


async def test_jobs_that_may_not_run_are_passed_over_in_one_step(plans: Plans) -> None:
    """However many wait for another link, nobody looks at them."""

    def ask(cx: sqlite3.Connection) -> object:
        return queries.agenda(cx, NINE, NINE, dict.fromkeys(Priority, frozenset({Cost.ALWAYS})))

    few = await plans.effort(ask)
    wishes = [spec(job_id=f"another {number}") for number in range(200)]
    await plans.jobs.create(ALICE, wishes, NOW, quota=Quota())
    assert await plans.effort(ask) == few


async def test_making_a_job_reads_no_table(plans: Plans) -> None:
    """Ids, destinations and the user's count are looked up."""
    wish = replace(spec(2, job_id="another"), settings=settings(priority=Priority.LOW))
    await plans.jobs.create(ALICE, [wish], NOW, quota=FULL)
    await plans.jobs.apply(JobId("another"), JobEvent.DISPATCH, NOW)
    await plans.jobs.apply(JobId("another"), JobEvent.STUMBLE, NOW, stumble())
    assert await plans.walks() == []


async def test_open_notices_are_found_among_the_open_ones(plans: Plans) -> None:
    """A million settled notices do not slow down the one that waits."""
    for name in ("unsettled", "unsettled of owner", "unsettled of job"):
        await QUESTIONS[name](plans)
    assert await plans.indexes() == [
        "notices_open",
        "notices_open_by_owner",
        "notices_open_by_job",
    ]
