"""What the service may rely on when it asks the outbox."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.store import ALICE, BOB, NOW, Queue, later, open_queue, settings, spec
from transferd.model.errors import Conflict, NotFound
from transferd.model.job import JobId
from transferd.model.limits import Quota
from transferd.model.notices import TERMINAL, Notice, NoticeKind
from transferd.model.states import JobEvent

ANY = NoticeKind.TRANSFERRED | NoticeKind.ERROR | NoticeKind.FILE_TRANSFERRED | NoticeKind.ENDED
ID = "6f1c9a52-0d6e-4b1b-9b06-000000000001"


async def _replay(
    queue: Queue,
    *,
    after: int = 0,
    owner: int | None = None,
    job_id: JobId | None = None,
    kinds: NoticeKind = ANY,
    limit: int = 99,
) -> list[int]:
    found = await queue.notices.replay(
        after=after, owner=owner, job_id=job_id, kinds=kinds, limit=limit
    )
    return [notice.number for notice in found]


async def _unsettled(
    queue: Queue,
    *,
    after: int = 0,
    owner: int | None = None,
    job_id: JobId | None = None,
    kinds: NoticeKind = TERMINAL,
) -> tuple[Notice, ...]:
    return await queue.notices.unsettled(
        owner=owner, job_id=job_id, kinds=kinds, after=after, limit=99
    )


async def test_numbers_grow_by_one(queue: Queue) -> None:
    """They are the cursor of replay, and a gap would mean a loss."""
    await queue.transferred()
    await queue.failed()
    assert await _replay(queue) == [1, 2, 3]
    assert await queue.kinds() == [
        NoticeKind.FILE_TRANSFERRED,
        NoticeKind.TRANSFERRED,
        NoticeKind.ERROR,
    ]


async def test_replay_is_narrowed_by_everything_at_once(queue: Queue) -> None:
    """Cursor, owner, job, kinds and limit hold together."""
    alices = await queue.transferred()
    (made,) = await queue.jobs.create(BOB, [spec()], NOW, quota=Quota(jobs_per_user=9))
    bobs = made.job.id
    await queue.apply(bobs, JobEvent.DISPATCH, JobEvent.FAIL)
    await queue.apply(alices.id, JobEvent.CANCEL)
    assert await _replay(queue) == [1, 2, 3, 4]
    assert await _replay(queue, after=2) == [3, 4]
    assert await _replay(queue, limit=2) == [1, 2]
    assert await _replay(queue, owner=ALICE) == [1, 2, 4]
    assert await _replay(queue, owner=BOB, job_id=alices.id) == []
    assert await _replay(queue, owner=BOB, job_id=bobs) == [3]
    assert await _replay(queue, job_id=alices.id, kinds=NoticeKind.ENDED) == [4]
    assert await _replay(queue, kinds=NoticeKind(0)) == []


async def test_replay_of_long_notices_comes_in_pieces(queue: Queue) -> None:
    """Each listener who does not read holds one of them, and there may be thousands."""
    long = replace(settings(), notify_command=("/bin/true", "x" * 3900))
    for _ in range(100):
        job = await queue.make(replace(spec(), settings=long))
        await queue.apply(job.id, JobEvent.CANCEL)
    met: list[int] = []
    pieces = 0
    while found := await _replay(queue, after=met[-1] if met else 0, limit=1000):
        met += found
        pieces += 1
    assert met == list(range(1, 101))
    assert 10 < pieces < 25


async def test_terminal_notices_wait_until_they_are_settled(queue: Queue) -> None:
    """Promise 4: they are there for a listener that registers late, and again and again."""
    first = await queue.transferred()
    second = await queue.failed()
    (transferred, error) = await _unsettled(queue)
    assert (transferred.job_id, error.job_id) == (first.id, second.id)
    assert await _unsettled(queue, kinds=NoticeKind.ERROR) == (error,)
    assert await _unsettled(queue, job_id=first.id) == (transferred,)
    assert await _unsettled(queue, owner=BOB) == ()
    assert await _unsettled(queue, owner=ALICE, after=transferred.number) == (error,)
    settled = await queue.notices.settle(transferred.number)
    assert settled.settled
    assert await queue.notices.settle(transferred.number) == settled
    assert await _unsettled(queue) == (error,)


async def test_a_look_is_of_one_moment(queue: Queue) -> None:
    """What is newest and what there is of it belong together: nothing is missed in between."""
    await queue.transferred()
    look = await queue.notices.look(after=1, owner=ALICE, job_id=None, kinds=ANY, limit=9)
    assert (look.oldest, look.newest) == await queue.notices.bounds(ALICE)
    assert [notice.number for notice in look.notices] == await _replay(queue, after=1) == [2]
    late = await queue.notices.look(after=2, owner=ALICE, job_id=None, kinds=ANY, limit=9)
    assert (late.newest, late.notices) == (2, ())


async def test_many_are_settled_at_once_those_of_others_are_not(queue: Queue) -> None:
    """One transaction for all; each is told apart from what was settled before."""
    first, second = await queue.transferred(), await queue.failed()
    hers, error = await _unsettled(queue)
    bobs = await queue.make(owner=BOB)
    await queue.apply(bobs.id, JobEvent.DISPATCH, JobEvent.FAIL)
    (his,) = await _unsettled(queue, owner=BOB)
    await queue.notices.settle(error.number)
    numbers = [his.number, 999, error.number, hers.number]
    found = await queue.notices.settle_all(numbers, ALICE)
    assert [(each.number, each.owner, each.new) for each in found] == [
        (his.number, BOB, False),
        (error.number, ALICE, False),
        (hers.number, ALICE, True),
    ]
    assert found[2].created == hers.created
    assert [notice.job_id for notice in await _unsettled(queue)] == [bobs.id]
    assert first.id != second.id


async def test_what_needs_no_acknowledgement_is_settled_at_once(queue: Queue) -> None:
    """ENDED and FILE_TRANSFERRED are told, not confirmed."""
    job = await queue.transferred()
    await queue.apply(job.id, JobEvent.COMPLETE)
    assert await _unsettled(queue, kinds=ANY) == ()
    assert await queue.kinds(job.id) == [
        NoticeKind.FILE_TRANSFERRED,
        NoticeKind.TRANSFERRED,
        NoticeKind.ENDED,
    ]


async def test_deliveries_are_counted(queue: Queue) -> None:
    """After a few in vain the command runs instead (BITS M5)."""
    await queue.transferred()
    await queue.notices.delivered([2, 2, 99])
    assert (await queue.notices.notice(2)).deliveries == 2
    assert (await queue.notices.notice(1)).deliveries == 0


async def test_an_unknown_notice_is_not_found(queue: Queue) -> None:
    """Neither read nor settled."""
    for attempt in (queue.notices.notice(1), queue.notices.settle(1)):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "notice_not_found"


async def test_bounds_name_what_is_there_and_what_ever_was(queue: Queue) -> None:
    """A listener can tell whether it has missed something for good."""
    assert await queue.notices.bounds() == (1, 0)
    job = await queue.transferred()
    assert await queue.notices.bounds() == (1, 2)
    await queue.jobs.apply(job.id, JobEvent.CANCEL, later(100))
    assert await queue.notices.prune(later(50)) == 2
    assert await queue.notices.bounds() == (3, 3)
    assert await queue.notices.prune(later(500)) == 1
    assert await queue.notices.bounds() == (4, 3)


async def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """A cursor that a listener kept stays good, even when the outbox was emptied."""
    async with open_queue(tmp_path / "state") as queue:
        await queue.transferred()
        await queue.notices.prune(later(500))
    async with open_queue(tmp_path / "state") as queue:
        await queue.failed(spec(job_id=ID))
        assert await _replay(queue) == [3]


async def test_pruning_forgets_old_ids_and_open_notices(queue: Queue) -> None:
    """Nothing is kept for ever; younger ids are still refused."""
    job = await queue.make(spec(job_id=ID))
    await queue.jobs.apply(job.id, JobEvent.CANCEL, later(100))
    await queue.transferred()
    await queue.notices.prune(later(100))
    assert await _unsettled(queue) == ()
    with pytest.raises(Conflict):
        await queue.make(spec(job_id=ID))
    await queue.notices.prune(later(101))
    assert (await queue.make(spec(job_id=ID))).id == ID


async def test_a_long_outbox_is_pruned_in_pieces(queue: Queue) -> None:
    """Everything old goes, however much there is."""
    job = await queue.make(spec(2500))
    async with asyncio.TaskGroup() as group:
        for file in range(2500):
            group.create_task(queue.done(job.id, file))
    assert await queue.notices.prune(later(500)) == 2500
    assert await _replay(queue) == []
