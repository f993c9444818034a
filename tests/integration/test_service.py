"""The service carries jobs: real queue file, real link, a worker that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.support.service import (
    ME,
    QUICK,
    SETTINGS,
    STRANGER,
    TIMERS,
    Service,
    one_by_one,
    running_service,
    spec,
)
from transferd.config import Config
from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.errors import BadRequest, Conflict, NotAllowed, NotFound, StoreError
from transferd.model.job import FileSpec, Inode, Job, JobId, OnError, Part, Priority
from transferd.model.notices import Look, Notice, NoticeKind
from transferd.model.reports import Done, Kept, Report
from transferd.model.states import JobState
from transferd.service.hearing import TURN_MESSAGES
from transferd.wire import chores, link
from transferd.wire.message import Message

DONE, FAILED, ENDED = NoticeKind.TRANSFERRED, NoticeKind.ERROR, NoticeKind.ENDED


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with an empty queue."""
    async with running_service(tmp_path / "state") as running:
        yield running


async def _transferred(service: Service, job: Job) -> None:
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.carry(start)
    await service.next_notice(job, DONE)


async def test_a_job_is_transferred_and_leaves_the_queue_when_it_is_completed(
    service: Service,
) -> None:
    """BITS S9: completing is the owner's act; only then do files get their names."""
    job = await service.create(spec("/a", "/b"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    notice = await service.next_notice(job, DONE)
    assert notice.job.state is JobState.TRANSFERRED
    assert not [m for m in worker.heard if isinstance(m, chores.Publish)]
    left = await service.parts.jobs.complete(ME, job.id)
    assert left.state is JobState.ACKNOWLEDGED
    published = await worker.hears(chores.Publish)
    assert [file.local for file in published.files] == ["/a", "/b"]
    with pytest.raises(NotFound):
        await service.parts.jobs.get(ME, job.id)


async def test_a_repeated_request_gives_its_job_whatever_has_become_of_the_destination(
    service: Service,
) -> None:
    """Whoever did not hear the answer learns which job there is; only new jobs can be refused."""
    wish = replace(spec("/gone/a", start=False), id=JobId(str(uuid4())), fingerprint=b"body")
    job = await service.create(wish)
    worker = await service.worker()
    message = "cannot write into /gone: no such directory"
    worker.invalid = [chores.Refusal(0, "local_directory_missing", message)]
    assert (await service.create(wish)).id == job.id
    with pytest.raises(BadRequest, match="no such directory"):
        await service.parts.jobs.create(ME, [wish, spec("/gone/b")])
    asked = [heard.paths for heard in worker.heard if isinstance(heard, chores.Inspect)]
    assert asked[-1] == ("/gone/b",)


async def test_a_repeated_request_gives_its_job_whatever_has_become_of_the_worker(
    service: Service,
) -> None:
    """A worker that hangs keeps nobody from hearing of a job that there is."""
    wish = replace(spec("/a", start=False), id=JobId(str(uuid4())), fingerprint=b"body")
    job = await service.create(wish)
    worker = await service.worker()

    async def hang(message: link.ToWorker) -> None:
        """Give no answer."""

    worker._answer = hang  # type: ignore[method-assign]
    assert (await service.create(wish)).id == job.id


async def test_a_job_waits_suspended_until_it_is_resumed(service: Service) -> None:
    """BITS S8: nothing moves before resume."""
    job = await service.create(spec("/a", start=False))
    assert job.state is JobState.SUSPENDED
    await service.parts.jobs.resume(ME, job.id)
    await _transferred(service, job)


async def test_a_transient_failure_is_retried_and_a_byte_clears_the_error(
    service: Service,
) -> None:
    """BITS Y1, J10: the error stays visible until data moves again."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), "connection_lost")
    again = await worker.hears(link.Start, 2)
    waiting = await service.parts.jobs.get(ME, job.id)
    assert waiting.error is not None
    assert waiting.error.code == "connection_lost"
    assert waiting.error_count == 1
    assert waiting.attempts == 1
    await worker.carry(again)
    notice = await service.next_notice(job, DONE)
    assert notice.job.error is None


async def test_a_fatal_failure_ends_in_error_and_resume_tries_again(service: Service) -> None:
    """BITS T11, T18: the owner mends the cause and resumes."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), "http_404")
    notice = await service.next_notice(job, FAILED)
    assert notice.job.state is JobState.ERROR
    (blocker,) = await service.parts.jobs.why(ME, job.id)
    assert blocker.code == "http_404"
    await service.parts.jobs.resume(ME, job.id)
    await worker.carry(await worker.hears(link.Start, 2))
    await service.next_notice(job, DONE)


async def test_no_progress_for_too_long_is_an_error_that_names_the_last_failure(
    service: Service,
) -> None:
    """BITS T13: patience shorter than the delay means no retry at all."""
    settings = replace(SETTINGS, timers=replace(TIMERS, no_progress_timeout=0))
    job = await service.create(spec("/a", settings=settings))
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), "connection_refused")
    notice = await service.next_notice(job, FAILED)
    assert notice.job.error is not None
    assert notice.job.error.code == "no_progress"
    assert "connection_refused" in notice.job.error.message


