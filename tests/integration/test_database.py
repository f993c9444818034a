"""The queue file under use: crowds, cancellation, faults of the disk, and its end."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.notes import NOTES, add, names, open_notes, store_threads, texts
from transferd.model.errors import Conflict, StoreError
from transferd.store.connection import Done
from transferd.store.database import Database, transact


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A new file."""
    async with open_notes(tmp_path / "queue.db") as opened:
        yield opened


def _refuse(cx: sqlite3.Connection) -> None:
    add(cx, "of one that is refused")
    raise Conflict("refused", "cannot do that")


def _break_commit(cx: sqlite3.Connection) -> None:
    """Do what only COMMIT finds out."""
    cx.execute("INSERT INTO lists (note) VALUES (4711)")


class Hold:
    """Keeps the writer busy until it is let go, so that others have to wait."""

    def __init__(self, database: Database) -> None:
        self._entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()
        self._task = asyncio.create_task(database.write(self._operation))

    def _operation(self, cx: sqlite3.Connection) -> None:
        add(cx, "held")
        self._loop.call_soon_threadsafe(self._entered.set)
        self._left.wait(30)

    async def __aenter__(self) -> Hold:
        await self._entered.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._left.set()
        with suppress(asyncio.CancelledError):
            await self._task

    def cancel(self) -> None:
        """Cancel the one who waits for the operation that runs."""
        self._task.cancel()


async def _started(*tasks: asyncio.Task[None]) -> None:
    """Let tasks come to their first wait."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


# ── writing and reading ──────────────────────────────────────────────────────────────────────


async def test_what_was_acknowledged_is_read(database: Database) -> None:
    """A read sees every write that was acknowledged before it."""
    for number in range(50):
        await database.write(partial(add, text=str(number)))
        assert len(await database.read(texts)) == number + 1


async def test_operations_that_wait_share_a_commit(database: Database) -> None:
    """A thousand changes cost a few fsyncs, not a thousand."""
    statements: list[str] = []
    await database.write(lambda cx: cx.set_trace_callback(statements.append))
    async with asyncio.TaskGroup() as group, Hold(database):
        for number in range(100):
            group.create_task(database.write(partial(add, text=str(number))))
        await asyncio.sleep(0)
    assert statements.count("COMMIT") <= 3
    assert len(await database.read(texts)) == 101


def test_what_takes_long_is_committed_before_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: who comes first does not wait for all the others, and a crash undoes less."""
    monkeypatch.setattr("transferd.store.database._LONGEST", 0.0)
    with closing(sqlite3.connect(tmp_path / "any.db", isolation_level=None)) as connection:
        first, *others = (partial(_make_table, name=name) for name in "abc")
        assert transact(tmp_path, connection, [first, *others]) == [Done("a")]
        assert not connection.in_transaction
        assert transact(tmp_path, connection, others) == [Done("b")]


def _make_table(cx: sqlite3.Connection, name: str) -> str:
    cx.execute(f"CREATE TABLE {name} (x)")
    return name


