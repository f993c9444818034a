"""What the API asks of the service. Every method raises CallerError for what the caller did wrong.

A job that the caller may not see is NotFound(`job_not_found`), never NotAllowed. Whatever would be
done in the owner's name (files, credentials, every setting but `model.ownership.STEERING`) is
NotAllowed(`take_ownership_first`) for an admin whose job it is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from transferd.model.caller import Caller
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import CallerError
from transferd.model.job import Blocker, File, FileSpec, Job, JobId, JobSpec, Settings
from transferd.model.notices import Notice, NoticeKind, Page
from transferd.model.states import JobState
from transferd.service.ports import Created, FilePage, JobPage
from transferd.wire.admin import CheckAnswer, RotationAnswer, StatusAnswer


class JobUseCases(Protocol):
    """Everything that a caller can do with jobs."""

    async def create(self, caller: Caller, specs: Sequence[JobSpec]) -> tuple[Created, ...]:
        """Make jobs, all or none. Destinations are inspected as their owner first."""
        ...

    async def get(self, caller: Caller, job_id: JobId) -> Job:
        """Return a job with its live progress."""
        ...

    async def page(
        self,
        caller: Caller,
        *,
        states: frozenset[JobState] | None,
        all_users: bool,
        after: int,
        limit: int,
    ) -> JobPage:
        """Return a page of jobs. NotAllowed(`not_allowed`): all_users without being admin."""
        ...

    async def change(
        self, caller: Caller, job_id: JobId, change: Callable[[Settings], Settings]
    ) -> Job:
        """Change settings."""
        ...

    async def files(self, caller: Caller, job_id: JobId, *, after: int, limit: int) -> FilePage:
        """Return a page of files."""
        ...

    async def add_files(
        self, caller: Caller, job_id: JobId, specs: Sequence[FileSpec]
    ) -> tuple[File, ...]:
        """Append files, all or none."""
        ...

    async def set_credential(self, caller: Caller, job_id: JobId, credential: Credential) -> Job:
        """Keep a credential in place of one for the same (target, scheme), in any state.

        A job that runs begins anew with it, from its durable offsets, once nothing is left of the
        run before; one in error stays so until it is resumed.
        """
        ...

    async def remove_credential(
        self, caller: Caller, job_id: JobId, target: Target, scheme: Scheme
    ) -> Job:
        """Forget a credential; the job goes on without it as with a new one.

        Raises:
            NotFound: `credential_not_found`, and nothing was changed (BITS: S_FALSE).
        """
        ...

    async def resume(self, caller: Caller, job_id: JobId) -> Job:
        """Start or continue a job."""
        ...

    async def suspend(self, caller: Caller, job_id: JobId) -> Job:
        """Pause a job."""
        ...

    async def complete(self, caller: Caller, job_id: JobId) -> Job:
        """Publish what is whole and take the job out of the queue; returns its last view."""
        ...

    async def cancel(self, caller: Caller, job_id: JobId) -> Job:
        """Take the job out of the queue and remove partial data; returns its last view."""
        ...

    async def take_ownership(self, caller: Caller, job_id: JobId) -> Job:
        """Make an admin the owner of a job, without its secrets and command (BITS.md O3, A19).

        A run of it ends first; a job that was queued or running is queued again as the new owner's.

        Raises:
            NotAllowed: `not_allowed`; it is the caller's own, but he is no admin.
            Conflict: `owner_no_access`; the new owner cannot write its files or partial data.
                `owner_refused`; no worker runs as the new owner.
            Unavailable: `worker_lost`; try again.
        """
        ...

    async def why(self, caller: Caller, job_id: JobId) -> tuple[Blocker, ...]:
        """Say what keeps a job from moving."""
        ...

    def blockers(self, job: Job) -> tuple[Blocker, ...]:
        """The same, for a job at hand, without asking anybody."""
        ...

    async def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state."""
        ...

    async def tally(self, caller: Caller) -> Mapping[JobState, int]:
        """Return how many jobs the caller has in each state."""
        ...

    @property
    def worker_count(self) -> int:
        """How many worker processes there are."""
        ...

    def workers_of(self, caller: Caller) -> int:
        """Return how many worker processes there are for the caller's jobs."""
        ...


class NoticeUseCases(Protocol):
    """Everything that a caller can hear."""

    def subscribe(
        self,
        caller: Caller,
        *,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        all_users: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[Page]]:
        """Hear what happens to the caller's jobs, from *after* (None: from now on).

        Nothing that happens once the block is entered is missed. Terminal notices that nobody has
        acknowledged come first, whatever *after* is. What there is at a time makes a page. An admin
        hears of others' jobs by *all_users* or by naming one; that counts as no delivery, since it
        is not he who has to know.

        Raises:
            NotAllowed: `not_allowed`; all_users without being admin.
        """
        ...

    async def acknowledge(self, caller: Caller, number: int) -> Notice:
        """Settle a notice; doing it again is success.

        Raises:
            NotFound: `notice_not_found`.
            NotAllowed: `take_ownership_first`; an admin does not acknowledge for others.
        """
        ...

    async def acknowledge_all(
        self, caller: Caller, numbers: Sequence[int]
    ) -> Mapping[int, CallerError]:
        """Settle notices at once; returns which cannot be, each with what `acknowledge` raises."""
        ...


class AdminUseCases(Protocol):
    """What operators can do with the service itself."""

    async def status(self) -> StatusAnswer:
        """Say how the service is, in detail."""
        ...

    async def check(self, caller: Caller) -> CheckAnswer:
        """Look for what is wrong, and change nothing: queue file, key, permissions, temporaries.

        Whether workers start is tried for the caller.
        """
        ...

    async def rotate_key(self) -> RotationAnswer:
        """Seal every secret under a new key, and forget the old ones once nothing needs them.

        Raises:
            Conflict: `key_not_ours`; the key is the service manager's, and no newer one is there.
        """
        ...

    async def figures(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        ...
