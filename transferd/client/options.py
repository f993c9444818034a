"""What may be said of a job, as keyword arguments; the names and meanings are the socket's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

import msgspec

from transferd.model.credentials import NegotiateOptions, PassportOptions
from transferd.wire.bodies import (
    CredentialBody,
    FileBody,
    JobBody,
    NegotiateBody,
    NotifyBody,
    PassportBody,
)

#: Some members of NegotiateOptions or PassportOptions; None is the default of a member.
Members: TypeAlias = Mapping[str, str | bool | None]


class JobChanges(TypedDict, total=False):
    """Settings that can be changed while the job lives."""

    name: str
    description: str
    #: `foreground`, `high`, `normal` or `low`
    priority: str
    #: `default`, `unrestricted`, `standard`, `no_surcharge`, `not_roaming` or `always`
    cost: str
    auto_complete: bool
    #: `keep` or `cancel`
    on_error: str
    overwrite: bool
    allow_cleartext: bool
    cacert: str | os.PathLike[str] | None
    proxy: str | None
    #: All options, or those members that shall change; None puts all of them back.
    negotiate: NegotiateOptions | Members | None
    passport: PassportOptions | Members | None
    max_size: int | None
    #: Bytes a second
    max_rate: int | None
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
    cost: str
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
    negotiate: NegotiateOptions | Members
    passport: PassportOptions | Members
    max_size: int | None
    #: Bytes a second
    max_rate: int | None
    streams: int | None
    min_retry_delay: float
    no_progress_timeout: float
    max_download_time: float
    start: bool


def absolute(local: str | os.PathLike[str]) -> str:
    """Resolve `~` and a relative path, as the daemon cannot; symbolic links stay."""
    return os.path.abspath(os.path.expanduser(os.fspath(local)))


def fields_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as fields of a body, with every local path absolute.

    Raises:
        TypeError: `negotiate` or `passport` has no such member.
    """
    fields = dict(said)
    if fields.get("cacert") is not None:
        fields["cacert"] = absolute(fields["cacert"])
    if fields.get("negotiate") is not None:
        fields["negotiate"] = _resolved_negotiate(NegotiateBody(**_members(fields["negotiate"])))
    if fields.get("passport") is not None:
        fields["passport"] = PassportBody(**_members(fields["passport"]))
    return fields


def _members(options: NegotiateOptions | PassportOptions | Members) -> dict[str, Any]:
    if isinstance(options, NegotiateOptions | PassportOptions):
        return dataclasses.asdict(options)
    return dict(options)


def resolved(body: JobBody) -> JobBody:
    """Return *body* with every local path absolute."""
    return msgspec.structs.replace(
        body,
        files=resolved_files(body.files),
        cacert=None if body.cacert is None else absolute(body.cacert),
        negotiate=_resolved_negotiate(body.negotiate),
    )


def _resolved_negotiate(body: NegotiateBody) -> NegotiateBody:
    return msgspec.structs.replace(
        body,
        keytab=absolute(body.keytab) if body.keytab else body.keytab,
        ccache=_absolute_cache(body.ccache) if body.ccache else body.ccache,
    )


def _absolute_cache(name: str) -> str:
    """Resolve the path in the name of a ticket cache, where it is one."""
    kind, colon, rest = name.partition(":")
    if not colon:
        return absolute(name)
    if kind not in ("FILE", "DIR") or rest.startswith(":"):  # DIR::/path is one of several
        return name
    return f"{kind}:{absolute(rest)}"


def resolved_files(files: Iterable[FileBody]) -> list[FileBody]:
    """Return *files* with every local path absolute."""
    return [msgspec.structs.replace(file, local=absolute(file.local)) for file in files]
