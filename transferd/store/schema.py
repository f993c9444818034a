"""Opening the queue file: made whole or not at all, inspected before it is touched, migrated.

A file that is not sound, or not ours, or too new, is refused and left as it is, byte by byte.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from transferd.model.errors import StoreDamaged, StoreError, StoreTooNew
from transferd.store.directory import sync_directory
from transferd.store.faults import PUT_BACK, describe

log = logging.getLogger(__name__)

#: "trfd", at offset 68 of the file (SQLite file format, 1.3).
APPLICATION_ID = 0x74726664
_MAGIC = b"SQLite format 3\0"
#: The first with STRICT tables.
_OLDEST_SQLITE = (3, 37, 0)
#: Files up to this size are checked as a whole at each start; measured: under half a second.
_CHECKED_BYTES = 64 * 1024 * 1024
_BUSY_SECONDS = 5.0

_PRAGMAS = """
PRAGMA foreign_keys = ON;
PRAGMA trusted_schema = OFF;
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -8192;
"""
_WRITER_PRAGMAS = """
PRAGMA synchronous = FULL;
PRAGMA journal_size_limit = 16777216;
PRAGMA wal_autocheckpoint = 4096;
"""


def open_writer(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Open the writing connection; make, inspect and migrate the file first.

    Raises:
        StoreDamaged, StoreTooNew, StoreError: it cannot be used, and why.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(
            f"cannot use SQLite {sqlite3.sqlite_version}: transferd needs 3.37 or newer;"
            " install a newer libsqlite3"
        )
    with _translating(path), contextlib.ExitStack() as stack:
        if not path.exists():
            _make(path, migrations)
        version = _inspect(path, migrations)
        os.chmod(path, 0o600)
        connection = connect(path, "rw")
        stack.callback(connection.close)
        if version < len(migrations):
            _back_up(connection, path, version)
            _migrate(connection, migrations, version)
        _use_wal(connection, path)
        connection.executescript(_PRAGMAS + _WRITER_PRAGMAS)
        stack.pop_all()
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write; after the writing one."""
    with _translating(path), contextlib.ExitStack() as stack:
        connection = connect(path, "ro")
        stack.callback(connection.close)
        connection.executescript(_PRAGMAS)
        stack.pop_all()
        return connection


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a file that is there; transactions are begun by hand."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        cached_statements=256,
    )
    connection.row_factory = sqlite3.Row
    return connection


def _make(path: Path, migrations: Sequence[str]) -> None:
    """Make an empty queue file under another name and rename it: its own name never is half one."""
    log_file = _beside(path, "-wal")
    if log_file.exists():
        raise StoreDamaged(
            f"cannot use {path}: it is missing, but its log {log_file.name} is there;"
            " put the file back, or move the log away to start with an empty queue"
        )
    draft = _beside(path, ".new")
    for leftover in (draft, _beside(draft, "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(connect(draft, "rw")) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(connection, migrations, 0)
    os.rename(draft, path)
    sync_directory(path.parent)


def _inspect(path: Path, migrations: Sequence[str]) -> int:
    """Look at an existing file without changing it; return its schema number."""
    newest = len(migrations)
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise StoreDamaged(f"cannot use {path}: it is not an SQLite database; {PUT_BACK}")
    died = _beside(path, "-wal").exists()
    with contextlib.closing(connect(path, "ro")) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID or version < 1:
            raise StoreDamaged(
                f"cannot use {path}: it is another program's database; move it away"
                " or choose another state directory"
            )
        if version > newest:
            raise StoreTooNew(
                f"cannot use {path}: its schema is {version}, this transferd knows up to {newest};"
                " install the newer transferd again, or put back the backup from before it"
            )
        _check(connection, path, died=died)
        if _shape(connection) != _expected(migrations[:version]):
            raise StoreDamaged(
                f"cannot use {path}: it says that its schema is {version}, but its tables are"
                " others; a transferd in development has written it: use that one, or move the"
                " file away to start with an empty queue"
            )
    return int(version)


def _shape(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """Return the columns of all tables, and the names of everything else, but SQLite's own."""
    columns = connection.execute(
        """
        SELECT s.type, s.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
        FROM sqlite_schema AS s
        LEFT JOIN pragma_table_xinfo(s.name) AS c ON s.type = 'table'
        WHERE s.name NOT LIKE 'sqlite^_%' ESCAPE '^'
        """
    )
    return set(map(tuple, columns))


def _expected(migrations: Sequence[str]) -> set[tuple[object, ...]]:
    """Return the shape that a file has after these steps."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript("".join(migrations))
        return _shape(connection)


def _check(connection: sqlite3.Connection, path: Path, *, died: bool) -> None:
    """Check the whole file where that is quick or there is a reason to.

    A log that was left means that the daemon or the machine died. A large file (a million jobs are
    about 900 MB) that was closed in order is not read through at each start: damage in it shows as
    StoreDamaged when it is met.
    """
    if path.stat().st_size <= _CHECKED_BYTES:
        pragma = "PRAGMA integrity_check(1)"
    elif died:
        pragma = "PRAGMA quick_check(1)"
    else:
        return
    (verdict,) = connection.execute(pragma).fetchone()
    if verdict != "ok":
        raise StoreDamaged(f"cannot use {path}: it is damaged ({verdict}); {PUT_BACK}")
    if connection.execute("PRAGMA foreign_key_check").fetchone():
        raise StoreDamaged(f"cannot use {path}: it is damaged (rows are orphaned); {PUT_BACK}")


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    backup, draft = _beside(path, f".schema-{version}"), _beside(path, f".schema-{version}.new")
    draft.unlink(missing_ok=True)
    # SQLite fills an empty file too, and keeps its mode.
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        connection.execute("VACUUM INTO ?", [str(draft)])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(draft, backup)
    sync_directory(path.parent)
    fields = {"schema": version, "backup": backup}
    log.info("store.backed_up", extra={"fields": fields})


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], version: int) -> None:
    """Apply the missing steps in one transaction."""
    # Off, so that a step can rebuild a table that others refer to; checked at the end instead.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.executescript("BEGIN IMMEDIATE;" + "".join(migrations[version:]))
    if connection.execute("PRAGMA foreign_key_check").fetchone():
        raise StoreError("cannot migrate the queue file: rows would be orphaned; report this")
    # Not as a script: that would commit first.
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(
            f"cannot use {path}: its file system cannot hold a write-ahead log;"
            " keep the state directory on a local disk"
        )
    # The first query opens the log. A log that only the reader has open is left behind at the end.
    connection.execute("SELECT 1 FROM sqlite_schema").fetchone()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextlib.contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise describe(error, f"open {path}") from error
    except OSError as error:
        raise StoreError(
            f"cannot open {path}: {error.strerror};"
            " make it and its directory usable for this user, and keep some space free"
        ) from error
