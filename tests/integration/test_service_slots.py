"""A slot is free as soon as a worker has done all files: until that is written down, and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.service import ME, QUICK, Service, running_service, spec
from transferd.model.errors import StoreError
from transferd.model.job import FileSpec, Job
from transferd.model.notices import NoticeKind
from transferd.model.reports import Kept
from transferd.model.states import RUNNING, JobState
from transferd.wire import link

DONE = NoticeKind.TRANSFERRED
#: One job at a time.
NARROW = msgspec.structs.replace(
    QUICK, queue=msgspec.structs.replace(QUICK.queue, background_slots=1)
)


class Ends:
    """Holds back what is written down at the end of runs."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        #: Set when one waits.
        self.held = asyncio.Event()
        #: So many of them are refused then.
        self.refused = 0
        self._keep = service.store.jobs.keep
        monkeypatch.setattr(service.store.jobs, "keep", self._keep_later)

    async def _keep_later(self, *args: Any, **options: Any) -> Kept:
        if options.get("extend") is not None:
            self.held.set()
            await self.go.wait()
            if self.refused:
                self.refused -= 1
                raise StoreError("cannot write to the queue file: the disk is full")
        return await self._keep(*args, **options)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service that carries one job at a time."""
    async with running_service(tmp_path / "state", NARROW) as running:
        yield running


@pytest.fixture
def ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """The ends of its runs."""
    return Ends(service, monkeypatch)


async def state_of(service: Service, job: Job) -> JobState:
    """Where a job stands."""
    return (await service.parts.jobs.get(ME, job.id)).state


async def test_the_next_job_does_not_wait_for_the_queue_file(service: Service, ends: Ends) -> None:
    """It begins while the end of the one before is written down, which is not lost by that."""
    first, second = await service.create(spec("/a")), await service.create(spec("/b"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    start = await worker.hears(link.Start, 2)
    assert (start.job, await state_of(service, first) in RUNNING) == (second.id, True)
    ends.go.set()
    await service.next_notice(first, DONE)
    await worker.carry(start)
    await service.next_notice(second, DONE)


async def test_an_end_that_the_queue_file_refuses_is_no_end(service: Service, ends: Ends) -> None:
    """The job is dispatched again, when there is a slot, and has nothing left to fetch."""
    first, second = await service.create(spec("/a")), await service.create(spec("/b"))
    ends.refused = 1
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    start = await worker.hears(link.Start, 2)
    ends.go.set()
    await service.until(first, lambda seen: seen.state not in RUNNING)
    await worker.carry(start)
    await service.next_notice(second, DONE)
    await service.next_notice(first, DONE)
    assert len([said for said in worker.heard if isinstance(said, link.Start)]) == 2


async def test_a_worker_that_dies_after_its_last_file_has_done_its_job(
    service: Service, ends: Ends
) -> None:
    """What it said is written down; only the job that has begun since is tried again."""
    first, second = await service.create(spec("/a")), await service.create(spec("/b"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    await worker.hears(link.Start, 2)
    worker.kill()
    ends.go.set()
    await service.next_notice(first, DONE)
    other = await service.worker(1)
    again = await other.hears(link.Start)
    assert again.job == second.id
    await other.carry(again)
    await service.next_notice(second, DONE)


@pytest.mark.parametrize("how", ["suspend", "cancel"])
async def test_who_stops_a_job_at_its_end_gets_what_he_asked_for(
    service: Service, ends: Ends, how: str
) -> None:
    """Its owner was faster than the queue file: the job stands, or is gone, and nothing hangs."""
    first, second = await service.create(spec("/a")), await service.create(spec("/b"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    start = await worker.hears(link.Start, 2)
    jobs = service.parts.jobs
    asked = asyncio.create_task(getattr(jobs, how)(ME, first.id))
    await service.until(first, lambda seen: seen.state is JobState.SUSPENDED)
    ends.go.set()
    async with asyncio.timeout(10):
        await asked
    if how == "suspend":
        found = await jobs.get(ME, first.id)
        assert (found.state, found.files_transferred) == (JobState.SUSPENDED, 1)
    await worker.carry(start)
    await service.next_notice(second, DONE)


async def test_a_job_that_gets_another_file_at_its_end_counts_again(
    service: Service, ends: Ends
) -> None:
    """Two are under way then, and no third one begins before both have ended. It has not been at
    work for longer by that: nobody takes its place before its time slice is over.
    """
    jobs = [await service.create(spec(name)) for name in ("/a", "/b", "/c")]
    worker = await service.worker()
    first = await worker.hears(link.Start)
    await worker.carry(first)
    second = await worker.hears(link.Start, 2)
    more = FileSpec(remote="http://127.0.0.1/d", local="/d")
    await service.parts.jobs.add_files(ME, jobs[0].id, [more])
    ends.go.set()
    extended = await worker.hears(link.Extend)
    await worker.carry(second)
    await service.next_notice(jobs[1], DONE)
    assert len([said for said in worker.heard if isinstance(said, link.Start)]) == 2
    await worker.carry(extended)
    await service.next_notice(jobs[0], DONE)
    assert (await worker.hears(link.Start, 3)).job == jobs[2].id


async def test_what_was_at_its_end_is_queued_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the job whose end nobody wrote down, and the one that had its slot."""
    async with running_service(tmp_path / "crash", NARROW) as service:
        Ends(service, monkeypatch)
        jobs = [await service.create(spec(name)) for name in ("/a", "/b")]
        worker = await service.worker()
        await worker.carry(await worker.hears(link.Start))
        await worker.hears(link.Start, 2)
    async with running_service(tmp_path / "crash", NARROW) as service:
        worker = await service.worker()
        for number, job in enumerate(jobs, 1):
            again = await worker.hears(link.Start, number)
            assert again.job == job.id
            await worker.carry(again)
            await service.next_notice(job, DONE)
