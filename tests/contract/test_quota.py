"""How full the queue may be: jobs and bytes, of one user and of all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.store import (
    ALICE,
    BOB,
    NOW,
    Queue,
    credential,
    done,
    file_specs,
    offset,
    open_queue,
    spec,
    with_secrets,
)
from transferd.model.errors import Conflict
from transferd.model.job import FileSpec, JobId, JobSpec, Priority
from transferd.model.limits import Quota
from transferd.model.notices import NoticeKind
from transferd.model.reports import Reset, Sized
from transferd.model.states import JobEvent
from transferd.store.opening import QUEUE_FILE


async def _refusal(queue: Queue, owner: int, quota: Quota, jobs: int = 1) -> tuple[str, str]:
    """Return code and text of a refusal to make so many jobs."""
    with pytest.raises(Conflict) as refused:
        await queue.jobs.create(owner, [spec()] * jobs, NOW, quota=quota)
    return refused.value.code, refused.value.detail


async def _sized(queue: Queue, owner: int, *sizes: int) -> JobId:
    """Make a job with files of these sizes."""
    job = await queue.make(spec(len(sizes)), owner=owner)
    for file, size in enumerate(sizes):
        await queue.report(job.id, Sized(file=file, total=size))
    return job.id


async def _refused_size(queue: Queue, job: JobId, total: int, quota: Quota) -> str:
    """Return why a size is not kept."""
    refusal = (await queue.report(job, Sized(file=0, total=total), quota=quota)).refusal
    assert refusal is not None
    assert refusal.code == "queue_full"
    return refusal.detail


async def test_a_user_has_so_many_jobs(queue: Queue) -> None:
    """BITS 1.18 MaxJobsPerUser; the refusal names the figures, and is nobody else's."""
    quota = Quota(jobs_per_user=2)
    await queue.make()
    code, text = await _refusal(queue, ALICE, quota, jobs=2)
    assert code == "too_many_jobs"
    assert text == (
        "cannot make 2 jobs beside the 1 in the queue: one user may have 2;"
        " complete or cancel some jobs first"
    )
    await queue.jobs.create(ALICE, [spec()], NOW, quota=quota)
    await queue.jobs.create(BOB, [spec(), spec()], NOW, quota=quota)


async def test_a_machine_has_so_many_jobs(queue: Queue) -> None:
    """BITS 1.18 MaxJobsPerMachine: whoever comes last is refused, and those who may go on."""
    quota = Quota(jobs_per_machine=2)
    first = await queue.make()
    await queue.make(owner=BOB)
    code, text = await _refusal(queue, BOB, quota)
    assert code == "queue_full"
    assert "beside the 2 that all users have" in text
    await queue.jobs.create(BOB, [spec()], NOW, quota=Quota())
    await queue.apply(first.id, JobEvent.CANCEL)
    await _refusal(queue, BOB, quota)
    await queue.jobs.create(BOB, [spec()], NOW, quota=Quota(jobs_per_machine=3))


async def test_a_repeated_request_is_refused_by_no_limit(queue: Queue) -> None:
    """It makes nothing."""
    wish = spec(job_id="wanted")
    await queue.make(wish)
    full = Quota(jobs_per_user=0, jobs_per_machine=0, bytes_per_user=0, bytes_per_machine=0)
    (again,) = await queue.jobs.create(ALICE, [wish], NOW, quota=full)
    assert not again.new


@pytest.mark.parametrize("quota", [Quota(bytes_per_user=30), Quota(bytes_per_machine=50)])
async def test_with_no_byte_left_nothing_is_added(queue: Queue, quota: Quota) -> None:
    """Neither jobs nor files, until others have gone; the text names the figures."""
    await _sized(queue, BOB, 20)
    job = await _sized(queue, ALICE, 10, 20)
    limit = quota.bytes_per_user or quota.bytes_per_machine
    code, text = await _refusal(queue, ALICE, quota)
    assert (code, f"have {limit} bytes, and {limit} are allowed" in text) == ("queue_full", True)
    with pytest.raises(Conflict) as refused:
        await queue.jobs.add_files(job, file_specs(1, first=5), NOW, files_per_job=9, quota=quota)
    assert refused.value.code == "queue_full"
    assert (await queue.jobs.job(job)).files_total == 2
    await queue.report(job, Reset(file=0))
    await queue.jobs.create(ALICE, [spec()], NOW, quota=quota)


