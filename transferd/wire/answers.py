"""What the service holds → answers of the socket API. No answer has room for a secret."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from transferd.model.credentials import NegotiateOptions, PassportOptions
from transferd.model.failures import Failure
from transferd.model.job import Blocker, File, Job, JobId, Seconds
from transferd.model.notices import Gap, Notice, NoticeKind, kind_labels
from transferd.model.paths import temporary_path
from transferd.wire.api import (
    BlockerAnswer,
    CredentialAnswer,
    ErrorAnswer,
    FileAnswer,
    GapAnswer,
    JobAnswer,
    NegotiateAnswer,
    NoticeAnswer,
    NotifyAnswer,
    OwnerAnswer,
    PassportAnswer,
)


# What happens at once is told of in many answers.
@functools.lru_cache(maxsize=64)
def rfc3339(moment: datetime) -> str:
    """Write a time in UTC, with milliseconds (RFC 3339)."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


def blocker_answer(blocker: Blocker) -> BlockerAnswer:
    """Tell one reason why a job does not move."""
    return BlockerAnswer(
        code=blocker.code,
        text=blocker.text,
        since=_time(blocker.since),
        until=_time(blocker.until),
        remedy=blocker.remedy,
    )


def file_answer(job_id: JobId, file: File) -> FileAnswer:
    """Tell of a file."""
    checksum = file.spec.checksum
    return FileAnswer(
        index=file.index,
        remote=file.spec.remote,
        local=file.spec.local,
        temporary=temporary_path(file.spec.local, job_id),
        checksum=str(checksum) if checksum is not None else None,
        bytes_total=file.bytes_total,
        bytes_transferred=file.bytes_covered,
        completed=file.completed,
        length_unverified=file.length_unverified,
    )


def gap_answer(gap: Gap) -> GapAnswer:
    """Tell that notices are lost to this listener."""
    return GapAnswer(after=gap.after, oldest=gap.oldest)


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes answers that need more than what they tell of."""

    #: Names a uid.
    owner_name: Callable[[int], str]
    #: The wall-clock time of a moment on the steady clock.
    wall_time: Callable[[Seconds], datetime]

    def job(self, job: Job, blockers: Iterable[Blocker]) -> JobAnswer:
        """Tell of a job and of what keeps it from moving."""
        settings = job.settings
        return JobAnswer(
            id=job.id,
            name=settings.name,
            description=settings.description,
            type=job.type.value,
            priority=settings.priority.label,
            cost=settings.cost.label,
            state=job.state.label,
            owner=OwnerAnswer(uid=job.owner, name=self.owner_name(job.owner)),
            files_total=job.files_total,
            files_transferred=job.files_transferred,
            bytes_total=job.bytes_total,
            bytes_transferred=job.bytes_transferred,
            error=_error(job.error) if job.error is not None else None,
            error_count=job.error_count,
            credentials=[
                CredentialAnswer(
                    target=label.target.value, scheme=label.scheme.value, username=label.username
                )
                for label in job.credentials
            ],
            headers=list(settings.header_names),
            notify=NotifyAnswer(
                kinds=list(_kinds(settings.notify_kinds)),
                command=list(settings.notify_command) if settings.notify_command else None,
            ),
            auto_complete=settings.auto_complete,
            on_error=settings.on_error.value,
            overwrite=settings.overwrite,
            allow_cleartext=settings.allow_cleartext,
            cacert=settings.cacert,
            proxy=settings.proxy,
            negotiate=_negotiate(settings.negotiate),
            passport=_passport(settings.passport),
            max_size=settings.max_size,
            max_rate=settings.max_rate,
            streams=settings.streams,
            min_retry_delay=settings.timers.min_retry_delay,
            no_progress_timeout=settings.timers.no_progress_timeout,
            max_download_time=settings.timers.max_download_time,
            created=rfc3339(job.created),
            modified=rfc3339(job.modified),
            transferred_at=_time(job.transferred_at),
            retry_at=_time(self.wall_time(job.retry_at) if job.retry_at is not None else None),
            blockers=[blocker_answer(blocker) for blocker in blockers],
        )

    def notice(self, notice: Notice, blockers: Iterable[Blocker]) -> NoticeAnswer:
        """Tell of a notice."""
        return NoticeAnswer(
            number=notice.number,
            kind=notice.kind.label,
            job=self.job(notice.job, blockers),
            file=notice.file,
            created=rfc3339(notice.created),
            acknowledge=notice.kind.terminal and not notice.settled,
            deliveries=notice.deliveries,
        )

    def modification(self, job: Job, blockers: Iterable[Blocker]) -> NoticeAnswer:
        """Tell that a job changed; such a notice is not stored and has no number."""
        return NoticeAnswer(
            number=None,
            kind=NoticeKind.MODIFICATION.label,
            job=self.job(job, blockers),
            file=None,
            created=rfc3339(job.modified),
            acknowledge=False,
            deliveries=0,
        )


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


# Most jobs have the same ones.
@functools.lru_cache(maxsize=64)
def _kinds(kinds: int) -> tuple[str, ...]:
    return tuple(kind_labels(NoticeKind(kinds)))


@functools.lru_cache(maxsize=64)
def _negotiate(options: NegotiateOptions) -> NegotiateAnswer:
    return NegotiateAnswer(**dataclasses.asdict(options))


@functools.lru_cache(maxsize=64)
def _passport(options: PassportOptions) -> PassportAnswer:
    return PassportAnswer(**dataclasses.asdict(options))


def _error(failure: Failure) -> ErrorAnswer:
    kind = failure.kind
    return ErrorAnswer(
        code=failure.code,
        context=kind.context.value,
        message=failure.message,
        http_status=failure.http_status,
        file=failure.file,
        transient=kind.transient,
        missing=list(failure.missing),
    )
