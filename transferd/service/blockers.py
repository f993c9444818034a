"""Why a job does not move, and what would unstick it."""

from __future__ import annotations

from datetime import datetime, timedelta

from transferd.model.admission import Admission
from transferd.model.job import Blocker, Job, Priority, Seconds
from transferd.model.rates import FREE, Rates
from transferd.model.states import JobState
from transferd.service.throttles import limits_of
from transferd.service.turns import Slots


def blockers_of(
    job: Job,
    admission: Admission,
    slots: Slots,
    now: datetime,
    steady: Seconds,
    held: Seconds | None,
    rates: Rates = FREE,
    *,
    paced: bool = False,
) -> tuple[Blocker, ...]:
    """Return the reasons why *job* does not move; none when it does, or has left the queue.

    A queued job is *held* back until that moment; None: it is not. Of one that moves, the limits
    that hold for it, those of *rates* included; and whether its reads are *paced*.
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
            return (_held(job, now + timedelta(seconds=max(0.0, held - steady))),)
        case JobState.QUEUED:
            return (_no_slot(job, slots),)
        case JobState.TRANSIENT_ERROR | JobState.ERROR if job.error is not None:
            until = None
            if job.state is JobState.TRANSIENT_ERROR and job.retry_at is not None:
                until = now + timedelta(seconds=max(0.0, job.retry_at - steady))
            return (
                Blocker(
                    code=job.error.code,
                    text=job.error.message,
                    # Whatever is set for it later modifies it as well.
                    since=None,
                    until=until,
                    remedy=job.error.remedy,
                ),
            )
        case JobState.TRANSFERRED:
            text = "every file is here; they get their names when the job is completed"
            return (_blocker(job, "not_completed", text, "complete the job"),)
        case JobState.CONNECTING | JobState.TRANSFERRING:
            return limits_of(job.settings, rates, paced=paced)
        case _:
            return ()


def _held(job: Job, until: datetime) -> Blocker:
    return Blocker(
        code="start_spread",
        text="background jobs start a little later, each machine at a random moment",
        since=job.modified,
        until=until,
        remedy="wait, or resume it to start at once",
    )


def _no_slot(job: Job, slots: Slots) -> Blocker:
    if job.settings.priority is Priority.FOREGROUND:
        text = f"other foreground jobs hold {_all_of(slots.foreground, 'foreground')}"
        remedy = "wait, or suspend one of them"
    else:
        # One job of a higher priority is enough: lower ones wait beside free slots.
        text = f"jobs of its own priority hold {_all_of(slots.background, 'background')}"
        if job.settings.priority is not Priority.HIGH:
            text += ", or those of a higher one go first"
        remedy = "wait, or raise its priority"
    return _blocker(job, "no_slot", text, remedy)


def _all_of(count: int, kind: str) -> str:
    return f"the only {kind} slot" if count == 1 else f"all {count} {kind} slots"


def _blocker(job: Job, code: str, text: str, remedy: str) -> Blocker:
    return Blocker(code=code, text=text, since=job.modified, until=None, remedy=remedy)
