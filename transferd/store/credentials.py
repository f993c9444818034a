"""Sealed passwords and headers of jobs.

Secrets are sealed before an operation waits for the disk: its caller may be cancelled and wipe
them, and the operation still runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.errors import NotFound
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
