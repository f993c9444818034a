"""Why a job does not move, and what would unstick it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from transferd.model.admission import Admission
from transferd.model.failures import Failure
from transferd.model.job import Blocker, Job, Priority, Seconds
from transferd.model.states import JobState
from transferd.service.throttles import limits_of
from transferd.service.turns import Occupant, Slots


def blockers_of(
    job: Job,
    admission: Admission,
    slots: Slots,
    now: datetime,
    steady: Seconds,
    held: Seconds | None,
    occupants: Iterable[Occupant] = (),
    *,
    barred: Seconds | None = None,
    paced: bool = False,
) -> tuple[Blocker, ...]:
    """Return the reasons why *job* does not move; none when it does, or has left the queue.

    A queued job is *held* back until that moment, and its owner *barred* from having a worker until
    the other one; None: they are not. One for which there is a slot beside its *occupants* starts
    at the next look. Of one that moves, the limits that may hold it; and whether its reads are
    *paced*.
    """
    match job.state:
        case JobState.SUSPENDED if job.files_total == 0:
            return (_blocker(job, "empty", "the job has no files", "add a file, then resume"),)
        case JobState.SUSPENDED:
            return (_blocker(job, "suspended", "the job is suspended", "resume it"),)
        case JobState.QUEUED if blocker := admission.may_run(
            job.settings.priority, job.settings.cost
        ):
            return (blocker,)
        case JobState.QUEUED if held is not None:
            return (_held(job, _moment(held, now, steady)),)
        case JobState.QUEUED if barred is not None:
            return (_barred(job, _moment(barred, now, steady)),)
        case JobState.QUEUED:
            return _no_slot(job, slots, tuple(occupants))
        case JobState.TRANSIENT_ERROR | JobState.ERROR if job.error is not None:
            waits = job.state is JobState.TRANSIENT_ERROR and job.retry_at is not None
            until = _moment(job.retry_at or 0.0, now, steady) if waits else None
            return (_failed(job.error, until),)
        case JobState.TRANSFERRED:
            text = "every file is here; they get their names when the job is completed"
            return (_blocker(job, "not_completed", text, "complete the job"),)
        case JobState.CONNECTING | JobState.TRANSFERRING:
            others = [each.priority for each in occupants if each.job_id != job.id]
            return limits_of(job.settings, admission, others, paced=paced)
        case _:
            return ()


def _moment(at: Seconds, now: datetime, steady: Seconds) -> datetime:
    """Return when it is, on the clock on the wall."""
    return now + timedelta(seconds=max(0.0, at - steady))


def _failed(error: Failure, until: datetime | None) -> Blocker:
    # Whatever is set for the job later modifies it as well: since when is not known.
    return Blocker(code=error.code, text=error.message, until=until, remedy=error.remedy)


def _held(job: Job, until: datetime) -> Blocker:
    text = "background jobs start a little later, each machine at a random moment"
    return _blocker(job, "start_spread", text, "wait, or resume it to start at once", until)


def _barred(job: Job, until: datetime) -> Blocker:
    text = "the last workers of its owner ended one after the other"
    return _blocker(job, "worker_lost", text, "wait: another one is started by itself", until)


def _no_slot(job: Job, slots: Slots, occupants: tuple[Occupant, ...]) -> tuple[Blocker, ...]:
    """Tell of those who hold the slots or go first; nothing where the job is the next to start."""
    own = job.settings.priority
    if own is Priority.FOREGROUND:
        if sum(each.priority is own for each in occupants) < slots.foreground:
            return ()
        text = f"other foreground jobs hold {_all_of(slots.foreground, 'foreground')}"
        return (_blocker(job, "no_slot", text, "wait, or suspend one of them"),)
    # One job of a higher priority is enough: lower ones wait beside free slots.
    higher = [each for each in occupants if Priority.FOREGROUND < each.priority < own]
    if higher:
        # Others' jobs do not exist for the owner, or for an admin who looks at this one.
        named = next((f" ({each.name!r} runs)" for each in higher if each.owner == job.owner), "")
        text = f"jobs of a higher priority go first{named}"
    elif sum(each.priority is own for each in occupants) < slots.background:
        return ()
    else:
        text = f"jobs of its own priority hold {_all_of(slots.background, 'background')}"
    return (_blocker(job, "no_slot", text, "wait, or raise its priority"),)


def _all_of(count: int, kind: str) -> str:
    return f"the only {kind} slot" if count == 1 else f"all {count} {kind} slots"


def _blocker(job: Job, code: str, text: str, remedy: str, until: datetime | None = None) -> Blocker:
    return Blocker(code=code, text=text, since=job.modified, until=until, remedy=remedy)
