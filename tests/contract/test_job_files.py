"""What the service may rely on when it asks for files and their progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.store import (
    INODE,
    MISSING,
    NOW,
    REFUSED,
    Queue,
    done,
    file_specs,
    later,
    offset,
    settings,
    spec,
    stumble,
)
from transferd.model.errors import BadRequest, Conflict, NotFound
from transferd.model.job import Checksum, File, FileSpec, Inode, JobId, Part, Validator
from transferd.model.limits import Quota
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change
from transferd.model.reports import Checkpoint, Connected, Done, Opened, Reset
from transferd.model.states import JobEvent, JobState


async def _files(queue: Queue, job_id: JobId) -> tuple[File, ...]:
    return (await queue.jobs.files(job_id, after=-1, limit=1000)).files


async def test_files_are_kept_in_order_as_they_were_asked_for(queue: Queue) -> None:
    """Files of a job go one after another (BITS F03)."""
    checked = FileSpec(
        remote="https://h/b?x=%20",
        local="/home/alice/\u00fcber\n \U0001f600",
        checksum=Checksum(algorithm="sha256", digest="ab" * 32),
    )
    job = await queue.make(replace(spec(), files=(*file_specs(1), checked)))
    added = await queue.jobs.add_files(
        job.id, file_specs(2, first=7), later(2), files_per_job=4, quota=Quota()
    )
    assert [file.index for file in added] == [2, 3]
    files = await _files(queue, job.id)
    assert files[1] == File(index=1, spec=checked)
    assert files[2:] == added
    after = await queue.jobs.job(job.id)
    assert (after.files_total, after.bytes_total, after.modified) == (4, None, later(2))


async def test_pages_of_files_meet_every_file(queue: Queue) -> None:
    """A walk along the cursors ends with None."""
    job = await queue.make(spec(5))
    met: list[int] = []
    after: int | None = -1
    while after is not None:
        page = await queue.jobs.files(job.id, after=after, limit=2)
        met += [file.index for file in page.files]
        after = page.next
    assert met == [0, 1, 2, 3, 4]


async def test_a_page_of_files_with_long_names_is_short(queue: Queue) -> None:
    """A thousand of the longest would be many megabytes."""
    files = tuple(
        FileSpec(remote=f"https://h/{'x' * 8000}", local=f"/{index}") for index in range(50)
    )
    job = await queue.make(replace(spec(), files=files))
    page = await queue.jobs.files(job.id, after=-1, limit=1000)
    assert 30 < len(page.files) < 40
    assert page.next == page.files[-1].index
    rest = await queue.jobs.files(job.id, after=page.next, limit=1000)
    assert (rest.files[0].index, rest.files[-1].index) == (page.next + 1, 49)
    assert rest.next is None


async def test_files_are_added_all_or_none(queue: Queue) -> None:
    """A destination that is there already, or twice among the new ones, refuses all."""
    job = await queue.make(spec(2))
    for specs in (
        file_specs(1, first=5) + file_specs(1, first=1),
        file_specs(1, first=6) + file_specs(1, first=6),
    ):
        with pytest.raises(Conflict, match=specs[1].local) as refused:
            await queue.jobs.add_files(job.id, specs, NOW, files_per_job=9, quota=Quota())
        assert refused.value.code == "duplicate_destination"
    assert await queue.jobs.job(job.id) == job
    assert len(await _files(queue, job.id)) == 2


async def test_two_jobs_may_have_one_destination(queue: Queue) -> None:
    """BITS does not compare jobs (BITS F16)."""
    await queue.make(spec(1))
    assert (await queue.make(spec(1))).files_total == 1


async def test_a_job_has_a_limited_number_of_files(queue: Queue) -> None:
    """Those that it has count too."""
    job = await queue.make(spec(2))
    with pytest.raises(BadRequest) as refused:
        await queue.jobs.add_files(
            job.id, file_specs(2, first=2), NOW, files_per_job=3, quota=Quota()
        )
    assert refused.value.code == "too_many_files"


async def test_a_checkpoint_keeps_offset_size_and_version(queue: Queue) -> None:
    """What a resume stands on comes back exactly (promise 1)."""
    job = await queue.make()
    validator = Validator(etag='W/"x"', last_modified="Sun, 01 Mar 2026 12:00:00 GMT", date="d")
    await queue.report(job.id, Opened(file=0, inode=INODE))
    await queue.report(
        job.id, Checkpoint(file=0, offset=40, total=100, validator=validator), at=later(2)
    )
    (file,) = await _files(queue, job.id)
    assert file == File(
        index=0,
        spec=file_specs(1)[0],
        bytes_total=100,
        bytes_transferred=40,
        validator=validator,
        inode=INODE,
    )


async def test_inodes_use_all_their_bits(queue: Queue) -> None:
    """The kernel's numbers are unsigned, SQLite's are not."""
    inode = Inode(device=2**64 - 1, number=2**63, born=2**63 - 1)
    job = await queue.make()
    await queue.report(job.id, Opened(file=0, inode=inode))
    assert (await _files(queue, job.id))[0].inode == inode


async def test_sums_follow_the_files(queue: Queue) -> None:
    """A list of jobs never adds up files; the sums are right after every step."""
    job = await queue.make(spec(2))

    async def sums() -> tuple[int, int | None, int]:
        now = await queue.jobs.job(job.id)
        return now.files_transferred, now.bytes_total, now.bytes_transferred

    await queue.report(job.id, offset(10))
    assert await sums() == (0, None, 10)
    await queue.report(job.id, offset(20), offset(5, file=1, total=50))
    assert await sums() == (0, 150, 25)
    await queue.done(job.id, 1, size=60)
    assert await sums() == (1, 160, 80)
    await queue.report(job.id, Reset(file=1))
    assert await sums() == (0, None, 20)
    await queue.report(job.id, offset(15, total=None))
    assert await sums() == (0, None, 15)


async def test_parts_of_a_file_are_kept_and_counted(queue: Queue) -> None:
    """A file that was fetched in several ranges goes on with all of them."""
    job = await queue.make()
    parts = (Part(start=20, end=30), Part(start=50, end=51))
    await queue.report(job.id, offset(10, *parts))
    (file,) = await queue.jobs.open_files(job.id, 9)
    assert (file.bytes_transferred, file.parts, file.bytes_covered) == (10, parts, 21)
    assert (await queue.jobs.job(job.id)).bytes_transferred == 21
    await queue.report(job.id, offset(30, parts[1]))
    assert (await queue.jobs.job(job.id)).bytes_transferred == 31
    await queue.report(job.id, offset(51))
    (file,) = await queue.jobs.open_files(job.id, 9)
    assert file.parts == ()
    assert (await queue.jobs.job(job.id)).bytes_transferred == 51


async def test_a_file_that_is_whole_or_begins_anew_has_no_parts(queue: Queue) -> None:
    """They are part of the whole, or worth nothing."""
    job = await queue.make(spec(2))
    part = Part(start=20, end=30)
    for file in (0, 1):
        await queue.report(job.id, offset(10, part, file=file))
    await queue.done(job.id, 0, size=40)
    await queue.report(job.id, Reset(file=1))
    assert [file.parts for file in await _files(queue, job.id)] == [(), ()]
    assert (await queue.jobs.job(job.id)).bytes_transferred == 40


async def test_a_part_is_progress(queue: Queue) -> None:
    """Bytes have moved, wherever in the file they are."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    await queue.apply(job.id, JobEvent.RETRY, JobEvent.DISPATCH)
    await queue.report(job.id, offset(0, Part(start=20, end=30)), at=later(1))
    moved = await queue.jobs.job(job.id)
    assert (moved.error, moved.attempts, moved.modified) == (None, 0, later(1))


