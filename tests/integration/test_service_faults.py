"""The service when something under it gives way: a queue file that refuses, a worker that hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import ME, ScriptedWorker, Service, running_service, spec
from transferd.model.errors import StoreError, Unavailable
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState
from transferd.service.clock import SystemClock
from transferd.service.housekeeper import Ages, Housekeeper
from transferd.service.workers import Patience
from transferd.wire import chores, link


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with an empty queue."""
    async with running_service(tmp_path / "state") as running:
        yield running


class Refusals:
    """Makes a method of the queue raise as often as the test says; then it works again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: object, method: str) -> None:
        self.left = 0
        self.met = asyncio.Event()
        works: Callable[..., Awaitable[Any]] = getattr(store, method)

        async def refuse(*args: Any, **options: Any) -> Any:
            if self.left:
                self.left -= 1
                self.met.set()
                raise StoreError("cannot write to the queue file: the disk is full")
            return await works(*args, **options)

        monkeypatch.setattr(store, method, refuse)


FOREVER = 1_000_000_000


async def _cancelled(service: Service, name: str, number: int) -> ScriptedWorker:
    """Have a job's *number*-th run begin, and cancel that job."""
    job = await service.create(spec(name))
    worker = await service.worker()
    await worker.hears(link.Start, number)
    await service.parts.jobs.cancel(ME, job.id)
    return worker


async def test_a_job_whose_failure_could_not_be_kept_is_tried_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused write never leaves a job that seems to run and that nobody carries."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    refusals = Refusals(monkeypatch, service.store.jobs, "apply")
    refusals.left = 1
    worker.kill()
    async with asyncio.timeout(10):
        await refusals.met.wait()
    other = await service.worker(1)
    again = await other.hears(link.Start)
    assert (again.job, again.run) == (job.id, start.run + 1)


async def test_the_scheduler_outlives_a_queue_file_that_refuses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the queue file holds jobs up; it does not end the daemon."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.fail(start, "connection_lost")
    await service.until(job, lambda seen: seen.state is JobState.TRANSIENT_ERROR)
    refusals = Refusals(monkeypatch, service.store.jobs, "retry")
    refusals.left = 1
    service.parts.organs.scheduler.wake()
    async with asyncio.timeout(10):
        await refusals.met.wait()
    await worker.hears(link.Start, 2)


async def test_the_end_does_not_wait_for_a_queue_file_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends the daemon soon in every state, also on a full disk."""
    async with running_service(tmp_path / "state") as service:
        await service.create(spec("/a"))
        worker = await service.worker()
        start = await worker.hears(link.Start)
        for method in ("apply", "keep"):
            Refusals(monkeypatch, service.store.jobs, method).left = FOREVER
        await worker.say(link.Durable(start.job, start.run, 0, 5))
        await worker.hears(link.Stop)
        began = time.monotonic()
        async with asyncio.timeout(20):
            await service.parts.organs.runs.close()
        assert time.monotonic() - began < 3


async def test_a_worker_that_reads_nothing_holds_up_neither_its_owner_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped worker whose link is full: its owner's verbs and SIGTERM come through."""
    monkeypatch.setattr("transferd.service.runs.STOP_PATIENCE", 0.05)
    async with running_service(tmp_path / "state") as service:
        await service.create(spec("/first"))
        worker = await service.worker()
        await worker.hears(link.Start)
        names = [f"/{'d' * 250}/{'e' * 250}/{number}" for number in range(1000)]
        large = await service.create(spec(*names, start=False))
        worker.deaf = True
        await service.create(spec("/last", start=False))
        await service.parts.jobs.resume(ME, large.id)
        await service.until(large, lambda seen: seen.state is JobState.CONNECTING)
        async with asyncio.timeout(20):
            suspended = await service.parts.jobs.suspend(ME, large.id)
        assert suspended.state is JobState.SUSPENDED
        assert await worker.wait() == -9


async def test_a_completed_job_is_completed_though_its_leftovers_stay(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been acknowledged by the queue file is not told as a failure."""
    job = await service.create(spec("/a", "/b"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.fetch(start, start.files[0])
    await service.until(job, lambda seen: seen.files_transferred == 1)
    Refusals(monkeypatch, service.store.jobs, "strays").left = 1
    left = await service.parts.jobs.complete(ME, job.id)
    assert left.state is JobState.ACKNOWLEDGED


async def test_leftovers_that_could_not_be_forgotten_are_asked_for_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue file that refuses in between keeps no temporary until the next start."""
    worker = await _cancelled(service, "/a", 1)
    refusals = Refusals(monkeypatch, service.store.jobs, "forget_strays")
    refusals.left = 1
    await _cancelled(service, "/b", 2)
    await _cancelled(service, "/c", 3)
    discards = [said for said in worker.heard if isinstance(said, chores.Discard)]
    left = [{Path(each.temporary).name[1] for each in said.leftovers} for said in discards]
    assert left == [{"a"}, {"b"}, {"b", "c"}]


async def test_tidying_up_that_fails_is_put_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk does not end the daemon for the sake of old notices."""
    refusals = Refusals(monkeypatch, service.store.notices, "prune")
    refusals.left = 1
    tidying = asyncio.create_task(service.parts.housekeeper.run())
    async with asyncio.timeout(10):
        await refusals.met.wait()
    await service.store.notices.bounds()
    assert not tidying.done()
    tidying.cancel()
    await asyncio.wait([tidying])


class Stepped(SystemClock):
    """A clock that somebody has set ahead."""

    def now(self) -> datetime:
        """A year later."""
        return super().now() + timedelta(days=365)


async def test_a_clock_that_is_set_ahead_ends_no_job(service: Service) -> None:
    """A machine that learns the time late keeps its queue and what is owed to listeners."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    owed = await service.next_notice(job, NoticeKind.TRANSFERRED)
    store, closing = service.store, service.parts.organs.closing
    ages = Ages(notices=timedelta(days=30), inactivity=timedelta(days=90))
    await Housekeeper(store.jobs, store.notices, closing, ages, Stepped()).tidy()
    assert (await service.parts.jobs.get(ME, job.id)).state is JobState.TRANSFERRED
    assert not (await store.notices.notice(owed.number)).settled


async def test_a_worker_that_never_answers_is_ended(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung worker costs its owner a retry, not the verb."""
    await service.create(spec("/a", start=False))
    worker = await service.worker()

    async def silence(_: link.ToWorker) -> None:
        """Say nothing."""

    monkeypatch.setattr(worker, "_answer", silence)
    monkeypatch.setattr(service.parts.organs.workers, "_patience", Patience(answer=0.05))
    with pytest.raises(Unavailable, match="did not answer"):
        await service.create(spec("/b"))
    assert await worker.wait() == -9
    monkeypatch.undo()
    await service.create(spec("/b", start=False))
