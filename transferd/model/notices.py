"""What a job's listeners are told.

A notice is a row of the outbox, written in the transaction that changed the job. Values are those
of BITS (BG_NOTIFY_*), so that a client written for BITS can be ported; `ENDED` is ours.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from transferd.model.errors import BadRequest
from transferd.model.job import Job, JobId


class NoticeKind(enum.IntFlag):
    """What happened; a set of kinds is the sum of its values."""

    TRANSFERRED = 0x01
    ERROR = 0x02
    #: Property, state or progress; never stored, merged under load.
    MODIFICATION = 0x08
    FILE_TRANSFERRED = 0x10
    #: The job has left the queue, completed or cancelled; or its owner, taken over by an admin.
    ENDED = 0x100

    @property
    def label(self) -> str:
        """The name that the socket uses. Only for a single kind."""
        return str(self.name).lower()

    @property
    def terminal(self) -> bool:
        """Whether it must be acknowledged and is delivered until it is."""
        return bool(self & TERMINAL)


TERMINAL = NoticeKind.TRANSFERRED | NoticeKind.ERROR
DEFAULT_KINDS = TERMINAL


def parse_kinds(names: Iterable[str]) -> NoticeKind:
    """Read a set of kind names in any case.

    Raises:
        BadRequest: `unknown_kind`.
    """
    kinds = NoticeKind(0)
    for name in names:
        try:
            kinds |= NoticeKind[name.upper()]
        except KeyError:
            known = ", ".join(kind.label for kind in NoticeKind)
            raise BadRequest(
                "unknown_kind", f"cannot notify of {name[:40]!r}; kinds are {known}"
            ) from None
    return kinds


def kind_labels(kinds: NoticeKind) -> list[str]:
    """Name the kinds of a set, in the order of their values."""
    return [kind.label for kind in NoticeKind if kind & kinds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One entry of the outbox. `number` grows by one per notice and is the cursor of replay."""

    number: int
    kind: NoticeKind
    owner: int
    job_id: JobId
    #: The job as it was when this happened.
    job: Job
    #: Index of the file, for FILE_TRANSFERRED.
    file: int | None
    created: datetime
    #: Acknowledged, or of a kind that needs no acknowledgement.
    settled: bool
    #: How often it was handed to a listener or to the command.
    deliveries: int = 0

    @property
    def handed_over(self) -> bool:
        """Whether the job has ended for this owner only: it is an admin's now, and goes on."""
        return self.kind is NoticeKind.ENDED and not self.job.state.final


@dataclass(frozen=True, slots=True, kw_only=True)
class Modified:
    """A job has changed in some way; merged under load, never stored."""

    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Notices after `after` and before `oldest` are not available any more."""

    after: int
    oldest: int


#: What a listener hears.
Event: TypeAlias = Notice | Modified | Gap