async def test_progress_ends_what_held_the_job_up(queue: Queue) -> None:
    """The error stays until bytes move, and the clocks begin anew (BITS J10, Y3)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    await queue.apply(job.id, JobEvent.RETRY, JobEvent.DISPATCH)
    await queue.report(job.id, offset(0), at=later(1))
    same = await queue.jobs.job(job.id)
    assert (same.error, same.attempts, same.modified) == (REFUSED, 1, NOW)
    await queue.report(job.id, offset(1), at=later(2))
    moved = await queue.jobs.job(job.id)
    assert (moved.error, moved.attempts, moved.stuck_seconds) == (None, 0, 0.0)
    assert (moved.error_count, moved.active_seconds, moved.modified) == (1, 5.0, later(2))


async def test_late_progress_does_not_lose_a_wait(queue: Queue) -> None:
    """A job that has just failed keeps its error and its next try, or it would never run again."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    failed = await queue.apply(job.id, JobEvent.STUMBLE, change=stumble(160.0))
    await queue.report(job.id, offset(1))
    late = await queue.jobs.job(job.id)
    assert (late.error, late.retry_at, late.attempts) == (REFUSED, 160.0, failed.attempts)
    assert late.bytes_transferred == 1
    await queue.apply(job.id, JobEvent.FAIL, change=Change(failure=MISSING))
    await queue.report(job.id, offset(2))
    assert (await queue.jobs.job(job.id)).error == MISSING


