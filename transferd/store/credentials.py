"""Sealed passwords and headers of jobs.

Secrets are sealed before an operation waits for the disk: its caller may be cancelled and wipe
them, and the operation still runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.errors import NotFound, VaultError
from transferd.model.job import JobId
from transferd.model.queue import Secrets
from transferd.store.rows import microseconds, moment_of
from transferd.store.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCredential:
    """A credential as it stands in the queue file."""

    target: Target
    scheme: Scheme
    #: None: whoever the owner is already.
    username: str | None
    #: Empty where there is no password.
    sealed: bytes
    given: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecrets:
    """All secrets of a job as they stand in the queue file."""

    credentials: tuple[SealedCredential, ...]
    headers: bytes | None


def seal(
    vault: Vault, job_id: JobId, credentials: Iterable[Credential], now: datetime
) -> tuple[SealedCredential, ...]:
    """Seal credentials that were given for a job now."""
    return tuple(
        SealedCredential(
            target=each.target,
            scheme=each.scheme,
            username=each.username,
            # Who the owner is already is no secret, and outlives every key.
            sealed=b""
            if each.implicit
            else vault.seal_password(job_id, each.target, each.scheme, each.password),
            given=now,
        )
        for each in credentials
    )


def unseal(vault: Vault, job_id: JobId, secrets: SealedSecrets, now: datetime) -> Secrets:
    """Open all secrets of a job.

    Raises:
        VaultError: the key is missing or another one.
    """
    return Secrets(
        credentials=tuple(
            Credential(
                target=each.target,
                scheme=each.scheme,
                username=each.username,
                password=Secret("")
                if each.username is None
                else vault.open_password(job_id, each.target, each.scheme, each.sealed),
                # The wall clock may have been set back since.
                age=max(0.0, (now - each.given).total_seconds()),
            )
            for each in secrets.credentials
        ),
        headers=() if secrets.headers is None else vault.open_headers(job_id, secrets.headers),
    )


def put_credentials(
    cx: sqlite3.Connection, job: int, credentials: Sequence[SealedCredential]
) -> None:
    """Keep credentials, each in place of one for the same (target, scheme)."""
    cx.executemany(
        """
        INSERT INTO credentials (job, target, scheme, username, sealed, given)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (job, target, scheme) DO UPDATE SET
            username = excluded.username, sealed = excluded.sealed, given = excluded.given
        """,
        [
            (job, each.target, each.scheme, each.username, each.sealed, microseconds(each.given))
            for each in credentials
        ],
    )


def put_headers(cx: sqlite3.Connection, job: int, sealed: bytes) -> None:
    """Keep the headers of a new job."""
    cx.execute("INSERT INTO headers (job, sealed) VALUES (?, ?)", [job, sealed])


def drop_credential(cx: sqlite3.Connection, job: int, target: Target, scheme: Scheme) -> None:
    """Forget a credential.

    Raises:
        NotFound: `credential_not_found`.
    """
    gone = cx.execute(
        "DELETE FROM credentials WHERE job = ? AND target = ? AND scheme = ?",
        [job, target, scheme],
    )
    if not gone.rowcount:
        raise NotFound(
            "credential_not_found",
            f"cannot remove a {scheme} credential for the {target}: the job has none",
        )


def read_secrets(cx: sqlite3.Connection, job: int) -> SealedSecrets:
    """Return a job's secrets, still sealed."""
    rows = cx.execute(
        "SELECT target, scheme, username, sealed, given FROM credentials WHERE job = ?", [job]
    )
    credentials = tuple(
        SealedCredential(
            target=Target(target),
            scheme=Scheme(scheme),
            username=username,
            sealed=sealed,
            given=moment_of(given),
        )
        for target, scheme, username, sealed, given in rows
    )
    headers = cx.execute("SELECT sealed FROM headers WHERE job = ?", [job]).fetchone()
    return SealedSecrets(
        credentials=credentials, headers=None if headers is None else headers["sealed"]
    )


def anything_sealed(cx: sqlite3.Connection) -> bool:
    """Whether the queue holds a secret."""
    row = cx.execute(
        "SELECT EXISTS (SELECT 1 FROM credentials WHERE username IS NOT NULL)"
        " OR EXISTS (SELECT 1 FROM headers)"
    ).fetchone()
    return bool(row[0])