async def test_a_size_is_kept_while_there_is_room(queue: Queue) -> None:
    """Named before the first byte, refused when it is too much with the others of the owner."""
    await _sized(queue, BOB, 1000)
    await _sized(queue, ALICE, 60)
    job = (await queue.make()).id
    quota = Quota(bytes_per_user=100)
    assert await _refused_size(queue, job, 41, quota) == (
        "cannot fetch https://h/0: it has 41 bytes, the other files of this user's jobs in the"
        " queue have 60, and 100 are allowed together"
    )
    assert (await queue.jobs.job(job)).bytes_total is None
    await queue.report(job, Sized(file=0, total=40), quota=quota)
    assert (await queue.jobs.job(job)).bytes_total == 40
    kept = await queue.report(job, Sized(file=0, total=40), quota=Quota(bytes_per_user=1))
    assert kept.refusal is None  # it is counted already


async def test_all_users_together_have_so_many_bytes(queue: Queue) -> None:
    """The machine's limit is held against everybody's files."""
    await _sized(queue, BOB, 60)
    job = (await queue.make()).id
    refusal = await _refused_size(queue, job, 41, Quota(bytes_per_machine=100))
    assert "all users' jobs in the queue have 60" in refusal


async def test_sizes_that_come_together_are_held_against_each_other(queue: Queue) -> None:
    """What is not counted yet counts; what else was reported is kept, but no later size."""
    job = (await queue.make(spec(4))).id
    await queue.apply(job, JobEvent.DISPATCH)
    sizes = [Sized(file=file, total=total) for file, total in enumerate((60, 50, 1))]
    quota = Quota(bytes_per_user=100)
    kept = await queue.jobs.keep(job, [*sizes, done(3, size=5)], NOW, quota=quota, extend=9)
    assert kept.refusal is not None
    assert "it has 50 bytes, the other files of this user's jobs in the queue have 60" in (
        kept.refusal.detail
    )
    files = (await queue.jobs.files(job, after=-1, limit=9)).files
    assert [file.bytes_total for file in files] == [60, None, None, 5]