async def test_a_whole_file_is_not_made_partial_by_a_late_checkpoint(queue: Queue) -> None:
    """Completion is undone by reset_file only."""
    job = await queue.make()
    await queue.done(job.id)
    await queue.report(job.id, offset(5))
    (file,) = await _files(queue, job.id)
    assert (file.completed, file.bytes_transferred) == (True, 100)


async def test_a_done_file_is_whole_and_told_of_once(queue: Queue) -> None:
    """FILE_TRANSFERRED comes once for each file, and needs no acknowledgement (BITS 1.9)."""
    job = await queue.make(spec(2))
    inode = Inode(device=1, number=2, born=3)
    for expected in (1, 0):
        whole = Done(file=1, size=77, inode=inode, length_unverified=True)
        kept = await queue.report(job.id, whole, at=later(2))
        assert len(kept.moved.notices) == expected
    (notice,) = await queue.notices.replay(
        after=0, owner=None, job_id=job.id, kinds=NoticeKind.FILE_TRANSFERRED, limit=9
    )
    assert (notice.file, notice.settled, notice.created) == (1, True, later(2))
    assert (notice.job.files_transferred, notice.job.bytes_transferred) == (1, 77)
    file = (await _files(queue, job.id))[1]
    assert file == File(
        index=1,
        spec=file_specs(2)[1],
        bytes_total=77,
        bytes_transferred=77,
        inode=inode,
        completed=True,
        length_unverified=True,
    )


async def test_a_done_file_is_not_told_of_unasked(queue: Queue) -> None:
    """By default only the job's end is."""
    job = await queue.make(replace(spec(), settings=settings(kinds=NoticeKind.TRANSFERRED)))
    await queue.done(job.id)
    assert await queue.kinds() == []


async def test_a_reset_file_is_fetched_anew_into_the_same_file(queue: Queue) -> None:
    """Nothing of the old version is believed any more (promise 1)."""
    job = await queue.make()
    await queue.done(job.id)
    await queue.jobs.mark_published(job.id, [0])
    await queue.report(job.id, Reset(file=0))
    assert await _files(queue, job.id) == (File(index=0, spec=file_specs(1)[0], inode=INODE),)


async def test_open_and_publishable_files_are_told_apart(queue: Queue) -> None:
    """The worker gets what is open, the owner gets what is whole, each once."""
    job = await queue.make(spec(4))
    for file in (0, 2):
        await queue.done(job.id, file)
    assert [file.index for file in await queue.jobs.open_files(job.id, 9)] == [1, 3]
    assert [file.index for file in await queue.jobs.open_files(job.id, 1)] == [1]
    (whole,) = await queue.jobs.whole([job.id])
    assert [file.index for file in whole.files] == [0, 2]
    await queue.jobs.mark_published(job.id, [0, 1])
    (whole,) = await queue.jobs.whole([job.id])
    assert [file.index for file in whole.files] == [2]
    assert [file.published for file in await _files(queue, job.id)] == [True, False, False, False]


