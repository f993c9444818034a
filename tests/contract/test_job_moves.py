"""What the service may rely on when jobs move: events, notices, the schedule, leftovers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.store import (
    ALICE,
    EVERY_COST,
    NOW,
    ONE,
    REFUSED,
    Queue,
    credential,
    file_specs,
    later,
    offset,
    open_queue,
    settings,
    spec,
    stumble,
    with_secrets,
)
from transferd.model.errors import (
    Conflict,
    InvalidTransition,
    NotFound,
)
from transferd.model.failures import Failure
from transferd.model.job import Job, JobId, Priority
from transferd.model.limits import Quota
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change, Retry
from transferd.model.states import TRANSITIONS, JobEvent, JobState

ID = "6f1c9a52-0d6e-4b1b-9b06-000000000001"


# ── events ───────────────────────────────────────────────────────────────────────────────────

#: How a job comes into each state.
_WAYS: dict[JobState, tuple[JobEvent, ...]] = {
    JobState.SUSPENDED: (JobEvent.SUSPEND,),
    JobState.QUEUED: (),
    JobState.CONNECTING: (JobEvent.DISPATCH,),
    JobState.TRANSFERRING: (JobEvent.DISPATCH, JobEvent.CONNECT),
    JobState.ERROR: (JobEvent.DISPATCH, JobEvent.FAIL),
    JobState.TRANSIENT_ERROR: (JobEvent.DISPATCH, JobEvent.STUMBLE),
    JobState.TRANSFERRED: (JobEvent.DISPATCH, JobEvent.FINISH),
}


async def _in_state(queue: Queue, state: JobState) -> Job:
    job = await queue.make()
    await queue.done(job.id)
    if _WAYS[state]:
        job = await queue.apply(job.id, *_WAYS[state])
    assert job.state is state
    return job


@pytest.mark.parametrize("event", list(JobEvent))
@pytest.mark.parametrize("state", list(_WAYS))
async def test_the_table_alone_decides(queue: Queue, state: JobState, event: JobEvent) -> None:
    """Every move of the table is made, and every other one is refused and leaves no trace."""
    job = await _in_state(queue, state)
    before = await queue.jobs.job(job.id)
    if event not in TRANSITIONS[state]:
        with pytest.raises(InvalidTransition):
            await queue.jobs.apply(job.id, event, later(9))
        assert await queue.jobs.job(job.id) == before
        return
    outcome = await queue.jobs.apply(job.id, event, later(9))
    after = TRANSITIONS[state][event]
    assert (outcome.before, outcome.job.state) == (state, after)
    if after.final:
        with pytest.raises(NotFound):
            await queue.jobs.job(job.id)
    else:
        assert await queue.jobs.job(job.id) == outcome.job
        assert outcome.job.modified == (before.modified if after is state else later(9))


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (state, event)
        for state, moves in TRANSITIONS.items()
        for event, after in moves.items()
        if after is state
    ],
)
async def test_an_event_that_moves_nothing_changes_nothing(
    queue: Queue, state: JobState, event: JobEvent
) -> None:
    """Resume of a running job, suspend of one in error: success, no change (DESIGN 3)."""
    job = await _in_state(queue, state)
    before, kinds = await queue.jobs.job(job.id), await queue.open_kinds()
    outcome = await queue.jobs.apply(job.id, event, later(9))
    assert (outcome.job, outcome.notices) == (before, ())
    assert await queue.jobs.job(job.id) == before
    assert await queue.open_kinds() == kinds


async def test_a_failure_is_kept_with_its_times(queue: Queue) -> None:
    """A transient failure carries when it is tried again, and how long the job was stuck."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    failed = await queue.apply(job.id, JobEvent.STUMBLE, change=stumble(160.0))
    assert (failed.error, failed.error_count, failed.attempts) == (REFUSED, 1, 1)
    assert (failed.retry_at, failed.retry_delay) == (160.0, 60.0)
    assert (failed.active_seconds, failed.stuck_seconds) == (5.0, 65.0)
    queued = await queue.apply(job.id, JobEvent.RETRY)
    assert (queued.error, queued.attempts, queued.retry_at) == (REFUSED, 1, None)
    await queue.apply(job.id, JobEvent.DISPATCH)
    again = await queue.apply(job.id, JobEvent.STUMBLE, change=stumble(300.0, 120.0))
    assert (again.error_count, again.attempts, again.active_seconds) == (2, 2, 10.0)


