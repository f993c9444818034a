"""Jobs in the queue file: making and finding them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from transferd.model.credentials import CredentialLabel
from transferd.model.errors import Conflict, job_not_found
from transferd.model.job import Job, JobId, JobSpec
from transferd.model.limits import Quota
from transferd.model.queue import Created
from transferd.model.states import JobEvent, JobState, advance
from transferd.store.credentials import SealedCredential, put_credentials, put_headers, seal
from transferd.store.files import append_files
from transferd.store.quota import JOB_BYTES, check_bytes, check_jobs, storing, weight_of
from transferd.store.rows import SELECT_JOB, Row, job_of, listed, microseconds, text_of
from transferd.store.vault import Vault

_BY_ID: Final = "WHERE number = (SELECT job FROM job_ids WHERE id = ?)"
_BY_IDS: Final = """
WHERE number IN (
    SELECT job FROM job_ids WHERE id IN (SELECT value FROM json_each(?))
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A job to make; its secrets are sealed, so that those of the spec may be wiped."""

    id: JobId
    spec: JobSpec
    credentials: tuple[SealedCredential, ...]
    headers: bytes | None
    #: What the queue file may hold for the same request; the first is what is written.
    marks: tuple[bytes, ...]


def draft(spec: JobSpec, vault: Vault, new_id: Callable[[], JobId], now: datetime) -> Draft:
    """Seal the secrets of a spec, and give it an id where it has none."""
    job_id = spec.id or new_id()
    return Draft(
        id=job_id,
        spec=spec,
        credentials=seal(vault, job_id, spec.credentials, now),
        headers=vault.seal_headers(job_id, spec.headers) if spec.headers else None,
        marks=vault.marks(spec.fingerprint),
    )


def create(
    cx: sqlite3.Connection,
    owner: int,
    drafts: Sequence[Draft],
    now: datetime,
    *,
    quota: Quota,
) -> tuple[Created, ...]:
    """Make jobs, all or none.

    Raises:
        Conflict: `id_used`, `too_many_jobs`, `queue_full`, `job_empty`, `duplicate_destination`.
    """
    with storing(cx, owner, "make another job", quota):
        places = next_positions(cx, len(drafts))
        taken = _Taken(cx, owner, [each.id for each in drafts])
        created = tuple(
            _create(cx, taken, each, place, now) for each, place in zip(drafts, places, strict=True)
        )
    new = sum(each.new for each in created)
    if new:
        check_jobs(cx, owner, new, quota)
        check_bytes(cx, owner, "make another job", quota)
    return created


def unmade(
    cx: sqlite3.Connection, owner: int, asked: Sequence[tuple[JobSpec, tuple[bytes, ...]]]
) -> tuple[JobSpec, ...]:
    """Return the specs, given with their marks, that no job was made of.

    Raises:
        Conflict: `id_used`.
    """
    taken = _Taken(cx, owner, [spec.id for spec, _ in asked if spec.id is not None])
    return tuple(
        spec for spec, marks in asked if spec.id is None or taken.made(spec.id, marks) is None
    )


class _Taken:
    """Which of some ids jobs have, or had."""

    def __init__(self, cx: sqlite3.Connection, owner: int, ids: Sequence[JobId]) -> None:
        self.owner = owner
        self._jobs: dict[str, tuple[int, int, bytes]] = {}
        self._ended: dict[str, int] = {}
        rows = cx.execute(
            """
            SELECT job_ids.id, jobs.number, jobs.owner, jobs.fingerprint, ended.owner AS former
            FROM job_ids
            LEFT JOIN jobs ON jobs.number = job_ids.job
            LEFT JOIN ended ON ended.number = job_ids.job
            WHERE job_ids.id IN (SELECT value FROM json_each(?))
            """,
            [listed(ids)],
        )
        for row in rows:
            if row["number"] is None:
                self._ended[row["id"]] = row["former"]
            else:
                self._jobs[row["id"]] = row["number"], row["owner"], row["fingerprint"]

    def made(self, job_id: JobId, marks: Sequence[bytes]) -> int | None:
        """Return the number of the job that the same request has made; None: the id is free.

        Raises:
            Conflict: `id_used`.
        """
        known, ended = self._jobs.get(job_id), self._ended.get(job_id)
        if known is not None:
            number, owner, fingerprint = known
            if owner != self.owner or fingerprint not in marks:
                raise _used(job_id)
            return number
        if ended == self.owner:
            raise Conflict(
                "id_used", f"cannot make job {job_id}: it has left the queue; choose another id"
            )
        if ended is not None:
            raise _used(job_id)
        return None

    def take(self, job_id: JobId, number: int, mark: bytes) -> None:
        """Note that a job has been made."""
        self._jobs[job_id] = (number, self.owner, mark)


def _used(job_id: JobId) -> Conflict:
    # Of another user's job nothing is told but this, whether it is still there or not.
    return Conflict(
        "id_used", f"cannot make job {job_id}: another request has used this id; choose one"
    )


def _create(
    cx: sqlite3.Connection, taken: _Taken, each: Draft, place: int, now: datetime
) -> Created:
    known = taken.made(each.id, each.marks)
    if known is not None:
        return Created(job=load(cx, known), new=False)
    if each.spec.start and not each.spec.files:
        raise Conflict("job_empty", "cannot start a job without files; add one first")
    job = _new(taken.owner, each, now)
    taken.take(job.id, _insert(cx, job, each, place), each.marks[0])
    return Created(job=job, new=True)


def _new(owner: int, each: Draft, now: datetime) -> Job:
    """Return the job that is made of a draft."""
    spec, state = each.spec, JobState.SUSPENDED
    if spec.start:
        state = advance(state, JobEvent.RESUME)
    users = {(c.target, c.scheme): c.username for c in each.credentials}
    return Job(
        id=each.id,
        owner=owner,
        type=spec.type,
        settings=spec.settings,
        state=state,
        files_total=len(spec.files),
        files_transferred=0,
        bytes_total=None if spec.files else 0,
        bytes_transferred=0,
        credentials=tuple(
            CredentialLabel(target=target, scheme=scheme, username=users[target, scheme])
            for target, scheme in sorted(users)
        ),
        error=None,
        error_count=0,
        created=now,
        modified=now,
        transferred_at=None,
    )


def _insert(cx: sqlite3.Connection, job: Job, each: Draft, place: int) -> int:
    spec, made = each.spec, microseconds(job.created)
    row = cx.execute(
        """
        INSERT INTO jobs (id, owner, fingerprint, type, state, priority, cost, position,
                          settings, files_total, sizes_unknown, created, modified, weight)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?11, ?12)
        """,
        [
            *(job.id, job.owner, each.marks[0], job.type, job.state, job.settings.priority),
            *(job.settings.cost, place, text_of(job.settings), job.files_total, made),
            JOB_BYTES + weight_of(spec.files),
        ],
    ).lastrowid
    number = int(row or 0)
    append_files(cx, number, 0, spec.files)
    if each.credentials:
        put_credentials(cx, number, each.credentials)
    if each.headers is not None:
        put_headers(cx, number, each.headers)
    return number


def next_positions(cx: sqlite3.Connection, count: int) -> range:
    """Give the next places at the end of the queue."""
    query = "UPDATE positions SET last = last + ? RETURNING last"
    (last,) = cx.execute(query, [count]).fetchone()
    return range(last - count + 1, last + 1)


def find(cx: sqlite3.Connection, job_id: JobId) -> int:
    """Return a job's number.

    Raises:
        NotFound: `job_not_found`.
    """
    row = cx.execute(f"SELECT number FROM jobs {_BY_ID}", [job_id]).fetchone()  # noqa: S608 - as it is
    if row is None:
        raise job_not_found(job_id)
    return int(row["number"])


def rows_of(cx: sqlite3.Connection, job_ids: Sequence[JobId]) -> dict[str, Row]:
    """Return the rows of those jobs that are there, as SELECT_JOB reads them."""
    return {row["id"]: row for row in cx.execute(SELECT_JOB + _BY_IDS, [listed(job_ids)])}


def load(cx: sqlite3.Connection, number: int) -> Job:
    """Return the job with a number that is known to be there."""
    return job_of(cx.execute(SELECT_JOB + "WHERE number = ?", [number]).fetchone())
