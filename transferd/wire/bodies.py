"""Bodies of requests to the socket API, as they stand in JSON: they refuse unknown fields."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from transferd.model.choices import Cost, JobType, NoticeKind, OnError, Priority, Scheme, Target
from transferd.model.limits import LEAST_RATE, MOST_STREAMS


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Root of request bodies."""


# What the schema tells beside the type; the checks of model/checks.py decide.
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Name = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]
Remote = Annotated[str, Meta(extra_json_schema={"format": "uri", "pattern": "^https?://"})]
AbsolutePath = Annotated[str, Meta(extra_json_schema={"pattern": "^/"})]
ChecksumText = Annotated[str, Meta(extra_json_schema={"pattern": "^[a-z0-9_]+:[0-9a-f]+$"})]
TypeName = Annotated[str, Meta(extra_json_schema={"enum": [kind.value for kind in JobType]})]
PriorityName = Annotated[str, Meta(extra_json_schema={"enum": [level.label for level in Priority]})]
CostName = Annotated[str, Meta(extra_json_schema={"enum": [cost.label for cost in Cost]})]
OnErrorName = Annotated[str, Meta(extra_json_schema={"enum": [choice.value for choice in OnError]})]
KindName = Annotated[str, Meta(extra_json_schema={"enum": [kind.label for kind in NoticeKind]})]
TargetName = Annotated[str, Meta(extra_json_schema={"enum": [target.value for target in Target]})]
SchemeName = Annotated[str, Meta(extra_json_schema={"enum": [scheme.value for scheme in Scheme]})]
Password = Annotated[str, Meta(extra_json_schema={"format": "password", "writeOnly": True})]


class FileBody(Body, kw_only=True):
    """A file to transfer."""

    remote: Remote
    local: AbsolutePath
    #: `algorithm:hex`
    checksum: ChecksumText | None = None

    def __repr__(self) -> str:
        # The URL may still hold a password.
        return f"FileBody(local={self.local!r})"


class FilesBody(Body, kw_only=True):
    """Several files, all or nothing."""

    files: list[FileBody]


class CredentialBody(Body, kw_only=True):
    """A credential of a new job; without user and password the owner's own, for negotiate only."""

    target: TargetName = "server"
    scheme: SchemeName
    username: str | None = None
    password: Password | None = None

    def __rich_repr__(self) -> Any:
        yield self.scheme

    def __repr__(self) -> str:
        return f"CredentialBody(target={self.target!r}, scheme={self.scheme!r})"


class IdentityBody(Body, kw_only=True):
    """User and password, or neither; target and scheme stand in the path."""

    username: str | None = None
    password: Password | None = None

    def __repr__(self) -> str:
        return "IdentityBody(…)"


class NegotiateBody(Body, kw_only=True):
    """How Negotiate is spoken; null is the default."""

    #: `HTTP/host` or `host`: the server's service, if it is not the one of the URL.
    spn: str | UnsetType | None = UNSET
    #: The same for the proxy.
    proxy_spn: str | UnsetType | None = UNSET
    #: Holds the owner's keys, for a credential without a password.
    keytab: AbsolutePath | UnsetType | None = UNSET
    #: Who to be, of those in the keytab or the ticket cache.
    principal: str | UnsetType | None = UNSET
    #: `FILE:`, `DIR:`, `KCM:`, `KEYRING:` or an absolute path; default: the owner's own cache.
    ccache: str | UnsetType | None = UNSET
    #: Let NTLM be spoken inside Negotiate where Kerberos cannot.
    ntlm: bool | UnsetType | None = UNSET


class PassportBody(Body, kw_only=True):
    """Whom Passport trusts; null is the default, which the daemon's configuration may set."""

    #: Where the login server's address is asked for; https, or http to this machine.
    configuration_url: Remote | UnsetType | None = UNSET
    #: The only `host` or `host:port` that is ever sent the password.
    login_host: str | UnsetType | None = UNSET
    #: The realm that the login server must name.
    realm: str | UnsetType | None = UNSET


class NotifyBody(Body, kw_only=True):
    """Who is told of what."""

    kinds: list[KindName] = msgspec.field(default_factory=lambda: ["transferred", "error"])
    command: list[str] | None = None


Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Rate = Annotated[int, Meta(ge=LEAST_RATE, le=2**63 - 1)]
Streams = Annotated[int, Meta(ge=1, le=MOST_STREAMS)]


class JobBody(Body, kw_only=True):
    """A job to create."""

    name: Name
    id: Uuid | None = None
    type: TypeName = "download"
    description: str = ""
    priority: PriorityName = "normal"
    cost: CostName = "default"
    files: list[FileBody] = msgspec.field(default_factory=list)
    credentials: list[CredentialBody] = msgspec.field(default_factory=list)
    #: Name → value; sealed like passwords, and never readable.
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    notify: NotifyBody = msgspec.field(default_factory=NotifyBody)
    auto_complete: bool = False
    on_error: OnErrorName = "keep"
    overwrite: bool = True
    allow_cleartext: bool = False
    cacert: AbsolutePath | None = None
    proxy: str | None = None
    negotiate: NegotiateBody = msgspec.field(default_factory=NegotiateBody)
    passport: PassportBody = msgspec.field(default_factory=PassportBody)
    max_size: Count | None = None
    #: Bytes a second.
    max_rate: Rate | None = None
    streams: Streams | None = None
    min_retry_delay: Seconds | None = None
    no_progress_timeout: Seconds | None = None
    max_download_time: Seconds | None = None
    start: bool = False

    def __repr__(self) -> str:
        return f"JobBody(name={self.name!r})"


class JobsBody(Body, kw_only=True):
    """Several jobs to create, all or none."""

    jobs: list[JobBody]


class JobPatch(Body, kw_only=True):
    """Changes to a job; what is not named stays."""

    name: Name | UnsetType = UNSET
    description: str | UnsetType = UNSET
    priority: PriorityName | UnsetType = UNSET
    cost: CostName | UnsetType = UNSET
    notify: NotifyBody | UnsetType = UNSET
    auto_complete: bool | UnsetType = UNSET
    on_error: OnErrorName | UnsetType = UNSET
    overwrite: bool | UnsetType = UNSET
    allow_cleartext: bool | UnsetType = UNSET
    cacert: AbsolutePath | UnsetType | None = UNSET
    proxy: str | UnsetType | None = UNSET
    #: The members that are named change; null puts all of them back.
    negotiate: NegotiateBody | UnsetType | None = UNSET
    passport: PassportBody | UnsetType | None = UNSET
    max_size: Count | UnsetType | None = UNSET
    max_rate: Rate | UnsetType | None = UNSET
    streams: Streams | UnsetType | None = UNSET
    min_retry_delay: Seconds | UnsetType = UNSET
    no_progress_timeout: Seconds | UnsetType = UNSET
    max_download_time: Seconds | UnsetType = UNSET

    def __repr__(self) -> str:
        # The proxy may still hold a password.
        return "JobPatch(…)"


NoticeNumber = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: Notices that one request may acknowledge.
MOST_NOTICES = 1000


class AcknowledgementBody(Body, kw_only=True):
    """Notices that were dealt with."""

    numbers: Annotated[list[NoticeNumber], Meta(min_length=1, max_length=MOST_NOTICES)]