async def test_some_failures_do_not_count(queue: Queue) -> None:
    """A lost network is no interruption of the job's own (BITS J11)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    change = replace(stumble(), counts=False)
    failed = await queue.apply(job.id, JobEvent.STUMBLE, change=change)
    assert (failed.error, failed.error_count) == (REFUSED, 0)


async def test_resume_forgets_what_held_the_job_up(queue: Queue) -> None:
    """All timers begin anew; the error stays readable until bytes move (BITS J10, T2)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    resumed = await queue.apply(job.id, JobEvent.RESUME)
    assert (resumed.attempts, resumed.retry_at, resumed.retry_delay) == (0, None, 0.0)
    assert (resumed.active_seconds, resumed.stuck_seconds) == (0.0, 0.0)
    assert (resumed.error, resumed.error_count) == (REFUSED, 1)


async def test_an_empty_job_is_not_resumed(queue: Queue) -> None:
    """BG_E_EMPTY (BITS T3)."""
    job = await queue.make(spec(0, start=False))
    with pytest.raises(Conflict) as refused:
        await queue.apply(job.id, JobEvent.RESUME)
    assert refused.value.code == "job_empty"


async def test_a_finished_job_has_no_error_and_a_time(queue: Queue) -> None:
    """Nothing is wrong with what is whole; a job that is reopened is not transferred."""
    job = await queue.failed()
    await queue.apply(job.id, JobEvent.RESUME, JobEvent.DISPATCH)
    await queue.done(job.id)
    done = await queue.apply(job.id, JobEvent.FINISH)
    assert (done.error, done.error_count, done.transferred_at) == (None, 1, NOW)
    assert (await queue.apply(job.id, JobEvent.REOPEN)).transferred_at is None


async def test_leaving_the_queue_takes_files_and_secrets_along(queue: Queue) -> None:
    """The last view has the final state; nothing of the job can be read afterwards."""
    job = await queue.make(with_secrets(spec(2), credential()))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.CONNECT)
    await queue.done(job.id, 0, size=7)
    last = await queue.apply(job.id, JobEvent.COMPLETE)
    assert (last.state, last.files_transferred) == (JobState.ACKNOWLEDGED, 1)
    assert last.credentials == job.credentials
    with pytest.raises(NotFound):
        await queue.jobs.secrets(job.id, NOW)


# ── what is told ─────────────────────────────────────────────────────────────────────────────


async def test_a_move_and_its_notice_are_one(queue: Queue) -> None:
    """The notice shows the job as it is after the move (transactional outbox)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.done(job.id)
    outcome = await queue.jobs.apply(job.id, JobEvent.FINISH, later(3))
    (notice,) = outcome.notices
    assert notice.kind is NoticeKind.TRANSFERRED
    assert (notice.job, notice.created, notice.settled) == (outcome.job, later(3), False)
    assert await queue.notices.notice(notice.number) == notice


async def test_only_wanted_notices_are_written_but_the_end_always(queue: Queue) -> None:
    """ENDED is how a listener learns that the job has left (DESIGN 5)."""
    quiet = replace(spec(), settings=settings(kinds=NoticeKind(0)))
    job = await queue.transferred(quiet)
    await queue.apply(job.id, JobEvent.COMPLETE)
    failed = await queue.failed(quiet)
    await queue.apply(failed.id, JobEvent.CANCEL)
    assert await queue.kinds() == [NoticeKind.ENDED, NoticeKind.ENDED]


async def test_a_transient_failure_tells_nobody(queue: Queue) -> None:
    """JOB_ERROR is never for TRANSIENT_ERROR (BITS 1.9)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    assert await queue.kinds() == []


