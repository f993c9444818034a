"""A database of notes: a schema small enough to see through."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from transferd.store.database import Database

NOTES = ("CREATE TABLE notes (note INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;",)
#: One step further; its reference is checked at COMMIT only.
LISTS = (
    *NOTES,
    "CREATE TABLE lists (note INTEGER REFERENCES notes (note) DEFERRABLE INITIALLY DEFERRED);",
)


@asynccontextmanager
async def open_notes(path: Path, migrations: Sequence[str] = LISTS) -> AsyncIterator[Database]:
    """Open a file, and close it at the end."""
    database = await Database.open(path, migrations)
    try:
        yield database
    finally:
        await database.close()


def add(cx: sqlite3.Connection, text: str) -> None:
    """Write a note."""
    cx.execute("INSERT INTO notes (text) VALUES (?)", [text])


def texts(cx: sqlite3.Connection) -> list[str]:
    """Read all notes."""
    return [row["text"] for row in cx.execute("SELECT text FROM notes ORDER BY note")]


def store_threads() -> list[str]:
    """The store's threads that are alive."""
    return [each.name for each in threading.enumerate() if each.name.startswith("transferd-store")]


def names(directory: Path) -> list[str]:
    """What a directory holds."""
    return sorted(path.name for path in directory.iterdir())
