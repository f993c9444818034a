"""Opening the queue file: made whole, inspected, migrated, refused; and the state directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.notes import LISTS, NOTES, add, names, open_notes, store_threads, texts
from tests.support.store import open_queue
from transferd.model.errors import StoreDamaged, StoreError, StoreLocked, StoreTooNew
from transferd.store import schema
from transferd.store.database import Database
from transferd.store.directory import prepare_directory
from transferd.store.lock import StateLock
from transferd.store.migrations import MIGRATIONS
from transferd.store.schema import APPLICATION_ID


async def test_a_new_file_is_private_and_durable(tmp_path: Path) -> None:
    """0600 in a 0700 directory, a log that is synced at each commit, and our marks in it."""
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "mmap_size": 0,
        "busy_timeout": 5000,
        "application_id": APPLICATION_ID,
        "user_version": len(MIGRATIONS),
    }
    directory = prepare_directory(tmp_path / "a" / "state")
    async with open_notes(directory / "queue.db", MIGRATIONS) as database:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def pragmas(cx: sqlite3.Connection) -> list[object]:
            return [cx.execute(f"PRAGMA {name}").fetchone()[0] for name in expected]

        assert await database.write(pragmas) == list(expected.values())


async def test_tables_are_strict(tmp_path: Path) -> None:
    """A text in a column of numbers is a bug that is found when it is written."""
    async with open_notes(tmp_path / "queue.db", MIGRATIONS) as database:
        lax = await database.read(
            lambda cx: cx.execute(
                """
                SELECT name FROM pragma_table_list
                WHERE schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'
                """
            ).fetchall()
        )
        assert lax == []


async def test_a_crash_while_the_file_was_made_is_forgotten(tmp_path: Path) -> None:
    """The file has its name only when it is whole."""
    (tmp_path / "queue.db.new").write_bytes(b"half a file")
    (tmp_path / "queue.db.new-journal").write_bytes(b"half a journal")
    async with open_notes(tmp_path / "queue.db") as database:
        assert await database.read(texts) == []
    assert names(tmp_path) == ["queue.db"]


def _make_old(path: Path, *, application: int = APPLICATION_ID, version: int = 1) -> None:
    with closing(sqlite3.connect(path)) as cx:
        cx.execute(f"PRAGMA application_id = {application}")
        cx.execute(f"PRAGMA user_version = {version}")
        cx.execute(NOTES[0])
        add(cx, "old")
        cx.commit()


def _make_damaged(path: Path) -> None:
    """Fill pages, then overwrite one in the middle."""
    _make_old(path)
    with closing(sqlite3.connect(path)) as cx:
        cx.executemany("INSERT INTO notes (text) VALUES (?)", [("x" * 500,)] * 500)
        cx.commit()
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096)


def _make_orphans(path: Path) -> None:
    _make_old(path, version=2)
    with closing(sqlite3.connect(path)) as cx:
        cx.execute(LISTS[1])
        cx.execute("INSERT INTO lists (note) VALUES (4711)")
        cx.commit()


def _make_other_columns(path: Path) -> None:
    _make_old(path)
    with closing(sqlite3.connect(path)) as cx:
        cx.execute("ALTER TABLE notes ADD COLUMN kind TEXT")
        cx.commit()


def _make_text(path: Path) -> None:
    path.write_text("hello, world, this is no database\n" * 300)


def _cut(path: Path) -> None:
    _make_damaged(path)
    os.truncate(path, 4096 * 10)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            _make_text,
            StoreDamaged,
            "not an SQLite database",
        ),
        (Path.touch, StoreDamaged, "not an SQLite database"),
        (_make_damaged, StoreDamaged, "damaged"),
        (_cut, StoreDamaged, "queue.db"),
        (_make_orphans, StoreDamaged, "orphaned"),
        (partial(_make_old, application=0x5A5A), StoreDamaged, "another program's"),
        (partial(_make_old, application=0), StoreDamaged, "another program's"),
        (partial(_make_old, version=0), StoreDamaged, "another program's"),
        (partial(_make_old, version=3), StoreTooNew, "schema is 3.*up to 2"),
        (partial(_make_old, version=2), StoreDamaged, "schema is 2, but its tables are others"),
        (_make_other_columns, StoreDamaged, "in development has written it: use that one, or move"),
    ],
    ids=[
        *("text", "empty", "overwritten", "cut", "orphans", "foreign", "unmarked"),
        *("unnumbered", "newer", "without a table", "with other columns"),
    ],
)
async def test_a_file_that_cannot_be_used_is_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], error: type[StoreError], message: str
) -> None:
    """It is refused with what to do, never mended, never replaced by an empty one."""
    path = tmp_path / "queue.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(error, match=message) as refused:
        await Database.open(path, LISTS)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before
    assert not store_threads()


async def test_a_newer_file_that_was_not_closed_is_left_as_it_is(tmp_path: Path) -> None:
    """Nor is its log folded into it: the newer transferd shall find both."""
    newer = (*LISTS, "CREATE TABLE more (text TEXT);")
    for name in ("queue.db", "queue.db-wal"):
        async with open_notes(tmp_path / "queue.db", newer) as database:
            await database.write(partial(add, text="in the log only"))
            shutil.copy(tmp_path / name, tmp_path / f"kept-{name}")
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(tmp_path / f"kept-{name}", tmp_path / name)
    before = [(tmp_path / name).read_bytes() for name in ("queue.db", "queue.db-wal")]
    with pytest.raises(StoreTooNew):
        await Database.open(tmp_path / "queue.db", LISTS)
    assert [(tmp_path / name).read_bytes() for name in ("queue.db", "queue.db-wal")] == before


async def test_a_log_without_its_file_is_not_replaced(tmp_path: Path) -> None:
    """It may hold the only copy of what was acknowledged, and would be played into a new file."""
    (tmp_path / "queue.db-wal").write_bytes(b"acknowledged")
    with pytest.raises(StoreDamaged, match="put the file back"):
        await Database.open(tmp_path / "queue.db", LISTS)
    assert names(tmp_path) == ["queue.db-wal"]


async def test_a_large_file_is_read_through_only_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million jobs cost a start nothing; damage then shows when it is met (DESIGN 3)."""
    monkeypatch.setattr(schema, "_CHECKED_BYTES", 0)
    path = tmp_path / "queue.db"
    _make_damaged(path)
    async with open_notes(path, NOTES) as database:
        with pytest.raises(StoreDamaged, match="put a backup in its place"):
            await database.read(texts)
    (tmp_path / "queue.db-wal").touch()
    with pytest.raises(StoreDamaged, match="cannot use"):
        await Database.open(path, NOTES)