async def test_resume_makes_the_notice_of_the_error_moot(queue: Queue) -> None:
    """Nobody is told again of an error that its owner has dealt with."""
    job = await queue.failed()
    assert await queue.open_kinds() == [NoticeKind.ERROR]
    await queue.apply(job.id, JobEvent.RESUME)
    assert await queue.open_kinds() == []


@pytest.mark.parametrize("event", [JobEvent.COMPLETE, JobEvent.CANCEL])
async def test_the_owners_end_settles_what_is_open(queue: Queue, event: JobEvent) -> None:
    """Whoever completes or cancels knows already."""
    job = await queue.transferred()
    await queue.apply(job.id, event)
    assert await queue.open_kinds() == []


@pytest.mark.parametrize(
    ("event", "kind"),
    [(JobEvent.COMPLETE, NoticeKind.TRANSFERRED), (JobEvent.CANCEL, NoticeKind.ERROR)],
)
async def test_the_daemons_own_end_leaves_notices_open(
    queue: Queue, event: JobEvent, kind: NoticeKind
) -> None:
    """Promise 4: they are delivered although the job is gone, with all that delivery needs."""
    done = kind is NoticeKind.TRANSFERRED
    job = await (queue.transferred() if done else queue.failed())
    await queue.apply(job.id, event, change=Change())
    (notice,) = await queue.notices.unsettled(
        owner=ALICE, job_id=None, kinds=kind, after=0, limit=9
    )
    assert (notice.kind, notice.job) == (kind, job)


# ── scheduling ───────────────────────────────────────────────────────────────────────────────


async def _order(queue: Queue, priority: Priority = Priority.NORMAL) -> list[JobId]:
    return await queue.runnable(priority, 99)


async def test_jobs_run_in_the_order_of_queueing(queue: Queue) -> None:
    """Each move into the queue goes to its end; the time slice relies on it (BITS 1.6)."""
    first, second, third = [await queue.make() for _ in range(3)]
    await queue.apply(first.id, JobEvent.DISPATCH, JobEvent.REQUEUE)
    await queue.apply(second.id, JobEvent.SUSPEND)
    assert await _order(queue) == [third.id, first.id]
    await queue.apply(second.id, JobEvent.RESUME)
    assert await _order(queue) == [third.id, first.id, second.id]
    (claim,) = await queue.jobs.runnable(Priority.NORMAL, ONE, EVERY_COST)
    assert claim.owner == ALICE


async def test_a_priority_has_a_queue_of_its_own(queue: Queue) -> None:
    """The scheduler asks class by class."""
    low = replace(spec(), settings=settings(priority=Priority.LOW))
    job = await queue.make(low)
    await queue.make()
    assert await _order(queue, Priority.LOW) == [job.id]


async def test_waiting_jobs_are_due_in_the_order_of_their_times(queue: Queue) -> None:
    """A wait that is over is found, and the next one is known."""
    ids: list[JobId] = []
    for at in (300.0, 100.0, 200.0):
        job = await queue.make()
        await queue.apply(job.id, JobEvent.DISPATCH)
        await queue.apply(job.id, JobEvent.STUMBLE, change=stumble(at))
        ids.append(job.id)
    assert await queue.next_due() == 100.0
    assert await queue.jobs.retry(99.0, NOW, limit=9) == ()
    first, second = await queue.jobs.retry(200.0, later(3), limit=9)
    assert (first.job.id, second.job.id) == (ids[1], ids[2])
    assert (first.before, first.job.state) == (JobState.TRANSIENT_ERROR, JobState.QUEUED)
    assert first.job == await queue.jobs.job(ids[1])
    assert await _order(queue) == [ids[1], ids[2]]
    assert await queue.next_due() == 300.0
    await queue.apply(ids[0], JobEvent.SUSPEND)
    assert await queue.next_due() is None
    assert (await queue.jobs.job(ids[0])).retry_at is None


