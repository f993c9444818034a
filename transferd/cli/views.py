"""Commands that only look."""

from __future__ import annotations

import os
from argparse import Namespace
from datetime import datetime
from pathlib import Path

from transferd import __version__
from transferd.cli.outcomes import Exit, usage
from transferd.cli.output import Output
from transferd.cli.reasons import reason
from transferd.cli.references import find_job, manager_for, short_ids
from transferd.cli.values import printable, shown_moment, shown_size, wall_clock
from transferd.client.manager import connect
from transferd.model.errors import NoDaemon
from transferd.model.states import JobState
from transferd.wire.api import (
    BlockersAnswer,
    FilesAnswer,
    GapAnswer,
    JobAnswer,
    NegotiateAnswer,
    NoticeAnswer,
    PassportAnswer,
)
from transferd.wire.paths import SOCKET_VARIABLE, user_socket


async def list_jobs(options: Namespace, output: Output) -> int:
    """List the jobs in the queue, oldest first."""
    states = None if options.state is None else _states(options.state)
    async with manager_for(options) as manager:
        found = manager.jobs(state=states, all_users=options.all_users)
        jobs = [job.answer async for job in found]
    if output.json:
        output.document({"jobs": jobs})
    elif options.ids:
        for job in jobs:
            output.line(job.id)
    elif jobs:
        _job_table(jobs, options.all_users, output)
    else:
        output.remark("no jobs")
    return Exit.DONE


def _states(names: str) -> list[JobState]:
    from transferd.model.checks import check_states  # not for a plain list

    return sorted(check_states(names.split(",")))


def _job_table(jobs: list[JobAnswer], owners: bool, output: Output) -> None:
    ids = short_ids([job.id for job in jobs])
    head = ["ID", "STATE", "DONE", "SIZE", "PRIORITY", *(["OWNER"] if owners else []), "name"]
    rows = [
        [
            ids[job.id],
            job.state,
            _share(job.bytes_transferred, job.bytes_total) if job.files_total else "-",
            "?" if job.bytes_total is None else shown_size(job.bytes_total),
            job.priority,
            *([job.owner.name] if owners else []),
            job.name,
        ]
        for job in jobs
    ]
    output.table(head, rows, spare=["PRIORITY"])


def _share(done: int, total: int | None) -> str:
    if total is None:
        return shown_size(done)
    return f"{100 * done // total if total else 100} %"


async def show(options: Namespace, output: Output) -> int:
    """Show everything about a job."""
    async with manager_for(options) as manager:
        job = (await find_job(manager, options.job, all_users=options.all_users)).answer
    if output.json:
        output.document(job)
    else:
        output.pairs([(name, value) for name, value in _facts(job, wall_clock()) if value])
    return Exit.DONE


def _facts(job: JobAnswer, now: datetime) -> list[tuple[str, str]]:
    size = "?" if job.bytes_total is None else shown_size(job.bytes_total)
    error = job.error
    credentials = [
        f"{each.target} {each.scheme} {'(implicit)' if each.username is None else each.username}"
        for each in job.credentials
    ]
    return [
        ("id", job.id),
        ("name", job.name),
        ("description", job.description),
        ("state", job.state),
        ("priority", job.priority),
        ("cost", job.cost),
        ("owner", f"{job.owner.name} ({job.owner.uid})"),
        ("files", f"{job.files_transferred} of {job.files_total}"),
        ("bytes", f"{shown_size(job.bytes_transferred)} of {size}"),
        ("error", f"{error.code}: {error.message}" if error else ""),
        ("next try", _when(job.retry_at, now)),
        ("interruptions", str(job.error_count or "")),
        ("blocked by", "; ".join(reason(blocker, now) for blocker in job.blockers)),
        ("credentials", ", ".join(credentials)),
        ("headers", ", ".join(job.headers)),
        ("notify", ", ".join(job.notify.kinds)),
        ("command", " ".join(job.notify.command or [])),
        ("auto complete", "yes" if job.auto_complete else ""),
        ("on error", job.on_error),
        ("limit", f"{shown_size(job.max_rate)}/s" if job.max_rate is not None else ""),
        ("overwrite", "yes" if job.overwrite else "no"),
        ("proxy", job.proxy or ""),
        ("negotiate", _members(job.negotiate)),
        ("passport", _members(job.passport)),
        ("CA file", job.cacert or ""),
        ("created", _when(job.created, now)),
        ("modified", _when(job.modified, now)),
        ("transferred", _when(job.transferred_at, now)),
    ]


