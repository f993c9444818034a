"""Organs take another configuration while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from tests.support.service import ME, QUICK, Service, running_service, spec
from transferd.config import Config
from transferd.model.errors import Conflict
from transferd.model.job import JobId
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState
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