async def test_a_file_that_is_whole_takes_no_other_size(queue: Queue) -> None:
    """What comes late of an earlier run changes nothing."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.done(job.id, size=7)
    await queue.report(job.id, Sized(file=0, total=9))
    assert (await queue.jobs.job(job.id)).bytes_total == 7


async def test_sizes_beyond_every_disk_break_nothing(queue: Queue) -> None:
    """Sums stop at what the queue file can hold: a lie of one server is no error of the queue."""
    largest = 2**63 - 1
    first = await _sized(queue, ALICE, largest, largest)
    await _sized(queue, BOB, largest)
    assert (await queue.jobs.job(first)).bytes_total == largest
    await queue.report(first, *[offset(largest, total=largest)] * 2)
    await queue.done(first, 1, size=largest)
    await queue.report(first, Reset(file=0))
    await queue.report(first, Reset(file=1))
    await queue.apply(first, JobEvent.CANCEL)
    await _sized(queue, BOB, 5)


async def test_a_job_that_changes_hands_counts_for_its_new_owner(tmp_path: Path) -> None:
    """take-ownership is an UPDATE of the owner, of the state, or of both; the sums follow."""
    async with open_queue(tmp_path) as queue:
        await _sized(queue, ALICE, 10)
        await _sized(queue, ALICE, 5)
    with closing(sqlite3.connect(tmp_path / QUEUE_FILE)) as cx:
        assert _sums(cx) == [(ALICE, 2, 15)]
        cx.execute("UPDATE jobs SET owner = ? WHERE bytes_known = 10", [BOB])
        assert _sums(cx) == [(ALICE, 1, 5), (BOB, 1, 10)]
        cx.execute("UPDATE jobs SET owner = ?, state = 3, bytes_known = 7", [BOB])
        assert _sums(cx) == [(ALICE, 0, 0), (BOB, 2, 14)]
        assert cx.execute("SELECT jobs, bytes FROM machine").fetchall() == [(2, 14)]
        cx.execute("DELETE FROM jobs")
        assert _sums(cx) == [(ALICE, 0, 0), (BOB, 0, 0)]
        assert cx.execute("SELECT jobs, bytes FROM machine").fetchall() == [(0, 0)]


def _sums(cx: sqlite3.Connection) -> Sequence[tuple[int, int, int]]:
    query = "SELECT owner, sum(jobs), sum(bytes) FROM tallies GROUP BY owner ORDER BY owner"
    return cx.execute(query).fetchall()


# ── bytes of the queue file ────────────────────────────────────────────────────────────────────


def _shares(directory: Path, owner: int = ALICE) -> tuple[int, int]:
    """Return the bytes of an owner's jobs and strays, and of his notices."""
    with closing(sqlite3.connect(directory / "state" / QUEUE_FILE)) as cx:
        query = "SELECT stored, told FROM shares WHERE owner = ?"
        stored, told = cx.execute(query, [owner]).fetchone()
    return int(stored), int(told)


def _long(files: int, first: int = 0) -> JobSpec:
    return replace(
        spec(),
        files=tuple(
            FileSpec(remote=f"https://h/{'x' * 2000}", local=f"/{'y' * 200}{index}")
            for index in range(first, first + files)
        ),
    )


async def test_a_user_fills_so_much_of_the_queue_file(queue: Queue) -> None:
    """Ten thousand jobs of the largest kind would fill the disk of everybody."""
    quota = Quota(stored_bytes_per_user=60_000)
    with pytest.raises(Conflict) as refused:
        await queue.jobs.create(ALICE, [_long(20), _long(5)], NOW, quota=quota)
    assert refused.value.code == "queue_full"
    assert "and 60000 are allowed; complete or cancel some jobs first" in refused.value.detail
    (made,) = await queue.jobs.create(ALICE, [_long(20)], NOW, quota=quota)
    with pytest.raises(Conflict, match="cannot add files: this user's jobs would take"):
        await queue.jobs.add_files(
            made.job.id, _long(5, 20).files, NOW, files_per_job=99, quota=quota
        )
    assert (await queue.jobs.job(made.job.id)).files_total == 20
    await queue.jobs.create(BOB, [_long(20)], NOW, quota=quota)
    await queue.apply(made.job.id, JobEvent.CANCEL)
    await queue.jobs.create(ALICE, [_long(20)], NOW, quota=quota)


async def test_secrets_and_settings_count_as_well(queue: Queue) -> None:
    """A password may have 64 KiB; what takes less than before is allowed in any case."""
    quota = Quota(stored_bytes_per_user=10_000)
    job = await queue.make()
    with pytest.raises(Conflict, match="cannot keep a credential"):
        await queue.jobs.set_credentials(job.id, [credential("x" * 9500)], NOW, quota=quota)
    assert not (await queue.jobs.job(job.id)).credentials
    await queue.jobs.set_credentials(job.id, [credential("x" * 6000)], NOW, quota=quota)
    long = replace(job.settings, notify_command=("/bin/true", "x" * 3900))
    with pytest.raises(Conflict, match="cannot change the job"):
        await queue.jobs.change_settings(job.id, lambda _: long, NOW, quota=quota)
    await queue.jobs.change_settings(job.id, lambda _: long, NOW)
    await queue.jobs.set_credentials(job.id, [credential("x" * 5999)], NOW, quota=quota)
    await queue.jobs.change_settings(job.id, lambda _: job.settings, NOW, quota=quota)


