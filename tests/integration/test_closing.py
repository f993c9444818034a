"""Jobs that close by themselves, while their owners still change their minds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.service import ME, SETTINGS, Service, running_service, spec
from transferd.model.job import FileSpec, Job, JobId, OnError
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change, Moved
from transferd.model.states import JobEvent, JobState
from transferd.wire import link

DONE, FAILED, ENDED = NoticeKind.TRANSFERRED, NoticeKind.ERROR, NoticeKind.ENDED
BY_ITSELF = replace(SETTINGS, auto_complete=True)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with an empty queue."""
    async with running_service(tmp_path / "state") as running:
        yield running


async def _transferred(service: Service) -> Job:
    job = await service.create(spec("/a"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
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
    service.parts.closing.consider(replace(job, settings=BY_ITSELF))
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
    monkeypatch.setattr("transferd.service.closing._LARGE", 1)
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
