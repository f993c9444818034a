"""Why a job does not move, and what would unstick it."""

from __future__ import annotations

from datetime import datetime, timedelta

from transferd.model.admission import Admission
from transferd.model.job import Blocker, Job, Priority, Seconds
from transferd.model.rates import FREE, Rates
from transferd.model.states import JobState
from transferd.service.throttles import limits_of


def blockers_of(
    job: Job,
    admission: Admission,
    now: datetime,
    steady: Seconds,
    held: Seconds | None,
    rates: Rates = FREE,
) -> tuple[Blocker, ...]:
    """Return the reasons why *job* does not move; none when it does, or has left the queue.

    A queued job is *held* back until that moment; None: it is not. Of one that moves, the limits
    that hold for it, those of *rates* included.
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
            return (_no_slot(job),)
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
            return limits_of(job.settings, rates)
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


def _no_slot(job: Job) -> Blocker:
    if job.settings.priority is Priority.FOREGROUND:
        text, remedy = "other foreground jobs hold all slots", "wait, or suspend one of them"
    else:
        text = "jobs of its own or a higher priority hold the background slots"
        remedy = "wait, or raise its priority"
    return _blocker(job, "no_slot", text, remedy)


def _blocker(job: Job, code: str, text: str, remedy: str) -> Blocker:
    return Blocker(code=code, text=text, since=job.modified, until=None, remedy=remedy)
