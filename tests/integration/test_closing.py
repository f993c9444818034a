"""Jobs that close by themselves, while their owners still change their minds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import ME, SETTINGS, Service, one_by_one, running_service, spec
from transferd.model.errors import Conflict, Unavailable
from transferd.model.job import FileSpec, Job, JobId, OnError, Priority, Settings
from transferd.model.notices import Event, Notice, NoticeKind
from transferd.model.queue import Change, Moved
from transferd.model.states import JobEvent, JobState
from transferd.service.clock import SystemClock
from transferd.service.completion import Completion
from transferd.service.gate import Gate
from transferd.wire import chores, link

DONE, FAILED, ENDED = NoticeKind.TRANSFERRED, NoticeKind.ERROR, NoticeKind.ENDED
BY_ITSELF = replace(SETTINGS, auto_complete=True)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with an empty queue."""
    async with running_service(tmp_path / "state") as running:
        yield running


async def _transferred(service: Service, name: str = "/a", settings: Settings = SETTINGS) -> Job:
    job = await service.create(spec(name, settings=settings))
    worker = await service.worker()
    before = len([heard for heard in worker.heard if isinstance(heard, link.Start)])
    start = await worker.hears(link.Start, max(1, before))
    while start.job != job.id:
        before += 1
        start = await worker.hears(link.Start, before)
    await worker.carry(start)
    return (await service.next_notice(job, DONE)).job


async def test_a_transferred_job_completes_when_its_owner_asks_for_that_later(
    service: Service,
) -> None:
    """A changed setting holds from now on, not from the next start of the daemon."""
    job = await _transferred(service)
    await service.parts.jobs.change(ME, job.id, lambda old: replace(old, auto_complete=True))
    ended = await service.next_notice(job, ENDED)
    assert ended.job.state is JobState.ACKNOWLEDGED


async def test_a_job_in_error_goes_when_its_owner_asks_for_that_later(service: Service) -> None:
    """The same for what becomes of a job in error."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), "http_404")
    await service.next_notice(job, FAILED)
    await service.parts.jobs.change(ME, job.id, lambda old: replace(old, on_error=OnError.CANCEL))
    assert (await service.next_notice(job, ENDED)).job.state is JobState.CANCELLED


async def test_a_job_does_not_complete_by_itself_without_its_latest_file(
    service: Service,
) -> None:
    """Promise 2: a file that was added with success is fetched, however close the end was."""
    job = await _transferred(service)
    worker = await service.worker()
    await service.parts.jobs.add_files(ME, job.id, [FileSpec(remote="http://h/b", local="/b")])
    await service.parts.jobs.change(ME, job.id, lambda old: replace(old, auto_complete=True))
    # The daemon had seen the job as transferred before it got its file.
    service.parts.organs.closing.consider(replace(job, settings=BY_ITSELF))
    other = await service.create(spec("/other", settings=BY_ITSELF))
    await worker.carry(await worker.hears(link.Start, 2))
    await service.next_notice(other, ENDED)
    await service.parts.jobs.resume(ME, job.id)
    await worker.carry(await worker.hears(link.Start, 3))
    ended = await service.next_notice(job, ENDED)
    assert ended.job.state is JobState.ACKNOWLEDGED
    assert ended.job.files_transferred == 2


async def test_large_jobs_of_one_owner_leave_one_after_the_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are cancelled at once, others' changes wait for one of them."""
    monkeypatch.setattr("transferd.service.gate._LARGE", 1)
    jobs = [await service.create(spec(f"/{n}/a", f"/{n}/b", start=False)) for n in range(4)]
    apply, leaving, most = service.store.jobs.apply, 0, 0

    async def counted(
        job_id: JobId, event: JobEvent, now: datetime, change: Change | None = None
    ) -> Moved:
        nonlocal leaving, most
        leaving += 1
        most = max(most, leaving)
        for _ in range(100):  # whoever does not wait comes as well
            await service.store.jobs.counts()
        leaving -= 1
        return await apply(job_id, event, now, change)

    monkeypatch.setattr(service.store.jobs, "apply", counted)
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(service.parts.jobs.cancel(ME, job.id))
    assert most == 1


