"""Commands that look after the service itself. None of them starts a daemon."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from transferd.cli.outcomes import Exit
from transferd.cli.output import Output
from transferd.cli.outside import look_from_outside
from transferd.cli.values import printable, shown_duration, shown_moment, shown_size, wall_clock
from transferd.client.manager import Manager, connect
from transferd.model.errors import NoDaemon
from transferd.model.upkeep import Severity
from transferd.wire.admin import CheckAnswer, StatusAnswer


async def status(options: Namespace, output: Output) -> int:
    """Say how the service is."""
    async with _manager(options) as manager:
        answer = await manager.admin_status()
    if output.json:
        output.document(answer)
        return Exit.DONE
    output.pairs(_facts(answer, wall_clock()))
    if answer.users:
        output.line("")
        output.table(["USER", "UID", "jobs", "WORKER", "MEMORY"], _users(answer))
    return Exit.DONE


def _facts(answer: StatusAnswer, now: datetime) -> list[tuple[str, str]]:
    up = (now - datetime.fromisoformat(answer.started)).total_seconds()
    whose = "for every user" if answer.system else "for one user"
    source = answer.configuration or "defaults"
    return [
        ("service", f"transferd {answer.version} {whose}, process {answer.pid}"),
        ("up", f"{shown_duration(max(0.0, up))}, since {shown_moment(answer.started, now)}"),
        ("configuration", f"{source}, read at {shown_moment(answer.configured, now)}"),
        ("key", answer.key),
        ("socket", f"{answer.socket}, {answer.connections} connected"),
        ("queue", f"{shown_size(answer.queue_bytes)} in {answer.state_directory}"),
        ("memory", shown_size(answer.memory)),
        ("jobs", _counts(answer.jobs) or "none"),
        ("errors", _counts(answer.errors) or "none"),
    ]


def _users(answer: StatusAnswer) -> list[list[str]]:
    return [
        [
            user.name,
            str(user.uid),
            _counts(user.jobs) or "none",
            "-" if user.worker_pid is None else str(user.worker_pid),
            "-" if user.worker_memory is None else shown_size(user.worker_memory),
        ]
        for user in answer.users
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


async def check(options: Namespace, output: Output) -> int:
    """Look for what is wrong; status 1 where something is, 3 where no daemon can be asked.

    Without a daemon it tells what can be seen from outside. Warnings leave the status at 0.
    """
    ended = Exit.DONE
    try:
        async with _manager(options) as manager:
            answer = await manager.admin_check()
    except NoDaemon as error:
        ended = Exit.NO_DAEMON
        answer = await look_from_outside(str(error), os.environ)
    if output.json:
        output.document(answer)
    else:
        for line in _report(answer):
            output.line(line)
    wrong = any(finding.severity == Severity.ERROR for finding in answer.findings)
    return ended or (Exit.FAILED if wrong else Exit.DONE)


def _report(answer: CheckAnswer) -> Iterable[str]:
    for finding in answer.findings:
        yield printable(f"{finding.severity}: {finding.code}: {finding.text}")
        yield printable(f"  to mend it: {finding.remedy}")
    found = f"{len(answer.findings)} found" if answer.findings else "all is well"
    yield f"looked at {', '.join(answer.checked)}: {found}"


async def rotate_key(options: Namespace, output: Output) -> int:
    """Seal every secret under a new key."""
    async with _manager(options) as manager:
        answer = await manager.admin_rotate_key()
    if output.json:
        output.document(answer)
        return Exit.DONE
    output.remark(f"key {answer.key} seals from now on; {answer.resealed} secrets sealed anew")
    if answer.unreadable:
        output.remark(
            f"{answer.unreadable} secrets cannot be opened by any key here, and stay as they are;"
            " put their key back, or set those credentials again"
        )
    return Exit.DONE


def _manager(options: Namespace) -> AbstractAsyncContextManager[Manager]:
    return connect(os.path.abspath(options.socket) if options.socket else None)
