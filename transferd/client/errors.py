"""What the client raises besides the model's own errors.

TransferdError
├── CallerError …     as the daemon answered: the same classes, code and text as in the model
├── NoDaemon          nobody answers on the socket (model)
├── DaemonFault       the daemon answered, but not with what the API promises
├── JobFailed         `wait`: the job is in error
└── JobGone           `wait`: the job has left the queue, or its owner, without being completed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from transferd.model.errors import (
    BadRequest,
    CallerError,
    Conflict,
    NotAllowed,
    NotFound,
    TooLarge,
    TransferdError,
    Unavailable,
)
from transferd.wire.api import ErrorAnswer, JobAnswer, Problem

CALLER_ERRORS: Mapping[int, type[CallerError]] = MappingProxyType(
    {
        kind.status: kind
        for kind in (BadRequest, NotAllowed, NotFound, Conflict, TooLarge, Unavailable)
    }
)


class DaemonFault(TransferdError):
    """The daemon answered with something that the API does not promise."""


class JobFailed(TransferdError):
    """The job is in error; its owner must mend the cause and resume, or complete, or cancel."""

    def __init__(self, job: JobAnswer, error: ErrorAnswer | None) -> None:
        reason = error.message if error else "the daemon names no reason"
        super().__init__(f"job {job.name!r} failed: {reason}")
        #: The job as it was then.
        self.job = job
        #: Why, as the daemon tells it.
        self.error = error


class JobGone(TransferdError):
    """The job has left the queue and was not completed, as far as can be known."""

    def __init__(self, job_id: str, state: str | None) -> None:
        how = f"it was {state}" if state else "it was completed or cancelled by somebody else"
        super().__init__(f"cannot wait for job {job_id} any longer: {how}")
        self.job_id = job_id
        #: `cancelled`, `taken over` (by an admin), or None when nobody could tell.
        self.state = state


def error_from(status: int, body: bytes) -> TransferdError:
    """Make the exception for an answer that is not a success.

    A problem (RFC 9457) with a known status becomes the model's class for it; everything else is a
    DaemonFault.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        return DaemonFault(
            f"cannot understand the daemon: it answered {status} without saying why; "
            "is that transferd's socket, and of this version?"
        )
    return refusal(status, problem.code, problem.detail)


def refusal(status: int, code: str, detail: str) -> TransferdError:
    """Make the exception for what a problem says."""
    kind = CALLER_ERRORS.get(status)
    if kind is None:
        return DaemonFault(f"the daemon failed ({status} {code}): {detail}")
    return kind(code, detail)
