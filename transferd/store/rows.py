"""Rows of the queue file as model values, and back."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, TypeVar

import msgspec

from transferd.model.credentials import CredentialLabel, Scheme, Target
from transferd.model.errors import StoreDamaged
from transferd.model.failures import Failure
from transferd.model.job import (
    Checksum,
    File,
    FileSpec,
    Inode,
    Job,
    JobId,
    JobType,
    Part,
    Settings,
    Validator,
)
from transferd.model.notices import Notice, NoticeKind
from transferd.model.states import JobState
from transferd.store.faults import PUT_BACK

T = TypeVar("T")
Row: TypeAlias = sqlite3.Row

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UNSIGNED: Final = 1 << 64
_SIGN: Final = 1 << 63

_encode = msgspec.json.Encoder().encode
#: Jobs that are made together have the same ones, mostly; and each job is read several times.
_settings = functools.lru_cache(maxsize=256)(msgspec.json.Decoder(Settings).decode)
_failure = msgspec.json.Decoder(Failure).decode
_validator = msgspec.json.Decoder(Validator).decode
_parts = msgspec.json.Decoder(tuple[Part, ...]).decode
_job = msgspec.json.Decoder(Job).decode
_labels = msgspec.json.Decoder(list[tuple[str, str, str | None]]).decode

#: A page has no more rows when their texts have so many characters: whoever asks for many long ones
#: keeps neither others waiting nor much memory.
_PAGE_CHARS: Final = 256 * 1024

#: Begins every query that job_of reads.
SELECT_JOB: Final = """
SELECT id, owner, type, settings, state, files_total, files_transferred, sizes_unknown,
       bytes_known, bytes_transferred, error, error_count, created, modified, transferred_at,
       attempts, retry_at, retry_delay, retry_here, active_seconds, stuck_seconds,
       (SELECT json_group_array(json_array(target, scheme, username))
        FROM credentials WHERE job = jobs.number) AS labels,
       number
FROM jobs
"""
#: Begins every query that file_of reads.
SELECT_FILE: Final = """
SELECT file, remote, local, checksum, total, offset, parts, validator, device, inode, born,
       completed, published, length_unverified, job
FROM files
"""
#: Begins every query that notice_of reads.
SELECT_NOTICE: Final = """
SELECT number, kind, owner, snapshot, file, created, settled, deliveries
FROM notices
"""


def take_page(rows: Iterable[Row], limit: int, chars: int = _PAGE_CHARS) -> tuple[list[Row], bool]:
    """Take the rows of one page, *limit* at most, and fewer where they have more than *chars*.

    Returns: the rows, at least one where there is one; and whether others are left.
    """
    taken: list[Row] = []
    for row in rows:
        if len(taken) == limit or chars < 0:
            return taken, True
        taken.append(row)
        chars -= sum(len(value) for value in row if isinstance(value, str))
    return taken, False


def microseconds(moment: datetime) -> int:
    """Return an aware time as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(number: int) -> datetime:
    """Return the UTC time of a number of microseconds since the epoch."""
    return _EPOCH + number * _MICROSECOND


def text_of(value: Settings | Failure | Validator | tuple[Part, ...] | Job) -> str:
    """Return a value as the JSON that is kept of it."""
    return _encode(value).decode()


def listed(values: Iterable[int | str]) -> str:
    """Return values as the JSON that `json_each` takes apart: one statement serves all of them.

    Between any two statements the other threads of the interpreter have their turn, so that a group
    of jobs is read and written by few of them.
    """
    return _encode(list(values)).decode()


def signed(number: int) -> int:
    """Return an unsigned number of 64 bits as SQLite's signed one."""
    return number - _UNSIGNED if number >= _SIGN else number


def _unsigned(number: int) -> int:
    return number % _UNSIGNED


def job_of(row: Row) -> Job:
    """Read a row of SELECT_JOB."""
    return _reading("job", row, _job_of)


def file_of(row: Row) -> File:
    """Read a row of SELECT_FILE."""
    return _reading("file", row, _file_of)


def notice_of(row: Row) -> Notice:
    """Read a row of SELECT_NOTICE."""
    return _reading("notice", row, _notice_of)


def _reading(what: str, row: Row, read: Callable[[Row], T]) -> T:
    try:
        return read(row)
    except (ValueError, TypeError, sqlite3.Error) as error:
        # msgspec's errors are ValueErrors. SQLite's own checks do not look inside a text.
        raise StoreDamaged(
            f"cannot read {what} {row[0]} in the queue file: its row is damaged; {PUT_BACK}"
        ) from error


def _job_of(row: Row) -> Job:
    error, transferred_at = row["error"], row["transferred_at"]
    return Job(
        id=JobId(row["id"]),
        owner=row["owner"],
        type=JobType(row["type"]),
        settings=_settings(row["settings"]),
        state=JobState(row["state"]),
        files_total=row["files_total"],
        files_transferred=row["files_transferred"],
        bytes_total=None if row["sizes_unknown"] else row["bytes_known"],
        bytes_transferred=row["bytes_transferred"],
        credentials=tuple(
            CredentialLabel(target=Target(target), scheme=Scheme(scheme), username=username)
            for target, scheme, username in _labels(row["labels"])
        ),
        error=None if error is None else _failure(error),
        error_count=row["error_count"],
        created=moment_of(row["created"]),
        modified=moment_of(row["modified"]),
        transferred_at=None if transferred_at is None else moment_of(transferred_at),
        attempts=row["attempts"],
        retry_at=row["retry_at"],
        retry_delay=row["retry_delay"],
        retry_here=bool(row["retry_here"]),
        active_seconds=row["active_seconds"],
        stuck_seconds=row["stuck_seconds"],
    )


def _file_of(row: Row) -> File:
    validator, inode = row["validator"], row["inode"]
    return File(
        index=row["file"],
        spec=FileSpec(
            remote=row["remote"], local=row["local"], checksum=_checksum(row["checksum"])
        ),
        bytes_total=row["total"],
        bytes_transferred=row["offset"],
        parts=parts_of(row),
        validator=None if validator is None else _validator(validator),
        inode=(
            None
            if inode is None
            else Inode(device=_unsigned(row["device"]), number=_unsigned(inode), born=row["born"])
        ),
        completed=bool(row["completed"]),
        published=bool(row["published"]),
        length_unverified=bool(row["length_unverified"]),
    )


def parts_of(row: Row) -> tuple[Part, ...]:
    """Read what a row has in its column `parts`; its first column is its number."""
    return () if row["parts"] is None else _reading("file", row, _parts_of)


def _parts_of(row: Row) -> tuple[Part, ...]:
    return _parts(row["parts"])


def _checksum(text: str | None) -> Checksum | None:
    if text is None:
        return None
    algorithm, _, digest = text.partition(":")
    return Checksum(algorithm=algorithm, digest=digest)


def _notice_of(row: Row) -> Notice:
    job = _job(row["snapshot"])
    return Notice(
        number=row["number"],
        kind=NoticeKind(row["kind"]),
        owner=row["owner"],
        job_id=job.id,
        job=job,
        file=row["file"],
        created=moment_of(row["created"]),
        settled=bool(row["settled"]),
        deliveries=row["deliveries"],
    )