async def test_a_dead_worker_is_a_transient_error_of_its_jobs(service: Service) -> None:
    """DESIGN: its death is not the daemon's, and not the job's fault."""
    job = await service.create(spec("/a"))
    first = await service.worker()
    await first.hears(link.Start)
    first.kill()
    second = await service.worker(1)
    await second.carry(await second.hears(link.Start))
    notice = await service.next_notice(job, DONE)
    assert notice.job.error_count == 0


async def test_durable_offsets_are_kept_and_handed_to_the_next_run(service: Service) -> None:
    """What was durable is not asked for again."""
    await service.create(spec("/a"))
    first = await service.worker()
    start = await first.hears(link.Start)
    await first.say(link.Connected(start.job, start.run))
    await first.say(link.Durable(start.job, start.run, 0, 4096, 9000))
    await first.say(link.Reset(start.job, start.run, 0))
    await first.hears(link.Recorded)
    await first.say(link.Durable(start.job, start.run, 0, 8192, 9000))
    await first.fail(start, "connection_lost")
    again = await first.hears(link.Start, 2)
    assert again.files[0].bytes_transferred == 8192
    assert again.files[0].bytes_total == 9000


async def test_parts_are_handed_to_the_next_run_and_shown(service: Service) -> None:
    """Nothing that several connections have fetched is asked for again."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    parts = (Part(start=6000, end=7000),)
    await worker.say(link.Durable(start.job, start.run, 0, 4096, 9000, parts=parts))
    await service.until(job, lambda seen: seen.bytes_transferred == 5096)
    await worker.say(link.Progress(start.job, start.run, 0, 5100, 9000))
    await service.until(job, lambda seen: seen.bytes_transferred == 5100)
    await worker.fail(start, "connection_lost")
    again = await worker.hears(link.Start, 2)
    assert again.files[0].bytes_transferred == 4096
    assert again.files[0].parts == parts


def whole(start: link.Start) -> list[Message]:
    """Every file of a run is done."""
    return [
        link.FileDone(start.job, start.run, file.index, 10, Inode(device=1, number=file.index + 1))
        for file in start.files
    ]


def _counting(monkeypatch: pytest.MonkeyPatch, service: Service) -> list[Sequence[Report]]:
    """What is kept of runs, one transaction after the other."""
    kept: list[Sequence[Report]] = []
    keep = service.store.jobs.keep

    async def keeping(job_id: JobId, reports: Sequence[Report], *args: Any, **more: Any) -> Kept:
        kept.append(reports)
        return await keep(job_id, reports, *args, **more)

    monkeypatch.setattr(service.store.jobs, "keep", keeping)
    return kept


async def test_a_small_job_is_carried_to_its_end_in_one_transaction(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its worker says at once is kept at once, with the end of the job and its notice."""
    kept = _counting(monkeypatch, service)
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    about = (start.job, start.run)
    worker.say_at_once(link.Connected(*about), *whole(start), link.Drained(*about))
    await service.next_notice(job, DONE)
    await worker.hears(link.Finish)
    assert [len(reports) for reports in kept] == [2]


