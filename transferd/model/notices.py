"""What a job's listeners are told.

A notice is a row of the outbox, written in the transaction that changed the job. Values are those
of BITS (BG_NOTIFY_*), so that a client written for BITS can be ported; `ENDED` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from transferd.model.choices import DEFAULT_KINDS as DEFAULT_KINDS
from transferd.model.choices import TERMINAL as TERMINAL
from transferd.model.choices import NoticeKind as NoticeKind
from transferd.model.choices import kind_labels as kind_labels
from transferd.model.choices import parse_kinds as parse_kinds
from transferd.model.job import Job, JobId


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


#: What a listener hears…
Event: TypeAlias = Notice | Modified | Gap
#: …as much as there is at a time, in order.
Page: TypeAlias = Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look into the outbox has found."""

    #: The oldest number that is still there, and the newest ever given.
    oldest: int
    newest: int
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What an acknowledgement has found."""

    number: int
    owner: int
    created: datetime
    #: Whether it is acknowledged by this one; else it was before, or is not the owner's to settle.
    new: bool
