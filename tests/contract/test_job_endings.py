"""What the service may rely on when jobs are completed, many at a time."""

from __future__ import annotations

from tests.support.store import NOW, Queue, spec
from transferd.model.errors import InvalidTransition, NotFound
from transferd.model.job import JobId
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change, Ending, Moved
from transferd.model.states import JobEvent, JobState

GONE = JobId("6f1c9a52-0d6e-4b1b-9b06-0000000000ff")


def _ending(job_id: JobId, *published: int, change: Change | None = None) -> Ending:
    return Ending(job_id=job_id, published=published, change=change)


async def test_jobs_are_looked_at_together_and_those_that_are_gone_are_left_out(
    queue: Queue,
) -> None:
    """Whoever closes many jobs asks once; one that has left meanwhile is nobody's concern."""
    jobs = [await queue.transferred() for _ in range(2)]
    whole = await queue.jobs.whole([jobs[1].id, GONE, jobs[0].id])
    assert [each.job for each in whole] == [jobs[1], jobs[0]]
    assert [[file.index for file in each.files] for each in whole] == [[0], [0]]
    assert await queue.jobs.whole([GONE]) == ()


async def test_jobs_are_completed_together_each_with_its_notice(queue: Queue) -> None:
    """DESIGN 3: a state and its notice are one transaction, for as many jobs as there are."""
    jobs = [await queue.transferred() for _ in range(3)]
    outcomes = await queue.jobs.complete([_ending(job.id, 0) for job in jobs], NOW)
    for job, outcome in zip(jobs, outcomes, strict=True):
        assert isinstance(outcome, Moved)
        assert (outcome.job.id, outcome.job.state) == (job.id, JobState.ACKNOWLEDGED)
        assert [notice.kind for notice in outcome.notices] == [NoticeKind.ENDED]
    assert await queue.jobs.whole([job.id for job in jobs]) == ()
    assert await queue.jobs.strays(9) == ()


async def test_one_that_cannot_be_completed_keeps_none_of_the_others(queue: Queue) -> None:
    """Jobs end alone, whatever they share."""
    first, last = [await queue.transferred() for _ in range(2)]
    endings = [_ending(first.id, 0), _ending(GONE, 0), _ending(first.id, 0), _ending(last.id, 0)]
    outcomes = await queue.jobs.complete(endings, NOW)
    assert [type(outcome) for outcome in outcomes] == [Moved, NotFound, NotFound, Moved]


async def test_files_have_their_names_even_where_the_job_stays(queue: Queue) -> None:
    """A file that was renamed is no leftover: whoever cancels its job must not remove it."""
    job = await queue.make(spec(2))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.CONNECT)
    await queue.done(job.id, 0)
    (outcome,) = await queue.jobs.complete([_ending(job.id, 0)], NOW)
    assert isinstance(outcome, Moved)
    (refused,) = await queue.jobs.complete([_ending(job.id, 0)], NOW)
    assert isinstance(refused, NotFound | InvalidTransition)
    assert [stray.temporary for stray in await queue.jobs.strays(9)] == [
        f"/home/alice/.1.transferd-{job.id}"
    ]


async def test_who_completes_a_job_has_heard_of_it_and_the_daemon_has_not(queue: Queue) -> None:
    """BITS N2: an owner's act settles what was told of the job; the daemon's own does not."""
    by_owner, by_itself = [await queue.transferred() for _ in range(2)]
    endings = [_ending(by_owner.id, 0), _ending(by_itself.id, 0, change=Change())]
    await queue.jobs.complete(endings, NOW)
    assert await queue.open_kinds(by_owner.id) == []
    assert await queue.open_kinds(by_itself.id) == [NoticeKind.TRANSFERRED]
