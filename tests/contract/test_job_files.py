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
    file_specs,
    later,
    offset,
    settings,
    spec,
    stumble,
)
from transferd.model.errors import BadRequest, Conflict, NotFound
from transferd.model.job import Checksum, File, FileSpec, Inode, JobId, Validator
from transferd.model.limits import Quota
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change, Checkpoint
from transferd.model.states import JobEvent

GONE = JobId("00000000-0000-4000-8000-00000000dead")


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
    await queue.jobs.opened(job.id, 0, INODE)
    await queue.jobs.checkpoint(
        [Checkpoint(job_id=job.id, file=0, offset=40, total=100, validator=validator)], later(2)
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
    await queue.jobs.opened(job.id, 0, inode)
    assert (await _files(queue, job.id))[0].inode == inode


async def test_sums_follow_the_files(queue: Queue) -> None:
    """A list of jobs never adds up files; the sums are right after every step."""
    job = await queue.make(spec(2))

    async def sums() -> tuple[int, int | None, int]:
        now = await queue.jobs.job(job.id)
        return now.files_transferred, now.bytes_total, now.bytes_transferred

    await queue.jobs.checkpoint([offset(job.id, 10)], NOW)
    assert await sums() == (0, None, 10)
    await queue.jobs.checkpoint([offset(job.id, 20), offset(job.id, 5, file=1, total=50)], NOW)
    assert await sums() == (0, 150, 25)
    await queue.done(job.id, 1, size=60)
    assert await sums() == (1, 160, 80)
    await queue.jobs.reset_file(job.id, 1)
    assert await sums() == (0, None, 20)
    await queue.jobs.checkpoint([offset(job.id, 15, total=None)], NOW)
    assert await sums() == (0, None, 15)


async def test_progress_ends_what_held_the_job_up(queue: Queue) -> None:
    """The error stays until bytes move, and the clocks begin anew (BITS J10, Y3)."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    await queue.apply(job.id, JobEvent.STUMBLE, change=stumble())
    await queue.apply(job.id, JobEvent.RETRY, JobEvent.DISPATCH)
    await queue.jobs.checkpoint([offset(job.id, 0)], later(1))
    same = await queue.jobs.job(job.id)
    assert (same.error, same.attempts, same.modified) == (REFUSED, 1, NOW)
    await queue.jobs.checkpoint([offset(job.id, 1)], later(2))
    moved = await queue.jobs.job(job.id)
    assert (moved.error, moved.attempts, moved.stuck_seconds) == (None, 0, 0.0)
    assert (moved.error_count, moved.active_seconds, moved.modified) == (1, 5.0, later(2))


async def test_late_progress_does_not_lose_a_wait(queue: Queue) -> None:
    """A job that has just failed keeps its error and its next try, or it would never run again."""
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH)
    failed = await queue.apply(job.id, JobEvent.STUMBLE, change=stumble(160.0))
    await queue.jobs.checkpoint([offset(job.id, 1)], NOW)
    late = await queue.jobs.job(job.id)
    assert (late.error, late.retry_at, late.attempts) == (REFUSED, 160.0, failed.attempts)
    assert late.bytes_transferred == 1
    await queue.apply(job.id, JobEvent.FAIL, change=Change(failure=MISSING))
    await queue.jobs.checkpoint([offset(job.id, 2)], NOW)
    assert (await queue.jobs.job(job.id)).error == MISSING


async def test_checkpoints_of_jobs_that_are_gone_are_ignored(queue: Queue) -> None:
    """A worker's last word may come late; the others of the batch count."""
    job = await queue.make()
    await queue.jobs.checkpoint(
        [offset(GONE, 5), offset(job.id, 6, file=9), offset(job.id, 7)], NOW
    )
    assert (await queue.jobs.job(job.id)).bytes_transferred == 7


async def test_a_whole_file_is_not_made_partial_by_a_late_checkpoint(queue: Queue) -> None:
    """Completion is undone by reset_file only."""
    job = await queue.make()
    await queue.done(job.id)
    await queue.jobs.checkpoint([offset(job.id, 5)], NOW)
    (file,) = await _files(queue, job.id)
    assert (file.completed, file.bytes_transferred) == (True, 100)


async def test_a_done_file_is_whole_and_told_of_once(queue: Queue) -> None:
    """FILE_TRANSFERRED comes once for each file, and needs no acknowledgement (BITS 1.9)."""
    job = await queue.make(spec(2))
    inode = Inode(device=1, number=2, born=3)
    for expected in (1, 0):
        notices = await queue.jobs.file_done(
            job.id, 1, 77, inode, length_unverified=True, now=later(2)
        )
        assert len(notices) == expected
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
    await queue.jobs.reset_file(job.id, 0)
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
        queue.jobs.opened(job.id, 1, INODE),
        queue.jobs.reset_file(job.id, 1),
        queue.done(job.id, 1),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "file_not_found"