async def test_what_could_not_be_removed_counts_until_it_is(queue: Queue, tmp_path: Path) -> None:
    """Else whoever keeps his partial data from being removed has jobs without an end."""
    job = await queue.make(_long(20))
    before, _ = _shares(tmp_path)
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.REQUEUE, JobEvent.CANCEL)
    strays = await queue.jobs.strays(99)
    assert len(strays) == 20
    assert _shares(tmp_path)[0] == sum(len(stray.temporary) + 64 for stray in strays) < before
    await queue.jobs.forget_strays([stray.number for stray in strays])
    assert _shares(tmp_path)[0] == 0


async def test_bytes_follow_a_job_to_its_new_owner(queue: Queue, tmp_path: Path) -> None:
    """They are his who can do something about them."""
    await queue.make(owner=BOB)
    job = await queue.make(with_secrets(_long(5), credential("x" * 1000)))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.FAIL)
    stored, told = _shares(tmp_path)
    await queue.jobs.take(job.id, BOB, NOW)
    assert _shares(tmp_path)[0] == 0
    assert stored / 2 < _shares(tmp_path, BOB)[0]
    assert _shares(tmp_path)[1] > 0  # that it has ended
    assert _shares(tmp_path, BOB)[1] > told / 2
    assert await queue.jobs.verify() == ()


async def test_an_outbox_that_is_too_long_loses_its_beginning(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever makes and cancels jobs all day fills no disk, and hears what he has missed."""
    monkeypatch.setattr("transferd.store.outbox.NOTICE_BYTES", 10_000)
    bobs = await queue.make(owner=BOB)
    await queue.apply(bobs.id, JobEvent.CANCEL)
    for _ in range(30):
        job = await queue.make()
        await queue.apply(job.id, JobEvent.CANCEL)
    assert 8_000 < _shares(tmp_path)[1] <= 10_000
    oldest, newest = await queue.notices.bounds(ALICE)
    assert newest == 31
    assert 15 < oldest < 30
    assert await queue.notices.bounds() == await queue.notices.bounds(BOB) == (1, 31)
    kept = await queue.notices.replay(
        after=0, owner=None, job_id=None, kinds=NoticeKind.ENDED, limit=99
    )
    assert [notice.number for notice in kept] == [1, *range(oldest, 32)]
    with closing(sqlite3.connect(tmp_path / "state" / QUEUE_FILE)) as cx:
        (ended,) = cx.execute("SELECT count(*) FROM ended").fetchone()
        (ids,) = cx.execute("SELECT count(*) FROM job_ids").fetchone()
    assert ended == ids == len(kept)


# ── turns ──────────────────────────────────────────────────────────────────────────────────────


async def test_owners_take_turns(queue: Queue) -> None:
    """Everybody's first, then everybody's second: a long queue keeps nobody else waiting."""
    alice = [(await queue.make()).id for _ in range(4)]
    bob = [(await queue.make(owner=BOB)).id for _ in range(2)]
    carol = (await queue.make(owner=BOB + 1)).id
    normal = Priority.NORMAL

    async def order(limit: int) -> list[JobId]:
        return await queue.runnable(normal, limit)

    assert await order(9) == [alice[0], bob[0], carol, alice[1], bob[1], alice[2], alice[3]]
    assert await order(4) == [alice[0], bob[0], carol, alice[1]]
    assert await order(1) == [alice[0], bob[0], carol]
    assert await queue.runnable(normal, 9, 2) == [alice[0], bob[0], carol, alice[1], bob[1]]
    assert await queue.runnable(normal, 9, 1) == [alice[0], bob[0], carol]
    await queue.apply(bob[0], JobEvent.DISPATCH, JobEvent.REQUEUE)
    assert await order(5) == [alice[0], bob[1], carol, alice[1], bob[0]]
    low = replace(spec(), settings=replace(spec().settings, priority=Priority.LOW))
    await queue.make(low)
    assert len(await order(99)) == 7