async def test_many_small_files_do_not_wait_for_a_commit_each(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was said while the disk was busy goes to it together, in its order."""
    kept = _counting(monkeypatch, service)
    job = await service.create(spec(*(f"/{number}" for number in range(1000))))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    about = (start.job, start.run)
    worker.say_at_once(link.Connected(*about), *whole(start), link.Drained(*about))
    notice = await service.next_notice(job, DONE)
    assert notice.job.files_transferred == 1000
    assert [each.file for reports in kept for each in reports if isinstance(each, Done)] == [
        *range(1000)
    ]
    assert len(kept) <= 1000 / TURN_MESSAGES + 1


async def test_what_a_full_disk_refused_is_kept_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were whole by then are not fetched again."""
    job = await service.create(spec("/a", "/b"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    refused, keep = asyncio.Event(), service.store.jobs.keep

    async def refusing(*args: Any, **more: Any) -> Kept:
        if not refused.is_set():
            refused.set()
            raise StoreError("cannot write to the queue file: the disk is full")
        return await keep(*args, **more)

    monkeypatch.setattr(service.store.jobs, "keep", refusing)
    worker.say_at_once(*whole(start)[:1])
    again = await worker.hears(link.Start, 2)
    assert again.job == job.id
    assert [file.spec.local for file in again.files] == ["/b"]


async def test_suspend_stops_the_run_and_keeps_its_last_offset(service: Service) -> None:
    """State first, then signal: what the worker still reports is kept."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.say(link.Durable(start.job, start.run, 0, 4096, 9000))
    suspended = await service.parts.jobs.suspend(ME, job.id)
    assert suspended.state is JobState.SUSPENDED
    assert suspended.bytes_transferred == 4096
    assert not service.parts.organs.runs.holds(job.id)
    await worker.hears(link.Stop)


async def test_a_late_connect_does_not_wake_a_suspended_job(service: Service) -> None:
    """The store wins over a run that was overtaken by its owner."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    worker.obedient = False
    start = await worker.hears(link.Start)
    suspending = asyncio.create_task(service.parts.jobs.suspend(ME, job.id))
    await worker.hears(link.Stop)
    await worker.say(link.Connected(start.job, start.run))
    await worker.say(link.Stopped(start.job, start.run))
    assert (await suspending).state is JobState.SUSPENDED


async def test_messages_of_an_earlier_run_are_ignored(service: Service) -> None:
    """A run number is given once."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    first = await worker.hears(link.Start)
    await worker.fail(first, "connection_lost")
    second = await worker.hears(link.Start, 2)
    await worker.say(link.Durable(job.id, first.run, 0, 777, 9000))
    await worker.fail(first, "http_404")
    await worker.carry(second)
    notice = await service.next_notice(job, DONE | FAILED)
    assert notice.kind is DONE


async def test_a_file_added_to_a_running_job_is_fetched_by_the_same_run(service: Service) -> None:
    """BITS F04: adding is permitted until the job is final."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    more = FileSpec(remote="http://127.0.0.1/b", local="/b")
    await service.parts.jobs.add_files(ME, job.id, [more])
    await worker.carry(start)
    extended = await worker.hears(link.Extend)
    assert [file.spec.local for file in extended.files] == ["/b"]
    await worker.carry(extended)
    notice = await service.next_notice(job, DONE)
    assert notice.job.files_transferred == 2
    await worker.hears(link.Finish)


async def test_a_transferred_job_is_reopened_when_it_has_got_a_file(service: Service) -> None:
    """BITS T19: add, then resume; without a new file resume changes nothing."""
    job = await service.create(spec("/a"))
    await _transferred(service, job)
    assert (await service.parts.jobs.resume(ME, job.id)).state is JobState.TRANSFERRED
    more = FileSpec(remote="http://127.0.0.1/b", local="/b")
    await service.parts.jobs.add_files(ME, job.id, [more])
    await service.parts.jobs.resume(ME, job.id)
    worker = await service.worker()
    again = await worker.hears(link.Start, 2)
    assert [file.spec.local for file in again.files] == ["/b"]


async def test_complete_of_an_unfinished_job_takes_what_is_whole(service: Service) -> None:
    """BITS T20, K3: a partial completion publishes the finished files and discards the rest."""
    job = await service.create(spec("/a", "/b"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.fetch(start, start.files[0])
    await service.until(job, lambda seen: seen.files_transferred == 1)
    await service.parts.jobs.complete(ME, job.id)
    published = await worker.hears(chores.Publish)
    assert [file.local for file in published.files] == ["/a"]
    discarded = await worker.hears(chores.Discard)
    assert [left.temporary for left in discarded.leftovers] == [f"/.b.transferd-{job.id}"]


async def test_a_refused_name_keeps_the_job_and_complete_can_be_repeated(
    service: Service,
) -> None:
    """BITS T23, K4: the job stays transferred, and complete is idempotent."""
    job = await service.create(spec("/a"))
    await _transferred(service, job)
    worker = await service.worker()
    worker.refusals = [chores.Refusal(0, "local_exists", "cannot publish /a: it exists")]
    with pytest.raises(Conflict, match="it exists") as refused:
        await service.parts.jobs.complete(ME, job.id)
    assert refused.value.code == "local_exists"
    assert (await service.parts.jobs.get(ME, job.id)).state is JobState.TRANSFERRED
    worker.refusals = []
    await service.parts.jobs.complete(ME, job.id)


async def test_cancel_of_a_running_job_stops_it_and_removes_its_partial_data(
    service: Service,
) -> None:
    """BITS T22, K6."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    left = await service.parts.jobs.cancel(ME, job.id)
    assert left.state is JobState.CANCELLED
    discarded = await worker.hears(chores.Discard)
    assert discarded.leftovers[0].temporary == f"/.a.transferd-{job.id}"
    order = [type(m) for m in worker.heard]
    assert order.index(link.Stop) < order.index(chores.Discard)
    notice = await service.next_notice(job, ENDED)
    assert notice.job.state is JobState.CANCELLED
    assert start.job == job.id


async def test_a_worker_that_does_not_stop_is_killed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung worker cannot hold its owner's verbs for ever."""
    monkeypatch.setattr("transferd.service.runs.STOP_PATIENCE", 0.05)
    job = await service.create(spec("/a"))
    worker = await service.worker()
    worker.obedient = False
    await worker.hears(link.Start)
    suspended = await service.parts.jobs.suspend(ME, job.id)
    assert suspended.state is JobState.SUSPENDED
    assert await worker.wait() == -9


async def test_auto_complete_completes_and_its_notice_still_waits_for_a_listener(
    service: Service,
) -> None:
    """Promise 4: the daemon's own completion does not swallow the notice."""
    job = await service.create(spec("/a", settings=replace(SETTINGS, auto_complete=True)))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    ended = await service.next_notice(job, ENDED)
    assert ended.job.state is JobState.ACKNOWLEDGED
    late = await service.next_notice(job, DONE, after=None)
    assert not late.settled
    await service.parts.notifier.acknowledge(ME, late.number)


async def test_an_automatic_completion_that_is_refused_ends_in_error(service: Service) -> None:
    """Nobody looks at a job that completes by itself: its refusal must be a notice."""
    settings = replace(SETTINGS, auto_complete=True)
    job = await service.create(spec("/a", settings=settings))
    worker = await service.worker()
    worker.refusals = [chores.Refusal(0, "local_exists", "cannot publish /a: it exists")]
    await worker.carry(await worker.hears(link.Start))
    notice = await service.next_notice(job, FAILED)
    assert notice.job.error is not None
    assert notice.job.error.code == "local_exists"
    worker.refusals = []
    await service.parts.jobs.resume(ME, job.id)
    ended = await service.next_notice(job, ENDED)
    assert ended.job.state is JobState.ACKNOWLEDGED


async def test_a_job_in_error_goes_by_itself_where_its_owner_said_so(service: Service) -> None:
    """S10: keeping or removing jobs in error is the owner's choice."""
    settings = replace(SETTINGS, on_error=OnError.CANCEL)
    job = await service.create(spec("/a", settings=settings))
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), "http_404")
    assert (await service.next_notice(job, ENDED)).job.state is JobState.CANCELLED
    assert not (await service.next_notice(job, FAILED, after=None)).settled


async def test_a_new_credential_reaches_a_running_job(service: Service) -> None:
    """BITS A2: set again at any time; the run begins anew from its durable offsets."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    assert not (await worker.hears(link.Start)).credentials
    credential = Credential(
        target=Target.SERVER, scheme=Scheme.BASIC, username="alice", password=Secret("hunter2")
    )
    await service.parts.jobs.set_credential(ME, job.id, credential)
    again = await worker.hears(link.Start, 2)
    assert again.credentials[0].password.reveal() == "hunter2"
    await service.parts.jobs.remove_credential(ME, job.id, Target.SERVER, Scheme.BASIC)
    assert not (await worker.hears(link.Start, 3)).credentials


async def test_a_run_that_breaks_the_daemons_own_code_ends_in_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job fails alone: a fault in keeping its offsets is no reason to hang."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    monkeypatch.setattr(service.store.jobs, "keep", broken)
    await worker.say(link.Durable(start.job, start.run, 0, 5))
    notice = await service.next_notice(job, FAILED)
    assert notice.job.error is not None
    assert notice.job.error.code == "worker_fault"
    await worker.hears(link.Stop)


async def test_active_time_is_limited(service: Service) -> None:
    """BITS T27: the clock counts active time only."""
    settings = replace(SETTINGS, timers=replace(TIMERS, max_download_time=0.05))
    job = await service.create(spec("/a", settings=settings))
    worker = await service.worker()
    await worker.hears(link.Start)
    notice = await service.next_notice(job, FAILED)
    assert notice.job.error is not None
    assert notice.job.error.code == "time_limit"
    await worker.hears(link.Stop)


async def test_a_higher_job_preempts_a_lower_one_which_goes_on_later(service: Service) -> None:
    """BITS P2, T8: progress is kept."""
    low = await service.create(spec("/a", settings=replace(SETTINGS, priority=Priority.LOW)))
    worker = await service.worker()
    await worker.hears(link.Start)
    high = await service.create(spec("/b", settings=replace(SETTINGS, priority=Priority.HIGH)))
    second = await worker.hears(link.Start, 2)
    assert second.job == high.id
    assert (await service.parts.jobs.get(ME, low.id)).state is JobState.QUEUED
    await worker.carry(second)
    assert (await worker.hears(link.Start, 3)).job == low.id


async def test_jobs_of_others_do_not_exist(service: Service) -> None:
    """Promise 7: not found, never forbidden."""
    job = await service.create(spec("/a", start=False))
    jobs = service.parts.jobs
    nowhere = JobId(str(uuid4()))
    verbs = (jobs.resume, jobs.suspend, jobs.complete, jobs.cancel, jobs.take_ownership)
    for attempt in (jobs.get, jobs.why, *verbs):
        with pytest.raises(NotFound) as hidden:
            await attempt(STRANGER, job.id)
        with pytest.raises(NotFound) as missing:
            await attempt(STRANGER, nowhere)
        assert hidden.value.code == "job_not_found"
        assert hidden.value.detail.replace(job.id, nowhere) == missing.value.detail
    with pytest.raises(NotAllowed):
        await jobs.page(STRANGER, states=None, all_users=True, after=0, limit=10)


async def test_the_worker_is_told_which_files_are_not_to_be_replaced(service: Service) -> None:
    """Rule: what could not get its name in the end is refused before it is fetched."""
    never = replace(SETTINGS, overwrite=False)
    wanted = [spec("/a"), spec("/b", "/c", start=False, settings=never)]
    _, made = await service.parts.jobs.create(ME, wanted)
    await service.parts.jobs.add_files(ME, made.job.id, [FileSpec(remote="http://h/d", local="/d")])
    worker = await service.worker()
    asked = [heard for heard in worker.heard if isinstance(heard, chores.Inspect)]
    assert [(each.paths, each.new) for each in asked] == [
        (("/a", "/b", "/c"), (1, 2)),
        (("/d",), (0,)),
    ]


async def test_a_refused_destination_leaves_no_job(service: Service) -> None:
    """Nothing half-made: the owner's worker looks before anything is stored."""
    await service.create(spec("/a", start=False))
    worker = await service.worker()
    worker.refusals = []

    async def refuse(message: link.ToWorker) -> None:
        assert isinstance(message, chores.Inspect)
        message_text = "cannot write to /no/x: no such directory"
        refusal = chores.Refusal(0, "local_directory_missing", message_text)
        await worker.say(chores.Inspected(message.request, (refusal,)))

    worker._answer = refuse  # type: ignore[method-assign]
    with pytest.raises(BadRequest, match="no such directory"):
        await service.create(spec("/no/x"))
    page = await service.parts.jobs.page(ME, states=None, all_users=False, after=0, limit=10)
    assert len(page.jobs) == 1


def _noting(
    read: Callable[[int], Awaitable[Notice]], numbers: list[int]
) -> Callable[[int], Awaitable[Notice]]:
    async def noting(number: int) -> Notice:
        numbers.append(number)
        return await read(number)

    return noting


async def test_a_notice_comes_again_until_it_is_acknowledged(service: Service) -> None:
    """BITS N2: at least once, and settled by the first acknowledgement."""
    job = await service.create(spec("/a"))
    await _transferred(service, job)
    numbers = []
    listening = service.parts.notifier.subscribe(ME, job_id=job.id, kinds=DONE, after=None)
    async with asyncio.timeout(10), one_by_one(listening) as events:
        async for event in events:
            numbers.append(event.number)  # type: ignore[union-attr]
            if len(numbers) == 3:
                break
    assert len(set(numbers)) == 1
    settled = await service.parts.notifier.acknowledge(ME, numbers[0])
    assert settled.settled
    with pytest.raises(NotFound):
        await service.parts.notifier.acknowledge(STRANGER, numbers[0])


async def test_what_happens_once_a_listener_is_there_is_heard(service: Service) -> None:
    """It need not have asked for its first event by then, and hears what is not repeated, too."""
    job = await service.create(spec("/a", start=False))
    kinds = NoticeKind.MODIFICATION | NoticeKind.ENDED
    notifier = service.parts.notifier
    async with one_by_one(notifier.subscribe(ME, job_id=job.id, kinds=kinds, after=None)) as events:
        await service.parts.jobs.cancel(ME, job.id)
        async with asyncio.timeout(10):
            event = await anext(events)
    assert isinstance(event, Notice)
    assert event.kind is NoticeKind.ENDED
    assert not notifier.busy


async def test_what_there_is_to_hear_at_a_time_is_one_page_and_one_count_of_deliveries(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand notices a second cost a few writes, not a thousand."""
    jobs = [await service.create(spec(f"/{n}")) for n in range(4)]
    worker = await service.worker()
    for number, job in enumerate(jobs):
        await worker.carry(await worker.hears(link.Start, number + 1))
        await service.next_notice(job, DONE)
    notices, notifier = service.store.notices, service.parts.notifier
    marked: list[Sequence[int]] = []
    everything, delivered = asyncio.Event(), notices.delivered

    async def noting(numbers: Sequence[int]) -> None:
        marked.append(numbers)
        everything.set()
        await delivered(numbers)

    monkeypatch.setattr(notices, "delivered", noting)
    async with notifier.subscribe(ME, job_id=None, kinds=DONE, after=None) as pages:
        page = await anext(pages)
        again = asyncio.ensure_future(anext(aiter(pages)))
        async with asyncio.timeout(10):
            await everything.wait()
        again.cancel()
        await asyncio.wait([again])
    assert {event.job_id for event in page if isinstance(event, Notice)} == {j.id for j in jobs}
    assert set(marked[0]) >= {event.number for event in page if isinstance(event, Notice)}


async def test_a_notice_is_followed_up_once_however_many_have_heard_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of deliveries asks for one more round, not for one more per listener."""
    job = await service.create(spec("/a"))
    await _transferred(service, job)
    notices, notifier = service.store.notices, service.parts.notifier
    (owed,) = await notices.unsettled(owner=None, job_id=job.id, kinds=DONE, after=0, limit=1)

    async def listen() -> None:
        async with notifier.subscribe(ME, job_id=job.id, kinds=DONE, after=None) as pages:
            async for _ in pages:
                pass

    listening = [asyncio.create_task(listen()) for _ in range(5)]
    async with asyncio.timeout(10):
        while (await notices.notice(owed.number)).deliveries < len(listening):
            pass
    for task in listening:
        task.cancel()
    await asyncio.wait(listening)
    followed: list[int] = []
    monkeypatch.setattr(notices, "notice", _noting(notices.notice, followed))
    async with asyncio.timeout(10):
        while notifier.busy:
            await notices.bounds()
    assert len(followed) <= 1


async def test_the_command_runs_when_nobody_listens_until_it_succeeds(service: Service) -> None:
    """BITS M5, M6: run again after a delay while it fails; its success settles the notice."""
    settings = replace(SETTINGS, notify_command=("/bin/tell", "me"))
    job = await service.create(spec("/a", settings=settings))
    worker = await service.worker()
    worker.command_status = 1
    await worker.carry(await worker.hears(link.Start))
    told = await worker.hears(chores.RunCommand)
    assert told.argv == ("/bin/tell", "me")
    assert told.environment["TRANSFERD_KIND"] == "transferred"
    worker.command_status = 0
    await worker.hears(chores.RunCommand, 2)
    await service.parts.jobs.complete(ME, job.id)
    await worker.hears(link.Finish)
    assert not await service.store.notices.unsettled(
        owner=None, job_id=job.id, kinds=DONE, after=0, limit=1
    )


async def test_the_command_is_the_last_resort_beside_a_deaf_listener(service: Service) -> None:
    """A listener that does not acknowledge is asked again, then the command runs."""
    settings = replace(SETTINGS, notify_command=("/bin/tell",))
    job = await service.create(spec("/a", settings=settings))
    heard = []

    async def listen() -> None:
        listening = service.parts.notifier.subscribe(ME, job_id=job.id, kinds=DONE, after=None)
        async with one_by_one(listening) as events:
            async for event in events:
                heard.append(event)

    listening = asyncio.create_task(listen())
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    await worker.hears(chores.RunCommand)
    assert len(heard) >= QUICK.notices.deliveries_before_command
    listening.cancel()
    await asyncio.wait([listening])


async def test_what_was_running_is_queued_after_a_restart(tmp_path: Path) -> None:
    """T28: crash and clean stop are the same path."""
    async with running_service(tmp_path / "state") as service:
        job = await service.create(spec("/a"))
        worker = await service.worker()
        start = await worker.hears(link.Start)
        await worker.say(link.Durable(start.job, start.run, 0, 4096, 9000))
        await service.until(job, lambda seen: seen.bytes_transferred == 4096)
    assert isinstance(worker.heard[-1], link.Stop)
    async with running_service(tmp_path / "state") as service:
        worker = await service.worker()
        again = await worker.hears(link.Start)
        assert again.files[0].bytes_transferred == 4096
        await worker.carry(again)
        await service.next_notice(job, DONE)


async def test_a_transferred_job_that_completes_itself_does_so_after_a_crash(
    tmp_path: Path,
) -> None:
    """A crash between the last byte and the completion loses nothing."""
    settings = replace(SETTINGS, auto_complete=True)
    async with running_service(tmp_path / "state") as service:
        job = await service.create(spec("/a", settings=settings))
        worker = await service.worker()
        worker.refusals = [chores.Refusal(0, "local_busy", "cannot publish now")]
        await worker.carry(await worker.hears(link.Start))
        await worker.hears(chores.Publish)
        service.parts.organs.closing.consider(job)
    async with running_service(tmp_path / "state") as service:
        if (await service.parts.jobs.get(ME, job.id)).state is JobState.ERROR:
            await service.parts.jobs.resume(ME, job.id)
        ended = await service.next_notice(job, ENDED)
        assert ended.job.state is JobState.ACKNOWLEDGED


async def test_a_job_that_changes_all_the_time_is_looked_at_once_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand moving jobs wake a listener as often as it is told of them, not more."""
    slow = msgspec.convert({"notices": {"modification_seconds": 60}}, Config)
    async with running_service(tmp_path / "state", slow) as service:
        job = await service.create(spec("/a", start=False))
        kinds = NoticeKind.MODIFICATION
        notifier, look = service.parts.notifier, service.store.notices.look
        async with notifier.subscribe(ME, job_id=job.id, kinds=kinds, after=None) as pages:
            notifier.modified(job.owner, job.id)
            await anext(pages)
            again = asyncio.ensure_future(anext(aiter(pages)))
            looks: list[int] = []

            async def noting(**what: Any) -> Look:
                looks.append(1)
                return await look(**what)

            monkeypatch.setattr(service.store.notices, "look", noting)
            for _ in range(50):
                notifier.modified(job.owner, job.id)
                await service.store.notices.bounds()
            again.cancel()
            await asyncio.wait([again])
    assert len(looks) <= 2
