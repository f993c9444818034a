"""Writes to a queue file while its volume refuses to grow; run as a process of its own.

The limit on the size of files (RLIMIT_FSIZE) makes write(2) fail, as a full disk does.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from functools import partial
from pathlib import Path

from transferd.model.errors import StoreError
from transferd.store.database import Database

_SCHEMA = ("CREATE TABLE notes (text TEXT NOT NULL) STRICT;",)


def _add(cx: sqlite3.Connection, size: int) -> None:
    cx.execute("INSERT INTO notes (text) VALUES (?)", ["x" * size])


async def _try(database: Database, size: int) -> None:
    try:
        await database.write(partial(_add, size=size))
    except StoreError:
        print("refused")
    else:
        print("written")


def _freeze(path: Path) -> None:
    _limit(Path(f"{path}-wal").stat().st_size)


def _limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def main(path: Path) -> None:
    """Write, be refused twice at once, and write again."""
    database = await Database.open(path, _SCHEMA)
    try:
        await _try(database, 10)
        _freeze(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(_try(database, 10))
            group.create_task(_try(database, 10_000))
        _limit(resource.RLIM_INFINITY)
        await _try(database, 10)
        await database.write(partial(_add, size=1))
        rows = await database.read(lambda cx: len(cx.execute("SELECT 1 FROM notes").fetchall()))
        print(rows)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
