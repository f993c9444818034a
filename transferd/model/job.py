"""Jobs and files: what a client asks for (…Spec, Settings) and what the queue holds (Job, File).

A wish is not a record: a spec has no id, no state and may hold secrets; a record always has every
field and holds none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NewType

from transferd.model.choices import Cost as Cost
from transferd.model.choices import JobType as JobType
from transferd.model.choices import OnError as OnError
from transferd.model.choices import Priority as Priority
from transferd.model.credentials import (
    Credential,
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Secret,
)
from transferd.model.failures import Failure
from transferd.model.states import JobState
from transferd.model.units import Seconds as Seconds

#: A UUID in its canonical lower-case form.
JobId = NewType("JobId", str)

#: Digests that can be expected of a file, by hashlib's name, with their length in bytes. The broken
#: ones stay: they still catch damage, and many servers publish nothing better.
CHECKSUM_ALGORITHMS: Mapping[str, int] = MappingProxyType(
    {
        "md5": 16,
        "sha1": 20,
        "sha224": 28,
        "sha256": 32,
        "sha384": 48,
        "sha512": 64,
        "sha3_224": 28,
        "sha3_256": 32,
        "sha3_384": 48,
        "sha3_512": 64,
        "blake2b": 64,
        "blake2s": 32,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """The expected digest of a whole file."""

    #: A key of CHECKSUM_ALGORITHMS.
    algorithm: str
    #: Lower-case hexadecimal.
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """One file to transfer."""

    #: http or https URL, already escaped, without userinfo.
    remote: str
    #: Absolute path of the final name.
    local: str
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """What identifies one version of a remote file, as the server sent it (RFC 9110 8.8)."""

    etag: str | None = None
    last_modified: str | None = None
    #: The Date of the response that carried them; decides whether last_modified is strong.
    date: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """Which file a partial file is, so that another one under its name is recognised."""

    device: int
    number: int
    #: When the file was made, in nanoseconds; None where the file system does not keep it. Numbers
    #: are used again, and by others where they may write.
    born: int | None = None

    def same(self, other: Inode) -> bool:
        """Whether both are the same file, as far as that is known.

        The device is left out: btrfs, overlayfs, NFS and device-mapper number theirs anew at each
        mount, so that after a reboot no file would be the recorded one.
        """
        births = {self.born, other.born} - {None}
        return self.number == other.number and len(births) < 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file that are on disk for sure, behind a hole: from *start* to *end*, excluded."""

    start: int
    end: int


def covered(offset: int, parts: Iterable[Part]) -> int:
    """Return how many bytes the first *offset* ones of a file and its parts are together."""
    return offset + sum(part.end - part.start for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a job, as the queue holds it."""

    index: int
    spec: FileSpec
    #: None while the server has not said.
    bytes_total: int | None = None
    #: Bytes at the beginning that are on disk for sure.
    bytes_transferred: int = 0
    #: Others that are, of the same version: in order, apart from each other and from those at the
    #: beginning. There are some only of a file that was fetched in several ranges at once.
    parts: tuple[Part, ...] = ()
    #: Under which version those bytes were fetched; always there when bytes_transferred > 0
    #: and the version can be recognised again.
    validator: Validator | None = None
    inode: Inode | None = None
    #: Whole and verified, under its temporary name or, once the job is completed, its own.
    completed: bool = False
    #: Moved to its final name.
    published: bool = False
    #: The server named no length and no checksum was expected: the end could not be checked.
    length_unverified: bool = False

    @property
    def bytes_covered(self) -> int:
        """All bytes that are on disk for sure."""
        return covered(self.bytes_transferred, self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """When to try again and when to give up."""

    min_retry_delay: Seconds
    #: 0: every failure is fatal at once.
    no_progress_timeout: Seconds
    #: Of active time; 0: no limit.
    max_download_time: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the owner chooses and may change while the job lives. Holds no secret."""

    name: str
    timers: Timers
    description: str = ""
    priority: Priority = Priority.NORMAL
    #: Over which links it may go.
    cost: Cost = Cost.DEFAULT
    #: Sum of NoticeKind values.
    notify_kinds: int = 0x03
    #: Program and arguments; no shell, no PATH search.
    notify_command: tuple[str, ...] | None = None
    #: The daemon completes the job as soon as it is transferred.
    auto_complete: bool = False
    on_error: OnError = OnError.KEEP
    #: Replace an existing destination.
    overwrite: bool = True
    #: Let Basic credentials go over plain http to other hosts than this one.
    allow_cleartext: bool = False
    #: Names only; the values are secrets.
    header_names: tuple[str, ...] = ()
    #: Path of a PEM file with the CAs to trust instead of the system's.
    cacert: str | None = None
    #: `http://host:port` or `https://host:port`, `direct` for none; None: the owner's environment.
    proxy: str | None = None
    #: Largest file that may be fetched, in bytes.
    max_size: int | None = None
    #: Bytes that may come in a second; None: no limit.
    max_rate: int | None = None
    #: Connections for the files of this job; None: by priority.
    streams: int | None = None
    negotiate: NegotiateOptions = NegotiateOptions()
    passport: PassportOptions = PassportOptions()
    #: Taken over: others chose where its files go, and could lead its owner there by links of
    #: theirs. None is followed that is neither the owner's nor root's.
    wary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Header:
    """A header that the owner wants on every request to the file's own origin."""

    name: str
    value: Secret = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobSpec:
    """What a client asks for when it creates a job."""

    settings: Settings
    type: JobType = JobType.DOWNLOAD
    files: tuple[FileSpec, ...] = ()
    credentials: tuple[Credential, ...] = ()
    headers: tuple[Header, ...] = ()
    #: Resume at once.
    start: bool = False
    #: Chosen by the caller, so that a repeated request makes no second job.
    id: JobId | None = None
    #: Digest of the request body; tells a repeated request from another one with the same id.
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, as the queue holds it."""

    id: JobId
    owner: int
    type: JobType
    settings: Settings
    state: JobState
    files_total: int
    files_transferred: int
    #: None while the size of some file is unknown.
    bytes_total: int | None
    bytes_transferred: int
    credentials: tuple[CredentialLabel, ...]
    #: Of the last interruption; kept until bytes move again.
    error: Failure | None
    #: Interruptions so far; never reset.
    error_count: int
    created: datetime
    modified: datetime
    transferred_at: datetime | None
    #: Failures in a row without a byte in between.
    attempts: int = 0
    #: Earliest next try, on the steady clock.
    retry_at: float | None = None
    #: The delay that retry_at was made from; no wait after a restart is longer.
    retry_delay: Seconds = 0.0
    #: Whether the wait is over on another network.
    retry_here: bool = False
    #: Active time so far; resume sets it to zero.
    active_seconds: Seconds = 0.0
    #: Time without progress so far; a byte sets it to zero.
    stuck_seconds: Seconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One reason why a job does not move."""

    code: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    remedy: str
