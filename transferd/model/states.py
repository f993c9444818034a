"""The life of a job: one table is the law, and nothing else decides a transition.

States and their values are those of BITS (BG_JOB_STATE); events name what happened. A missing
entry *is* the illegal move. Guards that need more than the state (a job without files cannot be
resumed, a transferred job that got new files is reopened) belong to the use cases.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from transferd.model.errors import InvalidTransition


class JobState(enum.IntEnum):
    """Where a job stands. The values are BG_JOB_STATE's and are what the queue file holds."""

    #: Runnable; waits for a slot.
    QUEUED = 0
    #: Contacts the server of the current file.
    CONNECTING = 1
    #: Bytes are moving.
    TRANSFERRING = 2
    #: Not started yet, or paused by its owner.
    SUSPENDED = 3
    #: Failed for good; its owner must mend the cause and resume, or complete, or cancel.
    ERROR = 4
    #: Failed for now; the service tries again by itself.
    TRANSIENT_ERROR = 5
    #: Every file is whole; waits for `complete`.
    TRANSFERRED = 6
    #: Completed: files are under their final names, the job has left the queue.
    ACKNOWLEDGED = 7
    #: Cancelled: partial data is removed, the job has left the queue.
    CANCELLED = 8

    @property
    def label(self) -> str:
        """The name that the socket and the command line use."""
        return self.name.lower()

    @property
    def final(self) -> bool:
        """Whether the job has left the queue."""
        return self in FINAL

    @property
    def running(self) -> bool:
        """Whether a worker holds the job."""
        return self in RUNNING


class JobEvent(enum.Enum):
    """What may happen to a job."""

    #: The owner starts or continues the job.
    RESUME = "resume"
    #: The owner resumes a transferred job that has got files since.
    REOPEN = "reopen"
    #: The owner pauses the job.
    SUSPEND = "suspend"
    #: The owner takes what has been transferred.
    COMPLETE = "complete"
    #: The owner gives up, or the job was untouched for too long.
    CANCEL = "cancel"
    #: The scheduler granted a slot.
    DISPATCH = "dispatch"
    #: The server of a file answered.
    CONNECT = "connect"
    #: The last file is whole.
    FINISH = "finish"
    #: A failure that time may heal.
    STUMBLE = "stumble"
    #: A failure that needs the owner.
    FAIL = "fail"
    #: The delay after a transient failure is over.
    RETRY = "retry"
    #: Time slice over, pre-empted, or the service stopped or started again.
    REQUEUE = "requeue"


_S, _E = JobState, JobEvent

FINAL = frozenset({_S.ACKNOWLEDGED, _S.CANCELLED})
RUNNING = frozenset({_S.CONNECTING, _S.TRANSFERRING})

_ENDS = {_E.COMPLETE: _S.ACKNOWLEDGED, _E.CANCEL: _S.CANCELLED}
_CARRIED = {
    _E.SUSPEND: _S.SUSPENDED,
    _E.CONNECT: _S.TRANSFERRING,
    _E.FINISH: _S.TRANSFERRED,
    _E.STUMBLE: _S.TRANSIENT_ERROR,
    _E.FAIL: _S.ERROR,
    _E.REQUEUE: _S.QUEUED,
}

TRANSITIONS: Mapping[JobState, Mapping[JobEvent, JobState]] = MappingProxyType(
    {
        _S.SUSPENDED: _ENDS | {_E.RESUME: _S.QUEUED, _E.SUSPEND: _S.SUSPENDED},
        _S.QUEUED: _ENDS
        | {_E.RESUME: _S.QUEUED, _E.SUSPEND: _S.SUSPENDED, _E.DISPATCH: _S.CONNECTING},
        _S.CONNECTING: _ENDS | _CARRIED | {_E.RESUME: _S.CONNECTING},
        _S.TRANSFERRING: _ENDS | _CARRIED | {_E.RESUME: _S.TRANSFERRING},
        _S.TRANSIENT_ERROR: _ENDS
        | {
            _E.RESUME: _S.QUEUED,
            _E.RETRY: _S.QUEUED,
            _E.SUSPEND: _S.SUSPENDED,
            _E.FAIL: _S.ERROR,
        },
        _S.ERROR: _ENDS | {_E.RESUME: _S.QUEUED, _E.SUSPEND: _S.ERROR},
        _S.TRANSFERRED: _ENDS
        | {
            _E.RESUME: _S.TRANSFERRED,
            _E.SUSPEND: _S.TRANSFERRED,
            _E.REOPEN: _S.QUEUED,
            # The daemon's own completion was refused: a file could not get its name.
            _E.FAIL: _S.ERROR,
        },
        _S.ACKNOWLEDGED: {},
        _S.CANCELLED: {},
    }
)


def advance(state: JobState, event: JobEvent) -> JobState:
    """Return the state after *event*.

    Raises:
        InvalidTransition: the table has no such move (BITS: BG_E_INVALID_STATE).
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise InvalidTransition(state.label, event.value) from None


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram; events that change nothing are left out."""
    return "\n".join(["stateDiagram-v2", *_edges()])


def _edges() -> Iterator[str]:
    yield f"    [*] --> {JobState.SUSPENDED.label}: create"
    for state, moves in TRANSITIONS.items():
        reached: dict[JobState, list[str]] = {}
        for event, after in moves.items():
            if after is not state:
                reached.setdefault(after, []).append(event.value)
        for after, events in reached.items():
            yield f"    {state.label} --> {after.label}: {', '.join(events)}"
    for state in sorted(FINAL):
        yield f"    {state.label} --> [*]"