async def test_jobs_whose_wait_is_over_are_queued_so_many_at_a_time(queue: Queue) -> None:
    """After a long absence there may be any number of them."""
    for _ in range(3):
        job = await queue.make()
        await queue.apply(job.id, JobEvent.DISPATCH)
        await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    assert [len(await queue.jobs.retry(1e9, NOW, limit=2)) for _ in range(3)] == [2, 1, 0]


async def _waits(queue: Queue, change: Change, priority: Priority = Priority.NORMAL) -> JobId:
    job = await queue.make(replace(spec(), settings=settings(priority=priority)))
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=change)
    return job.id


async def test_waits_are_brought_forward_and_none_is_put_off(queue: Queue) -> None:
    """The network is back: foreground jobs go at once, others soon, the next ones as before."""
    front = await _waits(queue, stumble(300.0), Priority.FOREGROUND)
    back, soon = await _waits(queue, stumble(300.0)), await _waits(queue, stumble(120.0))
    after: int | None = 0
    looks = 0
    while after is not None:
        after, looks = await queue.jobs.hasten(100.0, 150.0, after=after, limit=2), looks + 1
    assert looks == 2
    found = [(await queue.jobs.job(job)).retry_at for job in (front, back, soon)]
    assert found == [100.0, 150.0, 120.0]


async def test_a_wait_that_was_brought_forward_does_not_count_to_its_end(queue: Queue) -> None:
    """Nobody is given up for waits that he did not wait: a network may come back often."""
    waits = [await _waits(queue, replace(stumble(at), stuck=200.0)) for at in (300.0, 120.0)]
    await queue.jobs.hasten(100.0, 150.0, after=0, limit=9)
    assert [(await queue.jobs.job(job)).stuck_seconds for job in waits] == [50.0, 200.0]


async def test_the_network_says_nothing_of_a_server_that_has_answered(queue: Queue) -> None:
    """RFC 9110 10.2.3: who was told when to come back comes back then."""
    busy = Failure(code="http_503", message="it is busy", http_status=503)
    told = await _waits(queue, replace(stumble(300.0), failure=busy))
    endless = await _waits(queue, Change(failure=REFUSED))
    assert await queue.jobs.hasten(100.0, 150.0, after=0, limit=9) is None
    assert (await queue.jobs.job(told)).retry_at == 300.0
    assert (await queue.jobs.job(endless)).retry_at is None


async def test_what_was_said_for_one_network_is_over_on_another(queue: Queue) -> None:
    """A login page or a proxy may have asked for the day in the server's name."""
    busy = Failure(code="http_503", message="it is busy", http_status=503)
    day = Retry(at=86_500.0, delay=86_400.0, here=True)
    told = await _waits(queue, replace(stumble(), failure=busy, retry=day))
    await queue.jobs.hasten(100.0, 150.0, after=0, limit=9)
    assert (await queue.jobs.job(told)).retry_at == 150.0
    await queue.jobs.retry(150.0, NOW, limit=9)
    await queue.apply(told, JobEvent.DISPATCH)
    later = replace(stumble(300.0), failure=busy)
    assert not (await queue.apply(told, JobEvent.STUMBLE, change=later)).retry_here


async def test_a_wait_that_nobody_has_tried_for_counts_no_attempt(queue: Queue) -> None:
    """A server that is left alone does not make the job's own delays longer."""
    change = replace(stumble(), tried=False, counts=False)
    waiting = await queue.jobs.job(await _waits(queue, change))
    assert (waiting.attempts, waiting.error_count, waiting.retry_at) == (0, 0, 160.0)


