"""Organs take another configuration while they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from tests.support.service import ME, QUICK, Service, running_service, spec
from transferd.config import Config
from transferd.model.errors import Conflict, StoreDamaged
from transferd.model.job import JobId, Priority
from transferd.model.notices import NoticeKind
from transferd.model.rates import FREE, Rates
from transferd.model.states import JobState
from transferd.service.ports import Dispatched
from transferd.service.run import Run
from transferd.wire import link

DONE = NoticeKind.TRANSFERRED


def changed(**sections: dict[str, object]) -> Config:
    """The configuration of the running service with other values."""
    plain = msgspec.to_builtins(QUICK)
    for section, values in sections.items():
        plain[section] |= values
    return msgspec.convert(plain, Config)


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with one slot for background jobs."""
    config = changed(queue={"background_slots": 1})
    async with running_service(tmp_path / "state", config) as running:
        yield running


async def test_living_workers_are_told(service: Service) -> None:
    """Rule: what a worker is asked next it does by the new settings; a run keeps its own."""
    await service.create(spec("/a"))
    worker = await service.worker()
    before = (await worker.hears(link.Configure)).settings
    await worker.hears(link.Start)
    service.parts.reconfigure(
        changed(network={"connect_timeout_seconds": 7}, durability={"seconds": 9})
    )
    after = (await worker.hears(link.Configure, 2)).settings
    assert (before.connect_timeout, before.durable_seconds) == (30.0, 2.0)
    assert (after.connect_timeout, after.durable_seconds) == (7.0, 9.0)
    assert not any(isinstance(heard, link.Stop) for heard in worker.heard)


async def test_more_slots_are_filled_at_once_and_fewer_end_nothing(service: Service) -> None:
    """Rule: the next decision is the first by the new numbers."""
    first = await service.create(spec("/a"))
    second = await service.create(spec("/b"))
    worker = await service.worker()
    assert (await worker.hears(link.Start)).job == first.id
    for _ in range(20):  # so that the scheduler has looked, and waits for somebody to wake it
        await service.store.jobs.counts()
    service.parts.reconfigure(changed(queue={"background_slots": 2}))
    assert (await worker.hears(link.Start, 2)).job == second.id
    service.parts.reconfigure(changed(queue={"background_slots": 1}))
    third = await service.create(spec("/c"))
    worker_runs = [heard for heard in worker.heard if isinstance(heard, link.Start)]
    for start in worker_runs:
        await worker.carry(start)
        await service.next_notice(first if start.job == first.id else second, DONE)
    assert (await worker.hears(link.Start, 3)).job == third.id
    assert [each.job for each in worker.heard if isinstance(each, link.Stop)] == []


async def test_limits_hold_from_the_next_request_on(service: Service) -> None:
    """Rule: jobs that are there stay, also above a lower limit."""
    jobs = [await service.create(spec(f"/{n}", start=False)) for n in range(3)]
    service.parts.reconfigure(changed(limits={"jobs_per_user": 2}))
    with pytest.raises(Conflict, match="jobs"):
        await service.create(spec("/d", start=False))
    for job in jobs:
        assert (await service.parts.jobs.get(ME, JobId(job.id))).state is JobState.SUSPENDED
    service.parts.reconfigure(changed(limits={"jobs_per_user": 4}))
    await service.create(spec("/d", start=False))


async def test_a_limit_reaches_living_workers_and_whoever_asks_why(service: Service) -> None:
    """Rule: [bandwidth] counts at once, and a job that moves says what holds it."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    service.parts.reconfigure(
        changed(bandwidth={"total_bytes_per_second": 5000, "normal_bytes_per_second": 4000})
    )
    terms = await worker.hears(link.Terms)
    assert terms.rates == Rates(total=5000, by_priority={Priority.NORMAL: 4000})
    await worker.say(link.Connected(start.job, start.run))
    await service.until(job, lambda seen: seen.state is JobState.TRANSFERRING)
    told = await service.parts.jobs.why(ME, job.id)
    assert [each.code for each in told] == ["priority_rate_limit"]
    service.parts.reconfigure(changed())
    assert (await worker.hears(link.Terms, 2)).rates == FREE
    assert await service.parts.jobs.why(ME, job.id) == ()


async def test_a_running_job_takes_up_its_priority_rate_and_streams_at_once(
    service: Service,
) -> None:
    """Rule: only what is new is said, and what runs goes on."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)

    async def change(**values: object) -> None:
        await service.parts.jobs.change(
            ME,
            job.id,
            lambda settings: replace(settings, **values),  # type: ignore[arg-type]
        )

    await change(description="nothing to the worker")
    await change(max_rate=4096)
    await change(priority=Priority.FOREGROUND)
    await change(streams=2)
    last = await worker.hears(link.Retune, 3)
    assert [heard for heard in worker.heard if isinstance(heard, link.Retune)] == [
        link.Retune(job.id, start.run, Priority.NORMAL, 4096),
        link.Retune(job.id, start.run, Priority.FOREGROUND, 4096),
        link.Retune(job.id, start.run, Priority.FOREGROUND, 4096, streams=2),
    ]
    assert last.priority is service.parts.organs.runs.running[0].priority
    assert (await service.parts.jobs.why(ME, job.id))[0].code == "rate_limit"
    assert not any(isinstance(heard, link.Stop) for heard in worker.heard)


async def test_what_changes_before_there_is_a_worker_is_not_lost(tmp_path: Path) -> None:
    """Rule: a job is handed over as it is by then."""
    async with running_service(tmp_path / "state", changed()) as service:
        launched = asyncio.Event()
        job = await service.create(spec("/a", start=False))
        worker = await service.worker()
        worker.kill()
        dispatch = service.parts.carrier.dispatch

        async def dispatched(runs: Sequence[Run]) -> Sequence[Dispatched | StoreDamaged | None]:
            taken = await dispatch(runs)
            launched.set()
            await service.parts.jobs.change(ME, job.id, lambda s: replace(s, max_rate=2048))
            return taken

        service.parts.carrier.dispatch = dispatched  # type: ignore[method-assign]
        await service.parts.jobs.resume(ME, job.id)
        await launched.wait()
        start = await (await service.worker(1)).hears(link.Start)
        assert start.settings.max_rate == 2048
