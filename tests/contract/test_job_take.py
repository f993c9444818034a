"""A job becomes somebody else's, as the SQLite store does it (BITS.md O3, A19, M8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.store import (
    ALICE,
    BOB,
    EVERY_KIND,
    PASSWORD,
    Queue,
    credential,
    header,
    later,
    open_queue,
    settings,
    spec,
    stumble,
    with_secrets,
)
from transferd.model.credentials import NegotiateOptions, Scheme
from transferd.model.errors import Conflict, NotFound
from transferd.model.job import Job, JobId, JobSpec
from transferd.model.notices import Notice, NoticeKind
from transferd.model.states import JobEvent, JobState

COMMAND = ("/home/alice/tell-me", "done")
KEYTAB = "/home/alice/keytab"


def secretive() -> JobSpec:
    """A wish with everything that is its owner's alone."""
    wish = replace(
        spec(),
        settings=replace(
            settings(),
            notify_command=COMMAND,
            header_names=("X-Api-Key",),
            negotiate=NegotiateOptions(keytab=KEYTAB, principal="alice"),
        ),
    )
    secrets = (credential(), credential(scheme=Scheme.DIGEST))
    return with_secrets(wish, *secrets, headers=(header("X-Api-Key", PASSWORD),))


async def in_state(queue: Queue, state: JobState) -> Job:
    """A job of alice's in a state."""
    job = await queue.make(secretive())
    dispatched = (JobEvent.DISPATCH,)
    match state:
        case JobState.QUEUED:
            return job
        case JobState.SUSPENDED:
            return await queue.apply(job.id, JobEvent.SUSPEND)
        case JobState.CONNECTING:
            return await queue.apply(job.id, *dispatched)
        case JobState.TRANSFERRING:
            return await queue.apply(job.id, *dispatched, JobEvent.CONNECT)
        case JobState.TRANSIENT_ERROR:
            return await queue.apply(job.id, *dispatched, JobEvent.STUMBLE, change=stumble())
        case JobState.ERROR:
            return await queue.apply(job.id, *dispatched, JobEvent.FAIL, change=stumble())
        case _:
            await queue.apply(job.id, *dispatched)
            await queue.done(job.id)
            return await queue.apply(job.id, JobEvent.FINISH)


RESTING = [state for state in JobState if not state.running and not state.final]


@pytest.mark.parametrize("state", RESTING, ids=lambda state: state.label)
async def test_a_job_in_any_state_is_given_away_without_what_was_its_owners(
    queue: Queue, state: JobState
) -> None:
    """BITS 1.3.2: TakeOwnership is right in every state that is not final."""
    before = await in_state(queue, state)
    moved = await queue.jobs.take(before.id, BOB, later(5))
    job = await queue.jobs.job(before.id)
    assert moved.job == job
    assert (job.owner, job.state, job.modified) == (BOB, before.state, later(5))
    assert (job.credentials, job.settings.header_names) == ((), ())
    assert job.settings.notify_command is None
    assert job.settings.negotiate == NegotiateOptions()
    assert job.settings.wary
    secrets = await queue.jobs.secrets(job.id, later(5))
    assert (secrets.credentials, secrets.headers) == ((), ())
    progress = ("files_transferred", "bytes_transferred", "error", "retry_at", "attempts")
    assert all(getattr(job, name) == getattr(before, name) for name in progress)


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
async def test_a_job_that_runs_is_not_given_away(queue: Queue, state: JobState) -> None:
    """A worker of the former owner has its secrets, and writes its files."""
    before = await in_state(queue, state)
    with pytest.raises(Conflict) as refused:
        await queue.jobs.take(before.id, BOB, later(5))
    assert refused.value.code == "job_running"
    assert await queue.jobs.job(before.id) == before


@pytest.mark.parametrize("event", [JobEvent.COMPLETE, JobEvent.CANCEL])
async def test_a_job_that_has_left_is_nobodys(queue: Queue, event: JobEvent) -> None:
    """A final state refuses everything."""
    job = await queue.transferred()
    await queue.apply(job.id, event)
    with pytest.raises(NotFound):
        await queue.jobs.take(job.id, BOB, later(5))


async def test_whose_job_it_is_already_keeps_it_as_it_is(queue: Queue) -> None:
    """To take what one has changes nothing, secrets included."""
    before = await in_state(queue, JobState.SUSPENDED)
    moved = await queue.jobs.take(before.id, ALICE, later(5))
    assert (moved.job, moved.notices) == (before, ())
    assert await queue.jobs.job(before.id) == before
    assert len((await queue.jobs.secrets(before.id, later(5))).credentials) == 2


async def test_the_former_owner_is_told_that_his_job_is_gone(queue: Queue) -> None:
    """His programs wait for an end, and this is one for them."""
    before = await in_state(queue, JobState.SUSPENDED)
    moved = await queue.jobs.take(before.id, BOB, later(5))
    heard = await queue.notices.replay(
        after=0, owner=ALICE, job_id=before.id, kinds=NoticeKind.ENDED, limit=10
    )
    assert moved.notices == heard
    assert [(n.kind, n.settled, n.job) for n in heard] == [(NoticeKind.ENDED, True, before)]


