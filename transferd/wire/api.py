"""What the socket API answers, as it stands in JSON; no field of it could hold a secret."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class OwnerAnswer(Struct, kw_only=True):
    """Whose job it is."""

    uid: int
    name: str


class ErrorAnswer(Struct, kw_only=True):
    """Why the job was interrupted last."""

    code: str
    context: str
    message: str
    http_status: int | None
    file: str | None
    #: Whether the service tries again by itself.
    transient: bool
    #: The schemes of which credentials would do, strongest first, where none of them is set.
    missing: list[str]


class CredentialAnswer(Struct, kw_only=True):
    """A credential without its secret; without a user it is the owner's own identity."""

    target: str
    scheme: str
    username: str | None


class NegotiateAnswer(Struct, kw_only=True):
    """How Negotiate is spoken; null is the default."""

    spn: str | None
    proxy_spn: str | None
    keytab: str | None
    principal: str | None
    ccache: str | None
    ntlm: bool


class PassportAnswer(Struct, kw_only=True):
    """Whom Passport trusts, as the job says; null is what the daemon's configuration says."""

    configuration_url: str | None
    login_host: str | None
    realm: str | None


class NotifyAnswer(Struct, kw_only=True):
    """Who is told of what."""

    kinds: list[str]
    command: list[str] | None


class BlockerAnswer(Struct, kw_only=True):
    """One reason why a job does not move. Times are RFC 3339."""

    code: str
    text: str
    since: Moment | None
    until: Moment | None
    remedy: str


class BlockersAnswer(Struct, kw_only=True):
    """All reasons; empty when the job moves or has nothing to do."""

    blockers: list[BlockerAnswer]


class JobAnswer(Struct, kw_only=True):
    """A job. Times are RFC 3339."""

    id: str
    name: str
    description: str
    type: str
    priority: str
    cost: str
    state: str
    owner: OwnerAnswer
    files_total: int
    files_transferred: int
    bytes_total: int | None
    bytes_transferred: int
    error: ErrorAnswer | None
    error_count: int
    credentials: list[CredentialAnswer]
    #: Names only.
    headers: list[str]
    notify: NotifyAnswer
    auto_complete: bool
    on_error: str
    overwrite: bool
    allow_cleartext: bool
    cacert: str | None
    proxy: str | None
    negotiate: NegotiateAnswer
    passport: PassportAnswer
    max_size: int | None
    #: Bytes a second.
    max_rate: int | None
    streams: int | None
    min_retry_delay: float
    no_progress_timeout: float
    max_download_time: float
    created: Moment
    modified: Moment
    transferred_at: Moment | None
    retry_at: Moment | None
    blockers: list[BlockerAnswer]


class JobsAnswer(Struct, kw_only=True):
    """A page of jobs, oldest first; `next` goes into `after` for the next page."""

    jobs: list[JobAnswer]
    next: str | None


class FileAnswer(Struct, kw_only=True):
    """A file of a job."""

    index: int
    remote: str
    local: str
    temporary: str
    checksum: str | None
    bytes_total: int | None
    bytes_transferred: int
    completed: bool
    length_unverified: bool


class FilesAnswer(Struct, kw_only=True):
    """A page of files, in order."""

    files: list[FileAnswer]
    next: str | None


class NoticeAnswer(Struct, kw_only=True):
    """A notice; `number` is null for modification, which is not stored."""

    number: int | None
    kind: str
    #: As it was when this happened.
    job: JobAnswer
    file: int | None
    created: Moment
    #: Whether it is delivered again until somebody acknowledges it.
    acknowledge: bool
    deliveries: int


class UnsettledAnswer(Struct, kw_only=True):
    """A notice that could not be acknowledged, and what its own request would have answered."""

    number: int
    status: int
    code: str
    detail: str


class AcknowledgementAnswer(Struct, kw_only=True):
    """What has become of notices, each by itself."""

    #: These are not delivered again.
    settled: list[int]
    refused: list[UnsettledAnswer]


class GapAnswer(Struct, kw_only=True):
    """Notices between the two numbers are not available any more: read the list of jobs."""

    after: int
    oldest: int


class Problem(Struct, kw_only=True):
    """An error (RFC 9457); `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class HealthAnswer(Struct, kw_only=True):
    """How the service is."""

    status: str
    jobs: dict[str, int]
    workers: int


class VersionAnswer(Struct, kw_only=True):
    """What the service is."""

    name: str
    version: str
    api: str
    #: `kerberos` is among them where Negotiate can speak it.
    features: list[str]
    #: Every scheme that credentials can be set for.
    schemes: list[str]
