"""What operators are told of the service itself: answers of `/v1/admin/…`."""

from __future__ import annotations

from msgspec import Struct

from transferd.wire.api import Moment


class UserAnswer(Struct, kw_only=True):
    """One user's share of the service."""

    uid: int
    name: str
    #: By state.
    jobs: dict[str, int]
    #: Of the worker process; null when there is none.
    worker_pid: int | None
    #: Resident memory of the worker, in bytes.
    worker_memory: int | None


class StatusAnswer(Struct, kw_only=True):
    """How the service is."""

    version: str
    pid: int
    #: Whether it serves every user of the machine.
    system: bool
    started: Moment
    #: When the configuration was last read.
    configured: Moment
    #: Files that the configuration and the key come from; null: the defaults.
    configuration: str | None
    key: str
    socket: str
    state_directory: str
    #: Bytes of the queue file and its log.
    queue_bytes: int
    #: Resident memory of the daemon, in bytes.
    memory: int
    connections: int
    #: By state.
    jobs: dict[str, int]
    users: list[UserAnswer]
    #: Errors of jobs that are in error now, by code.
    errors: dict[str, int]


class FindingAnswer(Struct, kw_only=True):
    """Something that is not as it should be."""

    #: `queue_damaged`, `key_missing`, `key_exposed`, `state_exposed`, `temporary_orphaned`…
    code: str
    #: `error` or `warning`.
    severity: str
    text: str
    remedy: str


class CheckAnswer(Struct, kw_only=True):
    """What was looked at, and what was found; without findings all is well."""

    checked: list[str]
    findings: list[FindingAnswer]


class RotationAnswer(Struct, kw_only=True):
    """A key was changed."""

    #: Name of the key that seals from now on; tells nothing of it.
    key: str
    #: Secrets that were sealed anew.
    resealed: int
    #: Secrets that no key here can open; they stay as they are.
    unreadable: int