def _when(moment: str | None, now: datetime) -> str:
    return "" if moment is None else shown_moment(moment, now)


def _members(group: NegotiateAnswer | PassportAnswer) -> str:
    """Show what differs from the default: `spn HTTP/host, ntlm yes`."""
    members = [(name, getattr(group, name)) for name in group.__struct_fields__]
    return ", ".join(f"{name} {'yes' if said is True else said}" for name, said in members if said)


async def files(options: Namespace, output: Output) -> int:
    """List the files of a job."""
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        found = [file async for file in job.files()]
    if output.json:
        output.document(FilesAnswer(files=found, next=None))
        return Exit.DONE
    rows = [
        [
            "whole" if file.completed else _share(file.bytes_transferred, file.bytes_total),
            "?" if file.bytes_total is None else shown_size(file.bytes_total),
            file.local,
            file.remote,
        ]
        for file in found
    ]
    if rows:
        output.table(["DONE", "SIZE", "local", "remote"], rows)
    else:
        output.remark("no files")
    return Exit.DONE


async def why(options: Namespace, output: Output) -> int:
    """Say why a job does not move."""
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        blockers = await job.why()
    if output.json:
        output.document(BlockersAnswer(blockers=blockers))
    elif not blockers:
        output.line(printable(f"nothing blocks {job.name}: it is {job.answer.state}"))
    for blocker in [] if output.json else blockers:
        output.line(printable(reason(blocker, wall_clock())))
    return Exit.DONE


async def events(options: Namespace, output: Output) -> int:
    """Print what happens, for ever."""
    if options.ack and options.all_users:
        raise usage("cannot use --ack beside --all-users: what others are told is theirs to hear")
    kinds = None if options.kinds is None else options.kinds.split(",")
    everybody: bool = options.all_users
    async with manager_for(options) as manager:
        job = None
        if options.job is not None:
            job = (await find_job(manager, options.job, all_users=everybody)).id
        heard = manager.events(job=job, kinds=kinds, after=options.after, all_users=everybody)
        async for event in heard:
            if output.json:
                output.record(event)
            else:
                output.line(printable(_event_line(event)))
            if options.ack and isinstance(event, NoticeAnswer) and event.acknowledge:
                await manager.acknowledge(event.number or 0)
    return Exit.DONE


def _event_line(event: NoticeAnswer | GapAnswer) -> str:
    if isinstance(event, GapAnswer):
        return f"(notices {event.after + 1} to {event.oldest - 1} are not kept any more)"
    number = "-" if event.number is None else str(event.number)
    return f"{event.created}  {number:>6}  {event.kind:<16}  {event.job.id}  {event.job.name}"


async def version(options: Namespace, output: Output) -> int:
    """Say which versions client and daemon are; starts nothing."""
    named = options.socket or os.environ.get(SOCKET_VARIABLE)
    socket = Path(named) if named else user_socket(os.environ, os.geteuid())
    found: dict[str, object] = {
        "transferctl": __version__,
        "transferd": None,
        "socket": str(socket),
    }
    try:
        async with connect(options.socket) as manager:
            daemon = await manager.version()
            found |= {"transferd": daemon, "socket": str(manager.socket)}
            told = (
                f"{daemon.name} {daemon.version} at {manager.socket} "
                f"(API {daemon.api}; schemes {', '.join(daemon.schemes)}; "
                f"{'with' if 'kerberos' in daemon.features else 'without'} Kerberos)"
            )
    except NoDaemon as error:
        starts = not named and not socket.exists()
        told = "no daemon runs; the next command starts one" if starts else str(error)
    if output.json:
        output.document(found)
    else:
        output.line(f"transferctl {__version__}")
        output.line(told)
    return Exit.DONE