def reseal(cx: sqlite3.Connection, vault: Vault, limit: int) -> int:
    """Seal up to *limit* secrets anew that a retired key has sealed; return how many.

    What is damaged is left as it is.
    """
    done = 0
    for key in sorted(vault.retired):
        for kind in (_PASSWORDS, _HEADERS):
            done += _reseal_kind(cx, vault, key, kind, limit - done)
    return done


def sealers(cx: sqlite3.Connection) -> frozenset[bytes]:
    """Return the names of the keys that have sealed anything, however much that is."""
    found = (row["key"] for kind in (_PASSWORDS, _HEADERS) for row in cx.execute(kind.keys))
    return frozenset(found)


def count_sealed(cx: sqlite3.Connection, keys: Iterable[bytes]) -> int:
    """Return how many secrets are sealed with the keys of these names."""
    found = (
        cx.execute(kind.count, [key]).fetchone() for kind in (_PASSWORDS, _HEADERS) for key in keys
    )
    return sum(count for (count,) in found)


def has_sealed(cx: sqlite3.Connection, key: bytes) -> bool:
    """Whether a secret is sealed with the key of that name."""
    return any(cx.execute(kind.select, [key, 1, 0]).fetchone() for kind in (_PASSWORDS, _HEADERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of secrets: where they are, and how each of them is sealed anew."""

    #: Each key once, by steps from one to the next in the index.
    keys: str
    #: By key.
    count: str
    #: By key, limit and offset.
    select: str
    update: str
    #: What names a row, beside its job.
    names: tuple[str, ...]
    reseal: Callable[[Vault, sqlite3.Row], bytes]


_PASSWORDS = _Kind(
    keys="""
        WITH RECURSIVE found (key) AS (
            SELECT min(substr(sealed, 2, 8)) FROM credentials WHERE username IS NOT NULL
            UNION ALL
            SELECT (SELECT min(substr(sealed, 2, 8)) FROM credentials
                    WHERE username IS NOT NULL AND substr(sealed, 2, 8) > key)
            FROM found WHERE key IS NOT NULL
        ) SELECT key FROM found WHERE key IS NOT NULL
        """,
    count="""
        SELECT count(*) FROM credentials
        WHERE username IS NOT NULL AND substr(sealed, 2, 8) = ?
        """,
    select="""
        SELECT job, id, target, scheme, sealed FROM credentials JOIN jobs ON number = job
        WHERE username IS NOT NULL AND substr(sealed, 2, 8) = ? LIMIT ? OFFSET ?
        """,
    update="UPDATE credentials SET sealed = ? WHERE job = ? AND target = ? AND scheme = ?",
    names=("target", "scheme"),
    reseal=lambda vault, row: vault.reseal_password(
        JobId(row["id"]), Target(row["target"]), Scheme(row["scheme"]), row["sealed"]
    ),
)
_HEADERS = _Kind(
    keys="""
        WITH RECURSIVE found (key) AS (
            SELECT min(substr(sealed, 2, 8)) FROM headers
            UNION ALL
            SELECT (SELECT min(substr(sealed, 2, 8)) FROM headers
                    WHERE substr(sealed, 2, 8) > key)
            FROM found WHERE key IS NOT NULL
        ) SELECT key FROM found WHERE key IS NOT NULL
        """,
    count="SELECT count(*) FROM headers WHERE substr(sealed, 2, 8) = ?",
    select="""
        SELECT job, id, sealed FROM headers JOIN jobs ON number = job
        WHERE substr(sealed, 2, 8) = ? LIMIT ? OFFSET ?
        """,
    update="UPDATE headers SET sealed = ? WHERE job = ?",
    names=(),
    reseal=lambda vault, row: vault.reseal_headers(JobId(row["id"]), row["sealed"]),
)


def _reseal_kind(cx: sqlite3.Connection, vault: Vault, key: bytes, kind: _Kind, limit: int) -> int:
    done = damaged = 0
    while done < limit:
        rows = cx.execute(kind.select, [key, limit - done, damaged]).fetchall()
        if not rows:
            break
        for row in rows:
            try:
                sealed = kind.reseal(vault, row)
            except VaultError:
                damaged += 1
                continue
            cx.execute(kind.update, [sealed, row["job"], *(row[name] for name in kind.names)])
            done += 1
    return done