async def test_what_takes_long_is_done_to_the_last_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation has its own outcome, in the order in which they came."""
    monkeypatch.setattr("transferd.store.database._LONGEST", 0.0)
    async with Hold(database):
        writing = [asyncio.create_task(database.write(partial(add, text=text))) for text in "abcde"]
        await asyncio.sleep(0)
    await asyncio.wait(writing)
    assert await database.read(texts) == ["held", *"abcde"]


@pytest.mark.parametrize("thread", ["_writer", "_reader"])
async def test_a_thread_that_hangs_is_found(database: Database, thread: str) -> None:
    """Rule: the watchdog is fed by a queue file that can be read and written."""
    await database.beat()
    left = threading.Event()
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        left.wait(30)

    hanging = asyncio.create_task(getattr(database, thread).call(hang))
    await entered.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await database.beat()
    beating = asyncio.create_task(database.beat())
    left.set()
    await hanging
    await beating


async def test_an_operation_that_raises_is_undone_alone(database: Database) -> None:
    """Its neighbours in the transaction are kept."""
    async with Hold(database):
        first = asyncio.create_task(database.write(partial(add, text="first")))
        refused = asyncio.create_task(database.write(_refuse))
        last = asyncio.create_task(database.write(partial(add, text="last")))
        await _started(first, refused, last)
    await first
    await last
    with pytest.raises(Conflict):
        await refused
    assert await database.read(texts) == ["held", "first", "last"]


async def test_a_commit_that_fails_fails_everyone_in_it(database: Database) -> None:
    """Nobody is told of a change that is not on disk, and the next transaction is a new one."""
    async with Hold(database):
        first = asyncio.create_task(database.write(partial(add, text="first")))
        broken = asyncio.create_task(database.write(_break_commit))
        await _started(first, broken)
    for task in (first, broken):
        with pytest.raises(StoreError, match="write to"):
            await task
    await database.write(partial(add, text="next"))
    assert await database.read(texts) == ["held", "next"]


async def test_a_full_disk_fails_and_passes(database: Database) -> None:
    """The message says what to do, and once it is done writing works again."""
    (pages,) = await database.write(lambda cx: tuple(cx.execute("PRAGMA page_count").fetchone()))
    await database.write(lambda cx: cx.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0])
    with pytest.raises(StoreError, match="free some space"):
        await database.write(partial(add, text="x" * 100_000))
    await database.write(lambda cx: cx.execute("PRAGMA max_page_count = 100000").fetchone()[0])
    await database.write(partial(add, text="next"))
    assert await database.read(texts) == ["next"]


async def test_a_volume_that_refuses_to_write_fails_and_recovers(tmp_path: Path) -> None:
    """The same through the system calls: a limit on the size of files stands for the full disk."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.full_volume", str(tmp_path / "queue.db"), stdout=PIPE
    )
    output, _ = await child.communicate()
    assert output.decode().split() == ["written", "refused", "refused", "written", "3"]


async def test_a_reader_cannot_write(database: Database) -> None:
    """Exactly one connection writes (LESSONS: the WAL-reset bug needs two)."""
    with pytest.raises(StoreError):
        await database.read(partial(add, text="no"))
    assert await database.read(texts) == []


async def test_a_read_has_one_snapshot(database: Database) -> None:
    """Two queries of one read see the same moment, whatever is written in between."""
    seen: list[int] = []
    first, second = threading.Event(), threading.Event()

    def look(cx: sqlite3.Connection) -> None:
        seen.append(len(texts(cx)))
        first.set()
        second.wait(30)
        seen.append(len(texts(cx)))

    reading = asyncio.create_task(database.read(look))
    await asyncio.to_thread(first.wait, 30)
    await database.write(partial(add, text="meanwhile"))
    second.set()
    await reading
    assert seen == [0, 0]


# ── cancellation ─────────────────────────────────────────────────────────────────────────────


def _writable(path: Path) -> bool:
    """Whether no transaction is open: somebody else may write at once."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        other.execute("ROLLBACK")
        return True


async def test_a_cancelled_caller_leaves_a_whole_change(database: Database, tmp_path: Path) -> None:
    """Cancelled while it waits or while it runs: its operation runs whole, the others' too."""
    async with Hold(database) as hold:
        waiting = asyncio.create_task(database.write(partial(add, text="cancelled")))
        other = asyncio.create_task(database.write(partial(add, text="other")))
        await _started(waiting, other)
        waiting.cancel()
        hold.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await database.read(texts) == ["held", "cancelled", "other"]
    assert _writable(tmp_path / "queue.db")


