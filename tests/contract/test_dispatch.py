"""What the service may rely on when it gives queued jobs to workers, many at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tests.support.store import (
    ALICE,
    BOB,
    EVERYBODY,
    NOW,
    ONE,
    Queue,
    credential,
    header,
    later,
    settings,
    spec,
    stumble,
    with_secrets,
)
from transferd.model.errors import StoreDamaged
from transferd.model.job import Job, JobId, Priority
from transferd.model.notices import NoticeKind
from transferd.model.queue import Dispatched, Runnable, Wanted
from transferd.model.states import JobEvent, JobState
from transferd.store.opening import QUEUE_FILE

GONE = JobId("00000000-0000-4000-8000-00000000dead")


def claim(job: Job, owner: int = ALICE) -> Runnable:
    """What the scheduler has read of a job."""
    return Runnable(job_id=job.id, owner=owner, priority=job.settings.priority)


async def dispatched(queue: Queue, job: Job, files: int = 9) -> Dispatched:
    """Dispatch a job that is queued."""
    (found,) = await queue.jobs.dispatch([claim(job)], later(4), files=files)
    assert isinstance(found, Dispatched)
    return found


async def test_many_jobs_are_dispatched_at_once(queue: Queue) -> None:
    """Each comes with its first open files, as it is then."""
    jobs = [await queue.make(spec(3)) for _ in range(3)]
    await queue.done(jobs[1].id, 0)
    found = await queue.jobs.dispatch(list(map(claim, jobs)), later(4), files=2)
    for job, each in zip(jobs, found, strict=True):
        assert isinstance(each, Dispatched)
        assert (each.moved.before, each.moved.job.state) == (
            JobState.QUEUED,
            JobState.CONNECTING,
        )
        assert each.moved.job == await queue.jobs.job(job.id)
        assert each.moved.job.modified == later(4)
        assert each.files == await queue.jobs.open_files(job.id, 2)


async def test_a_claim_that_does_not_hold_any_more_is_left_out(queue: Queue) -> None:
    """Its job was suspended, taken over or ended meanwhile; the others are dispatched."""
    suspended, taken, running, queued = [await queue.make() for _ in range(4)]
    await queue.apply(suspended.id, JobEvent.SUSPEND)
    await queue.apply(running.id, JobEvent.DISPATCH)
    await queue.jobs.take(taken.id, BOB, NOW)
    gone = Runnable(job_id=GONE, owner=ALICE, priority=Priority.NORMAL)
    claims = [*map(claim, (suspended, taken, running)), gone, claim(queued)]
    found = await queue.jobs.dispatch(claims, NOW, files=9)
    assert [each is None for each in found] == [True, True, True, True, False]
    assert (await queue.jobs.job(suspended.id)).state is JobState.SUSPENDED
    assert (await queue.jobs.job(taken.id)).state is JobState.QUEUED


async def test_a_job_without_an_open_file_is_finished_at_once(queue: Queue) -> None:
    """It was stopped after its last file; nobody has to be asked for anything."""
    job = await queue.make()
    await queue.done(job.id)
    found = await dispatched(queue, job)
    assert (found.files, found.moved.job.state) == ((), JobState.TRANSFERRED)
    (notice,) = found.moved.notices
    assert (notice.kind, notice.job) == (NoticeKind.TRANSFERRED, await queue.jobs.job(job.id))


async def test_a_dispatched_job_may_have_temporary_files(queue: Queue) -> None:
    """A worker makes them before it tells."""
    job = await queue.make(spec(2))
    await dispatched(queue, job)
    await queue.apply(job.id, JobEvent.CANCEL)
    assert len(await queue.jobs.strays(9)) == 2


async def test_only_jobs_with_secrets_are_said_to_have_some(queue: Queue) -> None:
    """Nobody looks for those of the others."""
    secret = header("X-Key", "hunter2")
    headed = replace(
        with_secrets(spec(), headers=(secret,)),
        settings=replace(settings(), header_names=("X-Key",)),
    )
    for wish, expected in (
        (spec(), False),
        (with_secrets(spec(), credential()), True),
        (headed, True),
    ):
        assert (await dispatched(queue, await queue.make(wish))).secret is expected


async def test_a_damaged_row_keeps_no_other_job_from_its_turn(queue: Queue, tmp_path: Path) -> None:
    """Jobs fail alone."""
    damaged, sound = await queue.make(), await queue.make()
    with closing(sqlite3.connect(tmp_path / "state" / QUEUE_FILE)) as cx, cx:
        cx.execute("UPDATE jobs SET settings = '{' WHERE id = ?", [damaged.id])
    first, second = await queue.jobs.dispatch(list(map(claim, (damaged, sound))), NOW, files=9)
    assert isinstance(first, StoreDamaged)
    assert isinstance(second, Dispatched)


async def test_the_agenda_has_the_highest_priority_in_the_background(queue: Queue) -> None:
    """Lower ones get nothing; foreground jobs are beside it."""
    jobs = {
        priority: await queue.make(replace(spec(), settings=settings(priority=priority)))
        for priority in Priority
    }
    agenda = await queue.jobs.agenda(ONE, Wanted(limit=9, each=9), EVERYBODY)
    assert {p: [each.job_id for each in found] for p, found in agenda.waiting.items()} == {
        Priority.FOREGROUND: [jobs[Priority.FOREGROUND].id],
        Priority.HIGH: [jobs[Priority.HIGH].id],
    }
    assert agenda.next_due is None
    for priority in (Priority.FOREGROUND, Priority.HIGH):
        await queue.apply(jobs[priority].id, JobEvent.DISPATCH)
    await queue.apply(jobs[Priority.HIGH].id, JobEvent.STUMBLE, change=stumble(160.0))
    agenda = await queue.jobs.agenda(ONE, ONE, EVERYBODY)
    assert list(agenda.waiting) == [Priority.NORMAL]
    assert agenda.next_due == 160.0