async def test_open_notices_become_the_new_owners_without_the_former_ones_command(
    queue: Queue,
) -> None:
    """A command that stands in a notice would run as the new owner."""
    before = await in_state(queue, JobState.ERROR)
    (owed,) = await _open(queue, ALICE, before.id)
    await queue.notices.delivered([owed.number])
    moved = await queue.jobs.take(before.id, BOB, later(5))
    assert await _open(queue, ALICE, before.id) == ()
    (inherited,) = await _open(queue, BOB, before.id)
    assert inherited == moved.notices[1]
    assert (inherited.number, inherited.deliveries) == (owed.number, 0)
    told = inherited.job
    assert (told.owner, told.state, told.error) == (BOB, JobState.ERROR, before.error)
    assert (told.credentials, told.settings.header_names) == ((), ())
    assert told.settings.notify_command is None
    assert told.settings.negotiate == NegotiateOptions()


async def test_what_was_settled_stays_with_whom_it_was_told(queue: Queue) -> None:
    """The former owner's past is not the new one's business."""
    before = await in_state(queue, JobState.ERROR)
    (owed,) = await _open(queue, ALICE, before.id)
    await queue.notices.settle(owed.number)
    await queue.jobs.take(before.id, BOB, later(5))
    theirs = await queue.notices.replay(
        after=0, owner=BOB, job_id=before.id, kinds=EVERY_KIND | NoticeKind.ENDED, limit=10
    )
    assert theirs == ()
    assert (await queue.notices.notice(owed.number)).owner == ALICE


async def test_a_notice_is_settled_by_whom_it_is_for(queue: Queue) -> None:
    """Between a look and the acknowledgement the job may have got another owner."""
    before = await in_state(queue, JobState.ERROR)
    (owed,) = await _open(queue, ALICE, before.id)
    await queue.jobs.take(before.id, BOB, later(5))
    with pytest.raises(NotFound) as refused:
        await queue.notices.settle(owed.number, ALICE)
    assert refused.value.code == "notice_not_found"
    assert (await _open(queue, BOB, before.id)) != ()
    assert (await queue.notices.settle(owed.number, BOB)).settled


async def test_a_taken_job_counts_for_its_new_owner(queue: Queue) -> None:
    """Tallies are what limits are judged by."""
    before = await in_state(queue, JobState.TRANSFERRED)
    await queue.jobs.take(before.id, BOB, later(5))
    assert await queue.jobs.tallies() == {BOB: {JobState.TRANSFERRED: 1}}
    counts = await queue.jobs.counts()
    assert counts[JobState.TRANSFERRED] == 1


async def test_what_a_taken_job_leaves_behind_is_its_new_owners_to_remove(queue: Queue) -> None:
    """The former owner's worker has nothing to do with it any more."""
    before = await in_state(queue, JobState.TRANSFERRED)
    await queue.jobs.take(before.id, BOB, later(5))
    await queue.apply(before.id, JobEvent.CANCEL)
    assert [stray.owner for stray in await queue.jobs.strays(10)] == [BOB]


async def test_the_former_owners_request_makes_no_second_job(queue: Queue) -> None:
    """An id stays used, and he is told nothing of the job that was his."""
    wish = replace(spec(job_id="6f1c9a52-0d6e-4b1b-9b06-000000000001"), fingerprint=b"body")
    job = await queue.make(wish)
    await queue.jobs.take(job.id, BOB, later(5))
    with pytest.raises(Conflict, match="another request has used this id") as refused:
        await queue.make(wish)
    assert refused.value.code == "id_used"


async def test_nothing_is_told_of_another_users_id(queue: Queue) -> None:
    """Whether the job is there, has ended or was taken: the text is the same."""
    ids = [f"6f1c9a52-0d6e-4b1b-9b06-00000000000{number}" for number in range(3)]
    jobs = [await queue.make(spec(job_id=job_id)) for job_id in ids]
    await queue.apply(jobs[1].id, JobEvent.CANCEL)
    await queue.jobs.take(jobs[2].id, BOB + 1, later(5))
    texts = set()
    for job_id in ids:
        with pytest.raises(Conflict) as refused:
            await queue.make(spec(job_id=job_id), owner=BOB)
        texts.add(refused.value.detail.replace(job_id, "ID"))
    assert len(texts) == 1


async def test_the_former_owners_secrets_are_not_in_the_file_any_more(tmp_path: Path) -> None:
    """After a restart there is nothing that a later fault could bring back."""
    async with open_queue(tmp_path) as queue:
        job = await in_state(queue, JobState.ERROR)
        await queue.jobs.take(job.id, BOB, later(5))
        rows = await queue.kinds(job.id)
        assert rows == [NoticeKind.ERROR, NoticeKind.ENDED]
    async with open_queue(tmp_path) as queue:
        kept = await queue.jobs.job(job.id)
        assert (kept.owner, kept.credentials) == (BOB, ())
        open_notices = await _open(queue, None, job.id)
        assert KEYTAB not in repr(kept) + repr(open_notices)
        assert COMMAND[0] not in repr(kept) + repr(open_notices)


async def _open(queue: Queue, owner: int | None, job_id: JobId) -> tuple[Notice, ...]:
    return await queue.notices.unsettled(
        owner=owner, job_id=job_id, kinds=EVERY_KIND, after=0, limit=10
    )
