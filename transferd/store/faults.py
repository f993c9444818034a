"""sqlite3's errors as ours: what was tried, what happened, what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from transferd.model.errors import StoreDamaged, StoreError

PUT_BACK = "move the file away and put a backup in its place"

_REMEDIES: Mapping[int, tuple[type[StoreError], str]] = MappingProxyType(
    {
        sqlite3.SQLITE_CORRUPT: (StoreDamaged, PUT_BACK),
        sqlite3.SQLITE_NOTADB: (StoreDamaged, PUT_BACK),
        sqlite3.SQLITE_FULL: (StoreError, "free some space on its volume, then try again"),
        sqlite3.SQLITE_IOERR: (StoreError, "check its disk and the free space, then try again"),
        sqlite3.SQLITE_BUSY: (StoreError, "end the other program that has it open"),
        sqlite3.SQLITE_LOCKED: (StoreError, "end the other program that has it open"),
        sqlite3.SQLITE_READONLY: (StoreError, "make it and its directory writable for this user"),
        sqlite3.SQLITE_CANTOPEN: (StoreError, "make it and its directory usable for this user"),
        sqlite3.SQLITE_PERM: (StoreError, "make it and its directory usable for this user"),
    }
)
_UNKNOWN = (StoreError, "check the daemon's log, then start it again")


def describe(error: sqlite3.Error, what: str) -> StoreError:
    """Make the error of ours that says that *what* failed (`write to PATH`)."""
    # The low byte is the primary code. Errors of Python's own module have none.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, remedy = _REMEDIES.get(code, _UNKNOWN)
    made = kind(f"cannot {what}: {error}; {remedy}")
    made.__cause__ = error
    return made
