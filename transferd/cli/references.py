"""Which job is meant: its id, the beginning of it, or its name."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from contextlib import AbstractAsyncContextManager, suppress

from transferd.cli.outcomes import CommandError, Exit, usage
from transferd.client.job import Job
from transferd.client.manager import Manager, connect
from transferd.model.errors import NotAllowed
from transferd.wire.api import JobAnswer

#: Shorter ones are more likely a mistake than an id.
SHORTEST_PREFIX = 4
#: In lists an id is cut to so many characters, or more, until all are different.
SHORTEST_SHOWN = 8
_CANDIDATES = 5

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def manager_for(options: Namespace) -> AbstractAsyncContextManager[Manager]:
    """Connect as the general options say."""
    socket = os.path.abspath(options.socket) if options.socket else None
    return connect(socket, start=not options.no_start)


async def find_job(manager: Manager, reference: str, *, all_users: bool = False) -> Job:
    """Find the one job that *reference* means.

    The caller's own jobs come first, by id or name. An admin means others' by an id that none of
    his own has; by a name only where he says *all_users*, since names are not chosen by him.

    Raises:
        NotFound, NotAllowed, CommandError: there is none, or all_users without being admin
            (status 4), or there are several (status 2).
    """
    if _UUID.fullmatch(reference):
        return await manager.job(reference.lower())
    prefix = reference.lower() if len(reference) >= SHORTEST_PREFIX else None
    found = await _matching(manager, reference, prefix, all_users=all_users)
    if not found and not all_users and prefix is not None:
        with suppress(NotAllowed):
            found = await _matching(manager, None, prefix, all_users=True)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(
            Exit.REFUSED,
            f"cannot find job {reference!r}: none in the queue has that name or id; "
            "`transferctl list` shows them all",
            code="job_not_found",
        )
    some = ", ".join(f"{job.id} ({job.name}{whose(job.answer)})" for job in found[:_CANDIDATES])
    more = ", …" if len(found) > _CANDIDATES else ""
    raise usage(f"cannot tell which job is {reference!r}: {some}{more}; use an id", "ambiguous_job")


async def _matching(
    manager: Manager, name: str | None, prefix: str | None, *, all_users: bool
) -> list[Job]:
    return [
        job
        async for job in manager.jobs(all_users=all_users)
        if job.name == name or (prefix is not None and job.id.startswith(prefix))
    ]


def whose(answer: JobAnswer) -> str:
    """Say whose a job is, where it is not the caller's; follows its name."""
    return "" if answer.owner.uid == os.geteuid() else f" of {answer.owner.name}"


def short_ids(ids: list[str]) -> dict[str, str]:
    """Return the beginning of each id that is enough to tell it from the others."""
    length = SHORTEST_SHOWN
    while len({job_id[:length] for job_id in ids}) < len(set(ids)):
        length += 1
    return {job_id: job_id[:length] for job_id in ids}