async def test_jobs_that_are_transferred_together_are_completed_together(service: Service) -> None:
    """One question to the worker and one transaction, however many jobs there are."""
    wanted = replace(BY_ITSELF, priority=Priority.FOREGROUND)
    jobs = [await service.create(spec(f"/{n}", settings=wanted)) for n in range(20)]
    worker = await service.worker()
    for number in range(20):
        await worker.hears(link.Start, number + 1)
    listening = service.parts.notifier.subscribe(ME, job_id=None, kinds=ENDED, after=0)
    async with one_by_one(listening) as events:
        for start in [heard for heard in worker.heard if isinstance(heard, link.Start)]:
            await worker.carry(start)
        ended = [await anext(events) for _ in jobs]
    assert len(ended) == len(jobs)
    asked = [heard for heard in worker.heard if isinstance(heard, chores.Publish)]
    assert sum(len(question.files) for question in asked) == len(jobs)
    assert len(asked) < len(jobs)


async def test_a_refused_name_keeps_its_own_job_only(service: Service) -> None:
    """BITS K4: the others of its group leave; it is in error, with the worker's reason."""
    jobs = [await _transferred(service, f"/{name}") for name in "abc"]
    worker = await service.worker()
    worker.refusals = [chores.Refusal(1, "local_exists", "cannot publish it: it exists")]
    first, kept, last = await _completed_together(service, jobs)
    (question,) = [heard for heard in worker.heard if isinstance(heard, chores.Publish)]
    assert [file.number for file in question.files] == [0, 1, 2]
    assert isinstance(first, Moved)
    assert isinstance(last, Moved)
    assert isinstance(kept, Conflict)
    assert kept.code == "local_exists"
    assert (await service.parts.jobs.get(ME, jobs[1].id)).state is JobState.TRANSFERRED


async def test_a_worker_that_is_lost_keeps_every_job_of_the_group(service: Service) -> None:
    """Nobody knows which names were given: completing again finds out."""
    jobs = [await _transferred(service, f"/{name}") for name in "ab"]
    worker = await service.worker()
    worker.kill()
    outcomes = await _completed_together(service, jobs)
    assert all(isinstance(each, Unavailable | Moved) for each in outcomes)
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, Unavailable):
            assert outcome.code == "worker_lost"
            await service.parts.jobs.complete(ME, job.id)


async def _completed_together(service: Service, jobs: Sequence[Job]) -> list[object]:
    """Complete jobs in one turn of the loop; returns what became of each."""
    store = service.store.jobs
    completion = Completion(store, service.parts.organs.workers, SystemClock(), Gate())
    whole = await store.whole([job.id for job in jobs])
    leaving = [completion.begin(each, None) for each in whole]
    return list(await asyncio.gather(*leaving, return_exceptions=True))


async def test_what_each_job_says_of_its_destination_goes_along(service: Service) -> None:
    """A group is of one owner, not of one mind: whether to replace is asked for each file."""
    never = replace(SETTINGS, overwrite=False)
    jobs = [await _transferred(service, "/a"), await _transferred(service, "/b", never)]
    worker = await service.worker()
    await asyncio.gather(*(service.parts.jobs.complete(ME, job.id) for job in jobs))
    asked = [heard for heard in worker.heard if isinstance(heard, chores.Publish)]
    wanted = {file.local: file.overwrite for question in asked for file in question.files}
    assert wanted == {"/a": True, "/b": False}


async def test_a_job_that_somebody_works_on_holds_up_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group of those that nobody touches goes first; it comes when it is let go."""
    held, free = await _transferred(service, "/held"), await _transferred(service, "/free")
    change, let_go = service.store.jobs.change_settings, asyncio.Event()

    async def slowly(job_id: JobId, *rest: Any, **more: Any) -> Job:
        if job_id == held.id:
            await let_go.wait()
        return await change(job_id, *rest, **more)

    monkeypatch.setattr(service.store.jobs, "change_settings", slowly)
    listening = service.parts.notifier.subscribe(ME, job_id=None, kinds=ENDED, after=None)
    async with one_by_one(listening) as events:
        slow = asyncio.ensure_future(service.parts.jobs.change(ME, held.id, lambda _: BY_ITSELF))
        await service.parts.jobs.change(ME, free.id, lambda _: BY_ITSELF)
        service.parts.organs.closing.consider(replace(held, settings=BY_ITSELF))
        service.parts.organs.closing.consider(replace(free, settings=BY_ITSELF))
        async with asyncio.timeout(10):
            assert await _next_ended(events) == free.id
            let_go.set()
            await slow
            assert await _next_ended(events) == held.id


async def _next_ended(events: AsyncIterator[Event]) -> JobId:
    event = await anext(events)
    assert isinstance(event, Notice)
    return event.job_id