async def test_a_wait_without_a_time_is_never_due(queue: Queue) -> None:
    """It waits for an event, such as the network's return (BITS Y4)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=Change(failure=REFUSED))
    assert await queue.next_due() is None
    assert await queue.jobs.retry(1e12, NOW, limit=9) == ()


async def test_untouched_jobs_are_found_oldest_first(queue: Queue) -> None:
    """Any change is a touch (BITS Y8)."""
    first, second, third = [await queue.make() for _ in range(3)]
    await queue.jobs.change_settings(first.id, lambda now: now, later(10))
    await queue.apply(second.id, JobEvent.DISPATCH)
    await queue.report(second.id, offset(5), at=later(20))
    await queue.jobs.add_files(
        third.id, file_specs(1, first=5), later(5), files_per_job=9, quota=Quota()
    )
    assert await queue.jobs.untouched_since(later(15), 9) == (third.id, first.id)
    assert await queue.jobs.untouched_since(NOW, 9) == ()


# ── after a start ────────────────────────────────────────────────────────────────────────────


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Promise 2; interrupted jobs come back first, and a wait is no longer than its delay."""
    async with open_queue(tmp_path / "state") as queue:
        running = await queue.make()
        behind = await queue.make()
        waiting = await queue.make(spec(job_id=ID))
        await queue.apply(waiting.id, JobEvent.DISPATCH)
        waits = await queue.apply(waiting.id, JobEvent.STUMBLE, change=stumble(5000.0, 60.0))
        await queue.apply(running.id, JobEvent.DISPATCH, JobEvent.CONNECT)
        await queue.report(running.id, offset(40))
    async with open_queue(tmp_path / "state") as queue:
        assert await queue.jobs.job(waiting.id) == waits
        assert await queue.jobs.recover(1000.0) == 1
        assert await _order(queue) == [running.id, behind.id]
        assert (await queue.jobs.job(running.id)).bytes_transferred == 40
        assert (await queue.jobs.job(waiting.id)).retry_at == 1060.0
        assert await queue.jobs.recover(1010.0) == 0
        assert (await queue.jobs.job(waiting.id)).retry_at == 1060.0


# ── temporary files that are left over ───────────────────────────────────────────────────────


async def _strays(queue: Queue) -> list[str]:
    return [each.temporary for each in await queue.jobs.strays(1000)]


async def test_partial_files_of_a_cancelled_job_become_strays(queue: Queue) -> None:
    """They are removed by the owner's worker, also after a crash in between (BITS K6, V6)."""
    job = await queue.make(spec(3))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.CONNECT)
    await queue.done(job.id, 0)
    await queue.jobs.mark_published(job.id, [0])
    await queue.report(job.id, offset(5, file=1))
    await queue.apply(job.id, JobEvent.CANCEL)
    strays = await queue.jobs.strays(9)
    assert {each.temporary for each in strays} == {
        f"/home/alice/.{name}.transferd-{job.id}" for name in (1, 2)
    }
    assert {each.owner for each in strays} == {ALICE}
    assert await queue.jobs.strays(9, after=strays[0].number) == strays[1:]
    await queue.jobs.forget_strays([strays[0].number])
    assert await queue.jobs.strays(9) == strays[1:]


async def test_a_job_that_never_ran_leaves_no_strays(queue: Queue) -> None:
    """Cancelling a thousand waiting jobs starts no worker."""
    job = await queue.make(spec(3))
    await queue.apply(job.id, JobEvent.CANCEL)
    assert await _strays(queue) == []


async def test_only_the_next_files_may_have_been_begun(queue: Queue) -> None:
    """Files begin in order, so that most of a long job has none to remove."""
    job = await queue.make(spec(3000))
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.CANCEL)
    strays = {each.temporary for each in await queue.jobs.strays(9999)}
    assert f"/home/alice/.0.transferd-{job.id}" in strays
    assert f"/home/alice/.1000.transferd-{job.id}" in strays
    assert len(strays) < 1100


async def test_inactivity_is_measured_from_any_day(queue: Queue) -> None:
    """Ninety days later an untouched job is old, and a moment before that it is not."""
    job = await queue.make()
    assert await queue.jobs.untouched_since(NOW + timedelta(microseconds=1), 9) == (job.id,)
    assert await queue.jobs.untouched_since(NOW, 9) == ()