async def test_a_damaged_row_is_told_when_it_is_met(tmp_path: Path) -> None:
    """SQLite's checks do not look inside a text; a job that cannot be read is not made up."""
    async with open_queue(tmp_path) as queue:
        job = await queue.make()
    with closing(sqlite3.connect(tmp_path / "queue.db")) as cx:
        cx.execute("UPDATE jobs SET settings = '{\"name\": 5}'")
        cx.commit()
    async with open_queue(tmp_path) as queue:
        with pytest.raises(StoreDamaged, match=job.id):
            await queue.jobs.job(job.id)


async def test_an_sqlite_that_is_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than a syntax error in the schema."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StoreError, match=r"needs 3\.37"):
        await Database.open(tmp_path / "queue.db")
    assert names(tmp_path) == []


async def test_a_file_that_somebody_else_writes_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for ever, and the next write works."""
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.0)
    async with open_notes(tmp_path / "queue.db") as database:
        with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="end the other program"):
                await database.write(partial(add, text="refused"))
        await database.write(partial(add, text="next"))
        assert await database.read(texts) == ["next"]


async def test_an_older_file_is_backed_up_and_migrated(tmp_path: Path) -> None:
    """What was there is there, and the way back is kept (LESSONS: VACUUM INTO)."""
    path = tmp_path / "queue.db"
    async with open_notes(path, NOTES) as database:
        await database.write(partial(add, text="old"))
    async with open_notes(path, LISTS) as database:
        assert await database.read(texts) == ["old"]
        await database.write(lambda cx: cx.execute("INSERT INTO lists (note) VALUES (1)").close())
    backup = tmp_path / "queue.db.schema-1"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    async with open_notes(backup, NOTES) as database:
        assert await database.read(texts) == ["old"]
    with pytest.raises(StoreTooNew):
        await Database.open(path, NOTES)


@pytest.mark.parametrize(
    "step",
    [
        "CREATE TABLE more (text TEXT); INSERT INTO nowhere (text) VALUES ('x');",
        "CREATE TABLE more (note INTEGER REFERENCES notes); INSERT INTO more VALUES (4711);",
    ],
    ids=["broken", "orphans"],
)
async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, step: str) -> None:
    """The old transferd can go on with the file."""
    path = tmp_path / "queue.db"
    async with open_notes(path, NOTES) as database:
        await database.write(partial(add, text="old"))
    for _ in range(2):
        with pytest.raises(StoreError):
            await Database.open(path, (*NOTES, step))
    async with open_notes(path, NOTES) as database:
        assert await database.read(texts) == ["old"]
        assert (
            await database.read(
                lambda cx: cx.execute("SELECT 1 FROM sqlite_schema WHERE name = 'more'").fetchone()
            )
            is None
        )


# ── the directory and its lock ───────────────────────────────────────────────────────────────


def test_one_daemon_holds_a_state_directory(tmp_path: Path) -> None:
    """The second is told who the first is; a released lock is free."""
    told = rf"cannot use .* \(pid {os.getpid()}\) holds it"
    with StateLock.acquire(tmp_path), pytest.raises(StoreLocked, match=told):
        StateLock.acquire(tmp_path)
    lock = StateLock.acquire(tmp_path)
    lock.release()
    lock.release()
    assert (tmp_path / "lock").read_bytes() == b"", "the number may be another process's by now"
    StateLock.acquire(tmp_path).release()


async def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A daemon that was killed leaves no lock that somebody would have to remove."""
    script = (
        "import sys, pathlib; from transferd.store.lock import StateLock;"
        "lock = StateLock.acquire(pathlib.Path(sys.argv[1])); print('held', flush=True);"
        "sys.stdin.read()"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdin=PIPE, stdout=PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"held\n"
    with pytest.raises(StoreLocked, match=f"pid {child.pid}"):
        StateLock.acquire(tmp_path)
    child.kill()
    await child.communicate()
    StateLock.acquire(tmp_path).release()


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """They could put another queue or key there; a mistaken /tmp is not closed to others."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(StoreError, match="chmod 700"):
        prepare_directory(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o777


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot make the state directory"):
        prepare_directory(tmp_path / "file" / "state")
    with pytest.raises(StoreError, match="cannot open"):
        StateLock.acquire(tmp_path / "missing")
