"""What may be said of a job, as keyword arguments; the names and meanings are the socket's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import msgspec

from transferd.wire.api import CredentialBody, FileBody, JobBody, NotifyBody


class JobChanges(TypedDict, total=False):
    """Settings that can be changed while the job lives."""

    name: str
    description: str
    #: `foreground`, `high`, `normal` or `low`
    priority: str
    auto_complete: bool
    #: `keep` or `cancel`
    on_error: str
    overwrite: bool
    allow_cleartext: bool
    cacert: str | os.PathLike[str] | None
    proxy: str | None
    max_size: int | None
    streams: int | None
    #: Seconds
    min_retry_delay: float
    no_progress_timeout: float
    max_download_time: float


class JobOptions(TypedDict, total=False):
    """Everything but its name that can be said of a new job."""

    #: A UUID of the caller's choice: the same request made again gives the same job.
    id: str
    description: str
    priority: str
    files: Sequence[FileBody]
    credentials: Sequence[CredentialBody]
    headers: Mapping[str, str]
    notify: NotifyBody
    auto_complete: bool
    on_error: str
    overwrite: bool
    allow_cleartext: bool
    cacert: str | os.PathLike[str] | None
    proxy: str | None
    max_size: int | None
    streams: int | None
    min_retry_delay: float
    no_progress_timeout: float
    max_download_time: float
    start: bool


def absolute(local: str | os.PathLike[str]) -> str:
    """Resolve `~` and a relative path, as the daemon cannot; symbolic links stay."""
    return os.path.abspath(os.path.expanduser(os.fspath(local)))


def resolved(body: JobBody) -> JobBody:
    """Return *body* with every local path absolute."""
    return msgspec.structs.replace(
        body,
        files=resolved_files(body.files),
        cacert=None if body.cacert is None else absolute(body.cacert),
    )


def resolved_files(files: Iterable[FileBody]) -> list[FileBody]:
    """Return *files* with every local path absolute."""
    return [msgspec.structs.replace(file, local=absolute(file.local)) for file in files]
