"""What the queue is asked and answers, beside the jobs themselves.

`now` arguments are wall-clock times for people; `steady` ones are seconds of a clock that nobody
can set, and carry every decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from transferd.model.credentials import Credential
from transferd.model.failures import Failure
from transferd.model.job import Cost, File, Header, Job, JobId, Priority, Seconds
from transferd.model.notices import Notice
from transferd.model.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A job that was asked for; `new` is False when the same request had made it before."""

    job: Job
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Jobs, oldest first."""

    jobs: tuple[Job, ...]
    #: Cursor of the next page, None on the last.
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """Files of a job, by index."""

    files: tuple[File, ...]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a job is tried again."""

    at: Seconds
    delay: Seconds
    #: Its server asked for more than anybody waits by himself: that holds on this network alone.
    #: A login page or a proxy may have said it.
    here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What goes with an event into the same transaction."""

    #: Becomes the job's error.
    failure: Failure | None = None
    #: Whether the failure counts in error_count (a lost network or a full disk does not, J11).
    counts: bool = True
    #: Sets retry_at and retry_delay, and raises attempts by one…
    retry: Retry | None = None
    #: …unless nobody has tried.
    tried: bool = True
    #: Added to active_seconds.
    active: Seconds = 0.0
    #: Added to stuck_seconds.
    stuck: Seconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The outcome of an event."""

    #: The job after it (for a final state: as it was when it left).
    job: Job
    before: JobState
    #: What was written to the outbox.
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A job, and those of its files that are whole but have not got their names, by index."""

    job: Job
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A job that is completed."""

    job_id: JobId
    #: Files that have got their names just now, by index.
    published: tuple[int, ...]
    change: Change | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """A queued job, as the scheduler sees it."""

    job_id: JobId
    owner: int
    priority: Priority
    cost: Cost = Cost.DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many queued jobs are asked for."""

    #: Of all owners together; everybody's first is always among them.
    limit: int
    #: Of each owner.
    each: int


#: The jobs of which priorities may run now, by their cost; of one that is not there none may.
Admitted: TypeAlias = Mapping[Priority, frozenset[Cost]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agenda:
    """What there is to schedule."""

    #: Queued jobs that may run next, in turn: foreground ones, and those of the highest background
    #: priority that has any; of both only those that are admitted.
    waiting: Mapping[Priority, Sequence[Runnable]]
    #: The earliest retry_at.
    next_due: Seconds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """A job that a worker is to be told of; it is TRANSFERRED when no file of it is open."""

    moved: Moved
    #: The first open ones.
    files: tuple[File, ...]
    #: Whether it has secrets.
    secret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A temporary file of a job that has left the queue."""

    number: int
    owner: int
    temporary: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Secrets:
    """A job's secrets, opened; whoever asks for them wipes them."""

    credentials: tuple[Credential, ...]
    headers: tuple[Header, ...]

    def wipe(self) -> None:
        """Overwrite all of them."""
        for credential in self.credentials:
            credential.password.wipe()
        for header in self.headers:
            header.value.wipe()