@pytest.mark.parametrize("steps", range(6))
async def test_cancellation_at_any_step_harms_nobody(
    database: Database, tmp_path: Path, steps: int
) -> None:
    """Callers are cancelled after any number of turns of the loop, in a crowd of others."""
    victims = [
        asyncio.create_task(database.write(partial(add, text=f"victim {number}")))
        for number in range(20)
    ]
    others = [
        asyncio.create_task(database.write(partial(add, text=f"other {number}")))
        for number in range(20)
    ]
    for _ in range(steps):
        await asyncio.sleep(0)
    for victim in victims:
        victim.cancel()
    await asyncio.wait([*victims, *others])
    assert all(other.exception() is None for other in others)
    await database.write(partial(add, text="end"))
    kept = await database.read(texts)
    assert [text for text in kept if text.startswith("other")] == [
        f"other {number}" for number in range(20)
    ]
    assert _writable(tmp_path / "queue.db")


@pytest.mark.parametrize("steps", range(5))
async def test_opening_can_be_cancelled(tmp_path: Path, steps: int) -> None:
    """No thread and no lock is left behind."""
    opening = asyncio.create_task(Database.open(tmp_path / "queue.db", NOTES))
    for _ in range(steps):
        await asyncio.sleep(0)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await (await opening).close()
    assert not store_threads()
    async with open_notes(tmp_path / "queue.db", NOTES) as database:
        await database.write(partial(add, text="works"))


# ── beside and timed ─────────────────────────────────────────────────────────────────────────

#: Takes minutes.
_ENDLESS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)
SELECT count(*) FROM n
"""


async def test_a_long_look_keeps_nobody_waiting_and_can_be_broken_off(tmp_path: Path) -> None:
    """Reads and writes go on beside it; whoever stops waiting for it ends it."""
    began, ended = threading.Event(), threading.Event()
    errors: list[sqlite3.Error] = []

    def endless(cx: sqlite3.Connection) -> None:
        began.set()
        try:
            cx.execute(_ENDLESS).fetchone()
        except sqlite3.Error as error:
            errors.append(error)
        ended.set()

    async with open_notes(tmp_path / "queue.db", NOTES) as database:
        looking = asyncio.create_task(database.aside(endless))
        assert await asyncio.to_thread(began.wait, 10)
        await database.write(partial(add, text="meanwhile"))
        assert await database.read(texts) == ["meanwhile"]
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled()
        assert await asyncio.to_thread(ended.wait, 10)
        assert [str(error) for error in errors] == ["interrupted"]
        assert await database.aside(texts) == ["meanwhile"]


async def test_a_look_cannot_write(tmp_path: Path) -> None:
    """There is one writer."""
    async with open_notes(tmp_path / "queue.db", NOTES) as database:
        with pytest.raises(StoreError, match="readonly"):
            await database.aside(partial(add, text="never"))


async def test_what_was_asked_for_is_timed(tmp_path: Path) -> None:
    """Commits and reads, one by one, from the asking to the answer; not what failed."""
    timed: list[tuple[str, bool]] = []

    def observe(what: str, seconds: float) -> None:
        timed.append((what, 0 <= seconds < 10))

    database = await Database.open(tmp_path / "queue.db", NOTES, observe)
    await database.write(partial(add, text="a"))
    await database.read(texts)
    with pytest.raises(StoreError):
        await database.write(lambda cx: cx.execute("INSERT INTO nowhere VALUES (1)"))
    await database.close()
    assert timed == [("commit", True), ("read", True)]


# ── closing ──────────────────────────────────────────────────────────────────────────────────


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """A change that was asked for before the end is made; what comes later is told so."""
    database = await Database.open(tmp_path / "queue.db", NOTES)
    async with Hold(database):
        waiting = asyncio.create_task(database.write(partial(add, text="waiting")))
        await _started(waiting)
        closing_down = asyncio.create_task(database.close())
        await asyncio.sleep(0)
    await waiting
    await closing_down
    await database.close()
    for attempt in (database.write(partial(add, text="late")), database.read(texts)):
        with pytest.raises(StoreError, match="closed"):
            await attempt
    assert not store_threads()
    assert names(tmp_path) == ["queue.db"]
    async with open_notes(tmp_path / "queue.db", NOTES) as again:
        assert await again.read(texts) == ["held", "waiting"]
