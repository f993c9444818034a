"""Everything that transferd raises on purpose.

    TransferdError
    ├── CallerError            the request is wrong; carries a stable code and the HTTP status
    │   ├── BadRequest         400  malformed, unknown or refused values
    │   ├── NotAllowed         403  the caller may not do that
    │   ├── NotFound           404  no such thing, or none that the caller may see
    │   ├── Conflict           409  right, but not now
    │   │   └── InvalidTransition   the state table has no such move
    │   ├── TooLarge           413  the body is larger than the limit
    │   └── Unavailable        503  the service is going down
    ├── TransferFailed         a file could not be transferred; carries a Failure as data
    │   └── ConnectionGone     a connection that was to be used again is not there any more
    ├── StoreError             the queue file cannot be used
    │   ├── StoreDamaged
    │   ├── StoreTooNew
    │   └── StoreLocked        another daemon holds the state directory
    ├── VaultError             a stored secret cannot be opened
    ├── LinkBroken             the other end of the worker link is gone or speaks nonsense
    ├── OwnerRefused           no worker runs as that user
    ├── ConfigError            the configuration file is wrong
    ├── InstallationError      the service cannot be put in place, or removed
    └── NoDaemon               nobody answers on the socket

Messages say what was tried, what happened and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from transferd.model.failures import Failure


class TransferdError(Exception):
    """Root of everything raised on purpose."""


class CallerError(TransferdError):
    """The request cannot be served as it is.

    `code` is stable and meant for programs, the text is meant for people.
    """

    status: ClassVar[int] = 400

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class BadRequest(CallerError):
    """Something in the request is malformed, unknown or refused."""

    status = 400


class NotAllowed(CallerError):
    """The caller may not do that."""

    status = 403


class NotFound(CallerError):
    """There is no such thing, or none that the caller may see."""

    status = 404


def job_not_found(job_id: str) -> NotFound:
    """Return the one error for a job that is not there and for one that the caller may not see."""
    return NotFound("job_not_found", f"cannot find job {job_id}: the queue has no such job")


def file_not_found(index: int) -> NotFound:
    """Return the error for a file beyond the last of its job."""
    return NotFound("file_not_found", f"cannot find file {index}: the job has no such file")


def notice_not_found(number: int) -> NotFound:
    """Return the one error for a notice that is not there and for one of somebody else's."""
    return NotFound(
        "notice_not_found", f"cannot find notice {number}: there is none, or none any more"
    )


class Conflict(CallerError):
    """The request is right, but the present state does not allow it."""

    status = 409


class InvalidTransition(Conflict):
    """The state table has no such move (BG_E_INVALID_STATE)."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__("invalid_state", f"cannot {event} a job that is {state}")
        self.state = state
        self.event = event


class TooLarge(CallerError):
    """The body of the request is larger than the limit."""

    status = 413


class Unavailable(CallerError):
    """The service cannot do that at the moment."""

    status = 503


class TransferFailed(TransferdError):
    """A file could not be transferred.

    `retry_after` is what the server asked for, in seconds.
    """

    def __init__(self, failure: Failure, retry_after: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.retry_after = retry_after


class ConnectionGone(TransferFailed):
    """A connection that was to be used again ended before a byte of an answer came over it.

    The request may be sent anew; what was authenticated on that connection is lost.
    """


class StoreError(TransferdError):
    """The queue file cannot be used."""


class StoreDamaged(StoreError):
    """The queue file is not a sound database; it is left as it is."""


class StoreTooNew(StoreError):
    """The queue file was written by a newer transferd; it is left as it is."""


class StoreLocked(StoreError):
    """Another daemon holds the state directory."""


class VaultError(TransferdError):
    """A stored secret cannot be opened: the key is missing or another one."""


class LinkBroken(TransferdError):
    """The other end of the worker link is gone, or does not keep to the protocol."""


class OwnerRefused(TransferdError):
    """No worker runs as that user: there is none, or the configuration says so."""


class ConfigError(TransferdError):
    """The configuration file is wrong; the message names the key."""


class InstallationError(TransferdError):
    """The service cannot be put in place, or removed."""


class NoDaemon(TransferdError):
    """Nobody answers on the socket."""


def first_of(error: BaseException) -> BaseException:
    """Return what went wrong first, where *error* may be a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
