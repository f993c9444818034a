"""Keys of the marks by which repeated requests are recognised, sealed in the queue file.

One of them marks new requests. Those before it still recognise the requests of jobs that were made
in their time, and go with the last of these.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from transferd.model.errors import VaultError
from transferd.store.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """What could be opened."""

    #: The newest first.
    keys: tuple[bytes, ...] = field(repr=False)
    #: Whether the first of them marks new requests.
    current: bool


def read_markers(cx: sqlite3.Connection, vault: Vault) -> Markers:
    """Open what the vault's keys open; the others wait for theirs."""
    keys: list[bytes] = []
    current = False
    rows = cx.execute("SELECT sealed, last FROM markers ORDER BY last IS NOT NULL, number DESC")
    for row in rows:
        try:
            keys.append(vault.open_marker(row["sealed"]))
        except VaultError:
            continue
        current = current or row["last"] is None
    return Markers(keys=tuple(keys), current=current)


def add_marker(cx: sqlite3.Connection, sealed: bytes) -> None:
    """Have another marker mark from now on."""
    (newest,) = cx.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
    cx.execute("UPDATE markers SET last = ? WHERE last IS NULL", [newest])
    cx.execute("INSERT INTO markers (sealed, first) VALUES (?, ?)", [sealed, newest + 1])


def reseal_markers(cx: sqlite3.Connection, vault: Vault) -> None:
    """Forget markers that no job needs, and seal the others with the key of today."""
    cx.execute(
        "DELETE FROM markers WHERE last IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.number BETWEEN first AND last)"
    )
    rows: Sequence[sqlite3.Row] = cx.execute("SELECT number, sealed FROM markers").fetchall()
    for row in rows:
        try:
            sealed = vault.seal_marker(vault.open_marker(row["sealed"]))
        except VaultError:
            continue
        cx.execute("UPDATE markers SET sealed = ? WHERE number = ?", [sealed, row["number"]])


def sealers(cx: sqlite3.Connection) -> frozenset[bytes]:
    """Return the names of the keys that have sealed markers."""
    rows = cx.execute("SELECT DISTINCT substr(sealed, 2, 8) AS key FROM markers")
    return frozenset(row["key"] for row in rows)
