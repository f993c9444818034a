"""Commands that move jobs on, and the one that waits for them."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from transferd.cli.attached import attached, endings
from transferd.cli.outcomes import CommandError, Exit, status_of, usage
from transferd.cli.output import Output
from transferd.cli.progress import showing
from transferd.cli.reasons import first_reason
from transferd.cli.references import find_job, manager_for, whose
from transferd.cli.settings import settings
from transferd.cli.values import shown_duration
from transferd.client.errors import JobFailed
from transferd.client.job import Job, Until
from transferd.model.errors import NoDaemon, TransferdError
from transferd.model.states import JobState
from transferd.wire.api import JobAnswer

_VERBS: dict[str, tuple[Callable[[Job], Awaitable[JobAnswer]], str]] = {
    "resume": (Job.resume, "resumed"),
    "suspend": (Job.suspend, "suspended"),
    "complete": (Job.complete, "completed"),
    "cancel": (Job.cancel, "cancelled"),
    "take-ownership": (Job.take_ownership, "took over"),
}


async def act(options: Namespace, output: Output) -> int:
    """Do the same to each of the jobs; one that refuses does not keep the others from it.

    Returns the status of the first refusal.
    """
    verb, past = _VERBS[options.command]
    more = _MORE.get(options.command, _discarded)
    return await _each(
        options,
        output,
        verb,
        lambda before, answer: f"{past} {before.name}{whose(before)}{more(before, answer)}",
    )


async def change(options: Namespace, output: Output) -> int:
    """Change the settings of each of the jobs, in the same manner."""
    said = settings(options)
    if options.name is not None:
        said["name"] = options.name
    if not said:
        raise usage("cannot change nothing; name a setting, see `transferctl set --help`")
    named = ", ".join(sorted(said))
    return await _each(
        options,
        output,
        lambda job: job.change(**said),
        lambda before, answer: f"changed {answer.name}{whose(before)}: {named}",
    )


async def _each(
    options: Namespace,
    output: Output,
    verb: Callable[[Job], Awaitable[JobAnswer]],
    done: Callable[[JobAnswer, JobAnswer], str],
) -> int:
    """Do something to each of the jobs that are named, and tell what has been *done*."""
    answers: list[JobAnswer] = []
    status = Exit.DONE
    async with manager_for(options) as manager:
        for reference in options.job:
            try:
                job = await find_job(manager, reference, all_users=options.all_users)
                before = job.answer
                answers.append(await verb(job))
            except NoDaemon:
                if output.json and answers:  # what has been done stays done
                    output.document({"jobs": answers})
                raise
            except (TransferdError, CommandError) as error:
                if len(options.job) == 1:
                    raise
                output.remark(f"transferctl: {reference}: {error}")
                status = status or status_of(error)
            else:
                if not output.json:
                    output.remark(done(before, answers[-1]))
    if output.json:
        output.document({"jobs": answers})
    return status


async def wait(options: Namespace, output: Output) -> int:
    """Wait until a job is transferred; complete it then, if asked to."""
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        try:
            with (
                endings() as came,
                attached(job, output, came, names=not job.answer.auto_complete),
                showing(job, output),
            ):
                answer = await _waited(job, options.timeout)
                if options.complete and not job.state.final:
                    answer = await job.complete()
        except JobFailed as failed:
            remedies = [blocker.remedy for blocker in failed.job.blockers]
            raise CommandError(
                Exit.FAILED,
                str(failed),
                code=failed.error.code if failed.error else "failed",
                job=job.id,
                advice=f"to go on: {remedies[0]}" if remedies else None,
                remedy=remedies[0] if remedies else None,
            ) from failed
    if output.json:
        output.document(answer)
    else:
        output.remark(f"{answer.name} is {_done(answer)}{_discarded(answer, answer)}")
    return Exit.DONE


async def _waited(job: Job, timeout: float) -> JobAnswer:
    # A job that completes itself is transferred for a moment only, and without its final name.
    until: Until = "ended" if job.answer.auto_complete else "transferred"
    try:
        return await job.wait(timeout or None, until)
    except TimeoutError:
        reason = await first_reason(job)
        fate = f": {reason}; the job stays in the queue" if reason else "; the job goes on"
        raise CommandError(
            Exit.TIMED_OUT,
            f"cannot wait longer than {shown_duration(timeout)} for {job.name!r}{fate}",
            code="timed_out",
            job=job.id,
        ) from None


def _to_come(_: JobAnswer, answer: JobAnswer) -> str:
    """Say what a resumed job still waits for in the end."""
    if answer.auto_complete:
        return ""
    names = "the file its name" if answer.files_total == 1 else "the files their names"
    # Others' jobs go by their ids.
    reference = answer.id if whose(answer) else shlex.quote(answer.name)
    command = f"transferctl wait {reference} --complete"
    return f"; `{command}` waits for it and gives {names}"


def _discarded(_: JobAnswer, answer: JobAnswer) -> str:
    """Say what a completed job has left out (BITS completes what it has)."""
    saved, total = answer.files_transferred, answer.files_total
    if answer.state != JobState.ACKNOWLEDGED.label or saved == total:
        return ""
    return f": {saved} of {total} files saved; the rest was discarded"


def _left_behind(before: JobAnswer, answer: JobAnswer) -> str:
    """Say what a job that was taken over needs again."""
    if before.owner.uid == answer.owner.uid:
        return f", which was {answer.owner.name}'s already"
    return (
        f", now {answer.owner.name}'s, without credentials, headers, command, CA file, Negotiate"
        " and Passport options; `transferctl credentials set` and `transferctl set` give it others"
    )


_MORE: Mapping[str, Callable[[JobAnswer, JobAnswer], str]] = MappingProxyType(
    {"resume": _to_come, "take-ownership": _left_behind}
)


def _done(answer: JobAnswer) -> str:
    if answer.state == "acknowledged":
        return "completed"
    return f"transferred; `transferctl complete {answer.id}` gives the files their names"
