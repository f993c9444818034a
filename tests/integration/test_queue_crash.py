"""A daemon that is killed loses nothing that it has acknowledged."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.support.queue_writer import STEPS
from tests.support.store import Queue, open_queue
from transferd.model.errors import NotFound
from transferd.model.job import Job, JobId
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState

_KILLS = 5


async def _run_and_kill(directory: Path, lines: int) -> dict[JobId, int]:
    """Kill a writer after so many acknowledgements; return the last step of each job."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.queue_writer", str(directory), stdout=PIPE
    )
    assert child.stdout is not None
    output = [await child.stdout.readline() for _ in range(lines)]
    child.kill()
    rest, _ = await child.communicate()
    acknowledged: dict[JobId, int] = {}
    for line in [*output, *rest.splitlines(keepends=True)]:
        if line.endswith(b"\n"):
            job_id, number = line.decode().split()
            acknowledged[JobId(job_id)] = int(number)
    return acknowledged


def _reached(job: Job | None) -> int:
    """Tell from what is kept how far a job has come."""
    if job is None:
        return STEPS.index("complete")
    if job.state is JobState.TRANSFERRING:
        return {0: 2, 50: 3, 100: 4}[job.bytes_transferred]
    return {JobState.QUEUED: 0, JobState.CONNECTING: 1, JobState.TRANSFERRED: 5}[job.state]


async def _job(queue: Queue, job_id: JobId) -> Job | None:
    try:
        return await queue.jobs.job(job_id)
    except NotFound:
        return None


async def test_what_was_acknowledged_is_there_after_sigkill(tmp_path: Path) -> None:
    """Promise 2, at random moments; and a state never comes without its notice."""
    chance = random.Random(20260301)  # noqa: S311 - where the kill falls is no secret
    directory = tmp_path / "state"
    for _ in range(_KILLS):
        acknowledged = await _run_and_kill(directory, chance.randrange(1, 400))
        async with open_queue(directory) as queue:
            for job_id, number in acknowledged.items():
                job = await _job(queue, job_id)
                assert number <= _reached(job) <= number + 1, (job_id, STEPS[number], job)
                kinds = await queue.kinds(job_id)
                transferred = job is None or job.state is JobState.TRANSFERRED
                assert (NoticeKind.TRANSFERRED in kinds) == transferred
                assert (NoticeKind.ENDED in kinds) == (job is None)
            counts = await queue.jobs.counts()
            page = await queue.jobs.jobs(owner=None, states=None, after=0, limit=1000)
            assert sum(counts.values()) == len(page.jobs)
