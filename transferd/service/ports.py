"""What the service needs of the world: a clock and a queue file. Model types only.

`now` arguments are wall-clock times for people; `steady` ones are seconds of a clock that nobody
can set (see Clock), and carry every decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import CallerError, StoreDamaged
from transferd.model.job import (
    Cost,
    File,
    FileSpec,
    Job,
    JobId,
    JobSpec,
    Priority,
    Seconds,
    Settings,
)
from transferd.model.limits import UNBOUNDED, Quota
from transferd.model.queue import (
    Admitted,
    Agenda,
    Change,
    Created,
    Dispatched,
    Ending,
    FilePage,
    JobPage,
    Moved,
    Retry,
    Runnable,
    Secrets,
    Stray,
    Wanted,
    Whole,
)
from transferd.model.rates import Rates
from transferd.model.reports import Kept, Report
from transferd.model.states import JobEvent, JobState

__all__ = [
    "Admitted",
    "Agenda",
    "Change",
    "Clock",
    "Created",
    "Dispatched",
    "Ending",
    "FilePage",
    "JobPage",
    "JobStore",
    "Kept",
    "Moved",
    "Moves",
    "Quota",
    "Report",
    "Retry",
    "Runnable",
    "Secrets",
    "Stray",
    "Wanted",
    "Whole",
]


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        ...

    def steady(self) -> Seconds:
        """Seconds since the epoch as they were at start-up plus real time since then.

        Nobody can step it while the daemon runs.
        """
        ...

    async def sleep(self, seconds: Seconds) -> None:
        """Wait."""
        ...


class Moves(Protocol):
    """Who hears that a job has moved."""

    def moved(self, moved: Moved) -> None:
        """A job changed its state, with these notices."""
        ...


class RateLimiter(Protocol):
    """Who sees to it that transfers take no more of the line than they may."""

    def limit(self, rates: Rates) -> None:
        """Hold running and future transfers to other rates from now on."""
        ...


class JobStore(Protocol):
    """The queue. Every method that changes something returns after the change is on disk.

    All raise StoreError for a file that cannot be used, and NotFound(`job_not_found`) for a job
    that is not in the queue. A caller's cancellation never reaches a statement: the change is then
    made or not made, as a whole.
    """

    async def create(
        self, owner: int, specs: Sequence[JobSpec], now: datetime, *, quota: Quota
    ) -> tuple[Created, ...]:
        """Make jobs, all or none, in state SUSPENDED, or QUEUED where the spec says start.

        A spec whose id was used before gives the same job when owner and fingerprint are the same.

        Raises:
            Conflict: `id_used` (another request, or the job has left the queue),
                `too_many_jobs`, `queue_full` (of the machine, or in bytes), `job_empty` (start
                without files).
        """
        ...

    async def unmade(self, owner: int, specs: Sequence[JobSpec]) -> tuple[JobSpec, ...]:
        """Return those that `create` would make new jobs of; the others are repeated requests.

        Raises:
            Conflict: `id_used`, as `create`.
        """
        ...

    async def job(self, job_id: JobId) -> Job:
        """Return a job."""
        ...

    async def jobs(
        self,
        *,
        owner: int | None,
        states: frozenset[JobState] | None,
        after: int,
        limit: int,
    ) -> JobPage:
        """Return a page of jobs; owner None: everybody's; after 0: from the start."""
        ...

    async def take(self, job_id: JobId, owner: int, now: datetime) -> Moved:
        """Give a job that does not run to *owner*, in one transaction (BITS.md O3, A19).

        Gone are its credentials, its headers and what `model.ownership.stripped` takes away, from
        its open notices too, which are *owner*'s then. The notices of the answer are the ENDED
        one that the former owner gets, and these. A job that is *owner*'s already stays as it is,
        without notices.

        Raises:
            Conflict: `job_running`.
        """
        ...

    async def reseal(self, limit: int) -> int:
        """Seal up to *limit* stored secrets anew that another key than the newest has sealed.

        Returns how many; 0 when nothing is left that can be opened.
        """
        ...

    async def verify(self) -> tuple[str, ...]:
        """Read the queue file through, beside what goes on; returns what is wrong with it."""
        ...

    async def tallies(self) -> Mapping[int, Mapping[JobState, int]]:
        """Return how many jobs each owner has in each state."""
        ...

    async def error_codes(self) -> Mapping[str, int]:
        """Return how many jobs are in error, by code."""
        ...

    async def directories(self) -> Mapping[int, tuple[str, ...]]:
        """Return where each owner's files and temporaries are, beside what goes on."""
        ...

    async def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state."""
        ...

    async def files(self, job_id: JobId, *, after: int, limit: int) -> FilePage:
        """Return a page of files with an index greater than *after* (-1: from the start)."""
        ...

    async def open_files(self, job_id: JobId, limit: int) -> tuple[File, ...]:
        """Return the first files that are not completed, by index."""
        ...

    async def whole(self, job_ids: Sequence[JobId]) -> tuple[Whole, ...]:
        """Return jobs with their files that are completed but not published; none that is gone."""
        ...

    async def add_files(
        self,
        job_id: JobId,
        specs: Sequence[FileSpec],
        now: datetime,
        *,
        files_per_job: int,
        quota: Quota,
    ) -> tuple[File, ...]:
        """Append files, all or none.

        Raises:
            Conflict: `duplicate_destination` (also with the files that the job has),
                `queue_full` (the owner's or the machine's bytes).
            BadRequest: `too_many_files`.
        """
        ...

    async def change_settings(
        self,
        job_id: JobId,
        change: Callable[[Settings], Settings],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
    ) -> Job:
        """Replace the settings with what *change* makes of them; it runs in the transaction.

        Raises:
            Conflict: `queue_full`.
        """
        ...

    async def set_credentials(
        self,
        job_id: JobId,
        credentials: Sequence[Credential],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
    ) -> Job:
        """Seal and keep credentials, each in place of one for the same (target, scheme).

        Raises:
            Conflict: `queue_full`.
        """
        ...

    async def remove_credential(
        self, job_id: JobId, target: Target, scheme: Scheme, now: datetime
    ) -> Job:
        """Forget a credential.

        Raises:
            NotFound: `credential_not_found`.
        """
        ...

    async def secrets(self, job_id: JobId, now: datetime) -> Secrets:
        """Open the job's secrets; *now* tells how old each credential is.

        Raises:
            VaultError: the key is missing or another one.
        """
        ...

    async def apply(
        self, job_id: JobId, event: JobEvent, now: datetime, change: Change | None = None
    ) -> Moved:
        """Move a job by the state table, with its notices, in one transaction.

        RESUME zeroes attempts, active_seconds, stuck_seconds and retry_at; RETRY and DISPATCH clear
        retry_at; each move into QUEUED puts the job at the end of its priority's queue.
        TRANSFERRED, ERROR notices are written when the job asks for them, ENDED always.
        COMPLETE and CANCEL remove the job with its files and secrets, remember its id, and turn the
        temporaries that may exist into strays. An explicit COMPLETE or CANCEL settles the job's
        open notices when *change* is None.

        Raises:
            InvalidTransition: the table has no such move.
            Conflict: `job_empty` (RESUME without files).
        """
        ...

    async def keep(
        self,
        job_id: JobId,
        reports: Sequence[Report],
        now: datetime,
        *,
        quota: Quota = UNBOUNDED,
        extend: int | None = None,
    ) -> Kept:
        """Keep what a run reports, in its order and in one transaction, with the notices.

        Reports are true whatever the job's state is by now; only its own moves may be overtaken,
        and then the rest is kept all the same. Bytes that have moved clear error, attempts,
        retry_at and stuck_seconds. With *extend* the run has nothing left to do: the job is
        finished, or so many of its open files at most are in the answer.

        A size is not kept (`queue_full`) when with it the owner or the machine had more bytes
        than the *quota* allows; the job is not finished then.
        """
        ...

    async def mark_published(self, job_id: JobId, files: Sequence[int]) -> None:
        """Mark files as published."""
        ...

    async def complete(
        self, ended: Sequence[Ending], now: datetime
    ) -> tuple[Moved | CallerError, ...]:
        """Mark files as published and apply COMPLETE to their jobs, in one transaction.

        Returns what `apply` returns or raises, for each of them.
        """
        ...

    async def dispatch(
        self, claims: Sequence[Runnable], now: datetime, *, files: int
    ) -> tuple[Dispatched | StoreDamaged | None, ...]:
        """Move claimed jobs, all in one transaction; each with up to so many of its open files.

        The answer has a place for each claim: None where the job is not queued any more or is
        somebody else's by now, the error where its row cannot be read.
        """
        ...

    async def agenda(self, front: Wanted, back: Wanted, admitted: Admitted) -> Agenda:
        """Return so many queued foreground jobs and background ones, as `runnable` has them.

        Jobs that are not admitted are as good as not there: they are not even counted.
        """
        ...

    async def runnable(
        self, priority: Priority, wanted: Wanted, costs: frozenset[Cost]
    ) -> tuple[Runnable, ...]:
        """Return queued jobs of one priority, and with these costs, that may run next.

        Owners take turns: everybody's first in the order in which those were queued, then
        everybody's second…, so that a long queue of one owner keeps nobody else waiting.
        """
        ...

    async def retry(self, steady: Seconds, now: datetime, *, limit: int) -> tuple[Moved, ...]:
        """Queue jobs in TRANSIENT_ERROR whose retry_at has come, in one transaction.

        The longest overdue are the first, and *limit* the most.
        """
        ...

    async def hasten(self, front: Seconds, back: Seconds, *, after: int, limit: int) -> int | None:
        """Bring retry_at of jobs in TRANSIENT_ERROR forward: of foreground jobs to *front*.

        Of others to *back*; none is put off, and none moves whose server has answered, unless the
        retry was for here alone, or that waits without a time. What a wait is cut by is taken off
        stuck_seconds. Up to *limit* jobs are looked at, in an order of their own, from the
        beginning (0) or *after* what the last call has returned; None: that were all.
        """
        ...

    async def untouched_since(self, moment: datetime, limit: int) -> tuple[JobId, ...]:
        """Return jobs whose `modified` is older than *moment*."""
        ...

    async def recover(self, steady: Seconds) -> int:
        """After a start: running jobs come back as queued, waits are cut to their own delay.

        Returns how many jobs were requeued.
        """
        ...

    async def strays(self, limit: int, *, after: int = 0) -> tuple[Stray, ...]:
        """Return temporaries to remove with a number greater than *after*."""
        ...

    async def forget_strays(self, numbers: Sequence[int]) -> None:
        """Forget temporaries that are removed."""
        ...