async def test_a_file_that_is_not_there_is_not_found(queue: Queue) -> None:
    """A number beyond the last file is told apart from success."""
    job = await queue.make(spec(1))
    for attempt in (
        queue.report(job.id, Opened(file=1, inode=INODE)),
        queue.report(job.id, Reset(file=1)),
        queue.done(job.id, 1),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "file_not_found"


async def test_what_a_run_reports_is_kept_in_its_order(queue: Queue) -> None:
    """A file that begins anew is not what it was before, whatever came at the same time."""
    job = await queue.make(spec(2))
    await queue.apply(job.id, JobEvent.DISPATCH)
    kept = await queue.report(
        job.id,
        Connected(),
        Opened(file=0, inode=INODE),
        offset(50),
        Reset(file=0),
        offset(7, total=9),
        done(1),
        offset(3, file=1),
    )
    first, second = await _files(queue, job.id)
    assert (first.bytes_transferred, first.bytes_total, first.inode) == (7, 9, INODE)
    assert (second.completed, second.bytes_transferred) == (True, 100)
    assert (kept.moved.before, kept.moved.job.state) == (
        JobState.CONNECTING,
        JobState.TRANSFERRING,
    )
    assert kept.moved.job == await queue.jobs.job(job.id)
    assert (kept.moved.job.bytes_transferred, kept.moved.job.bytes_total) == (107, 109)


async def test_a_run_that_has_nothing_left_finishes_its_job_at_once(queue: Queue) -> None:
    """Its notices come in the order of what happened, each with the job as it was then."""
    job = await queue.make(spec(2))
    await queue.apply(job.id, JobEvent.DISPATCH)
    kept = await queue.jobs.keep(job.id, [Connected(), done(), done(1)], later(3), extend=9)
    assert (kept.files, kept.moved.job.state) == ((), JobState.TRANSFERRED)
    assert kept.moved.job == await queue.jobs.job(job.id)
    told = [(each.kind, each.file, each.job.files_transferred) for each in kept.moved.notices]
    assert told == [
        (NoticeKind.FILE_TRANSFERRED, 0, 1),
        (NoticeKind.FILE_TRANSFERRED, 1, 2),
        (NoticeKind.TRANSFERRED, None, 2),
    ]
    for notice in kept.moved.notices:
        assert await queue.notices.notice(notice.number) == notice


async def test_a_run_that_has_nothing_left_goes_on_with_what_is_open(queue: Queue) -> None:
    """A file that was added in the last moment is fetched too (BITS F04)."""
    job = await queue.make(spec(4))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.CONNECT)
    kept = await queue.jobs.keep(job.id, [done(), done(2)], NOW, extend=1)
    assert [file.index for file in kept.files] == [1]
    assert kept.moved.job.state is JobState.TRANSFERRING


async def test_what_a_run_reports_is_true_though_its_job_stands_elsewhere(queue: Queue) -> None:
    """Suspended meanwhile, the job stays so; its files are whole all the same."""
    job = await queue.make(spec(1))
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.SUSPEND)
    kept = await queue.jobs.keep(job.id, [Connected(), done()], NOW, extend=9)
    assert kept.overtaken is not None
    after = await queue.jobs.job(job.id)
    assert (after.state, after.files_transferred) == (JobState.SUSPENDED, 1)


async def test_reports_are_kept_all_or_none(queue: Queue) -> None:
    """One that cannot be true undoes the others, and their notices."""
    job = await queue.make(spec(1))
    with pytest.raises(NotFound):
        await queue.report(job.id, done(), done(1))
    assert (await queue.jobs.job(job.id)).files_transferred == 0
    assert await queue.kinds() == []
