"""Limits and turns where several users share a service: real queue file, scripted workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.service import QUICK, SETTINGS, Service, one_by_one, running_service, spec
from transferd.config import Config
from transferd.model.caller import Caller
from transferd.model.errors import Conflict
from transferd.model.job import FileSpec, Job, JobSpec, Priority
from transferd.model.limits import Limits
from transferd.model.notices import Event, Gap, Notice, NoticeKind
from transferd.model.states import JobState
from transferd.sections import Bounds
from transferd.service.quotas import Quotas
from transferd.wire import link

#: Uids without a name, so that no group can make admins of them.
ALICE = Caller(uid=3_000_000_001, gid=3_000_000_001, pid=1)
BOB = Caller(uid=3_000_000_002, gid=3_000_000_002, pid=2)
ROOT = Caller(uid=0, gid=0, pid=3, admin=True, operator=True)


def limited(slots: int = 4, slice_: float = 300.0, **bounds: int) -> Config:
    """Return a configuration with limits."""
    queue = msgspec.structs.replace(
        QUICK.queue, background_slots=slots, foreground_slots=slots, time_slice_seconds=slice_
    )
    return msgspec.structs.replace(QUICK, limits=Bounds(**bounds), queue=queue)


def _uid(caller: Caller) -> int:
    return caller.uid


async def make(service: Service, caller: Caller, *files: str, start: bool = True) -> Job:
    """Make a job of a caller's."""
    (created,) = await service.parts.jobs.create(caller, [spec(*files, start=start)])
    return created.job


def _wish(name: str, priority: Priority) -> JobSpec:
    return spec(name, settings=replace(SETTINGS, priority=priority))


def _state(*states: JobState) -> Callable[[Job], bool]:
    return lambda job: job.state in states


async def test_jobs_are_limited_for_all_but_admins(tmp_path: Path) -> None:
    """BITS 1.18: per user and per machine; admins are exempt from both."""
    config = limited(jobs_per_user=2, jobs_per_machine=3)
    async with running_service(tmp_path / "state", config, owner_of=_uid) as service:
        for name in ("/a", "/b"):
            await make(service, ALICE, name, start=False)
        with pytest.raises(Conflict) as refused:
            await make(service, ALICE, "/c", start=False)
        assert refused.value.code == "too_many_jobs"
        await make(service, BOB, "/d", start=False)
        with pytest.raises(Conflict) as refused:
            await make(service, BOB, "/e", start=False)
        assert refused.value.code == "queue_full"
        for name in "fghi":
            await make(service, ROOT, f"/{name}", start=False)


async def test_a_file_that_is_too_large_is_refused_before_its_body(tmp_path: Path) -> None:
    """The job is in error, the text names the figures; it goes on once there is room."""
    config = limited(bytes_per_user=100)
    async with running_service(tmp_path / "state", config, owner_of=_uid) as service:
        first = await make(service, ALICE, "/a")
        worker = await service.worker_of(ALICE.uid)
        start = await worker.hears(link.Start)
        assert start.bounded
        await worker.say(link.Sized(start.job, start.run, 0, 60))
        await worker.hears(link.Recorded)
        second = await make(service, ALICE, "/b")
        other = await worker.hears(link.Start, 2)
        await worker.say(link.Sized(other.job, other.run, 0, 41))
        failed = await service.until(second, _state(JobState.ERROR), ALICE)
        assert failed.error is not None
        assert failed.error.code == "queue_full"
        assert failed.error.message == (
            "cannot fetch http://127.0.0.1/b: it has 41 bytes, the other files of this user's jobs"
            " in the queue have 60, and 100 are allowed together"
        )
        assert len([m for m in worker.heard if isinstance(m, link.Recorded)]) == 1
        assert (await worker.hears(link.Stop)).job == second.id
        await service.parts.jobs.cancel(ALICE, first.id)
        await service.parts.jobs.resume(ALICE, second.id)
        again = await worker.hears(link.Start, 3)
        await worker.say(link.Sized(again.job, again.run, 0, 41))
        assert (await worker.hears(link.Recorded, 2)).job == second.id


async def test_with_no_byte_left_neither_jobs_nor_files_are_added(tmp_path: Path) -> None:
    """Nor by somebody who knows no size yet."""
    config = limited(bytes_per_machine=100)
    async with running_service(tmp_path / "state", config, owner_of=_uid) as service:
        job = await make(service, ALICE, "/a")
        worker = await service.worker_of(ALICE.uid)
        start = await worker.hears(link.Start)
        await worker.say(link.Sized(start.job, start.run, 0, 100))
        await worker.hears(link.Recorded)
        with pytest.raises(Conflict, match="all users' jobs in the queue have 100 bytes"):
            await make(service, BOB, "/b")
        more = FileSpec(remote="http://127.0.0.1/c", local="/c")
        with pytest.raises(Conflict, match="cannot add files"):
            await service.parts.jobs.add_files(ALICE, job.id, [more])
        await make(service, ROOT, "/d")


async def test_without_a_limit_on_bytes_nobody_waits_for_sizes(tmp_path: Path) -> None:
    """Nor for an admin, where there is one: his files are as large as they are."""
    async with running_service(tmp_path / "a", limited(), owner_of=_uid) as service:
        await make(service, ALICE, "/a")
        start = await (await service.worker_of(ALICE.uid)).hears(link.Start)
        assert not start.bounded
    config = limited(bytes_per_user=1)
    async with running_service(tmp_path / "b", config, owner_of=_uid) as service:
        await make(service, ROOT, "/a")
        assert not (await (await service.worker_of(0)).hears(link.Start)).bounded


@pytest.mark.parametrize("priority", [Priority.FOREGROUND, Priority.NORMAL])
async def test_a_long_queue_of_one_user_keeps_nobody_else_waiting(
    tmp_path: Path, priority: Priority
) -> None:
    """Whoever comes last gets the next slot, before hundreds that came earlier."""
    async with running_service(tmp_path / "state", limited(slots=1), owner_of=_uid) as service:
        wishes = [_wish(f"/a{number}", priority) for number in range(300)]
        await service.parts.jobs.create(ALICE, wishes)
        worker = await service.worker_of(ALICE.uid)
        first = await worker.hears(link.Start)
        await service.parts.jobs.create(BOB, [_wish("/b", priority)])
        await worker.carry(first)
        bobs = await service.worker_of(BOB.uid)
        await bobs.carry(await bobs.hears(link.Start))
        await worker.hears(link.Start, 2)


async def test_a_full_house_makes_room_at_the_end_of_a_slice(tmp_path: Path) -> None:
    """Foreground slots too: nobody waits for somebody else's endless jobs."""
    config = limited(slots=2, slice_=0.05)
    async with running_service(tmp_path / "state", config, owner_of=_uid) as service:
        wishes = [_wish(f"/a{number}", Priority.FOREGROUND) for number in range(2)]
        await service.parts.jobs.create(ALICE, wishes)
        worker = await service.worker_of(ALICE.uid)
        await worker.hears(link.Start, 2)
        (made,) = await service.parts.jobs.create(BOB, [_wish("/b", Priority.FOREGROUND)])
        await worker.hears(link.Stop)
        bobs = await service.worker_of(BOB.uid)
        assert (await bobs.hears(link.Start)).job == made.job.id


async def test_who_exceeds_the_outbox_hears_what_he_has_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap is told to its owner; nobody else has one."""
    monkeypatch.setattr("transferd.store.outbox.NOTICE_BYTES", 5_000)
    async with running_service(tmp_path / "state", owner_of=_uid) as service:
        jobs, notifier = service.parts.jobs, service.parts.notifier
        for caller in (BOB, *[ALICE] * 15):
            job = await make(service, caller, "/a", start=False)
            await jobs.cancel(caller, job.id)

        async def first(caller: Caller) -> Event:
            hears = notifier.subscribe(caller, job_id=None, kinds=NoticeKind.ENDED, after=0)
            async with asyncio.timeout(10), one_by_one(hears) as events:
                return await anext(events)

        gap, told = await first(ALICE), await first(BOB)
        assert isinstance(gap, Gap)
        assert gap.after == 0
        assert 5 < gap.oldest < 16
        assert isinstance(told, Notice)
        assert told.number == 1


async def test_a_user_database_that_hangs_holds_up_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is an admin is asked in a thread, and a job can be paused meanwhile."""
    asked, answered = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def is_member(uid: int, group: str) -> bool:
        loop.call_soon_threadsafe(asked.set)
        return answered.wait(60)

    monkeypatch.setattr("transferd.assembly.is_member", is_member)
    config = limited(bytes_per_user=100)
    async with running_service(tmp_path / "state", config, owner_of=_uid) as service:
        job = await make(service, ALICE, "/a")
        await asked.wait()
        async with asyncio.timeout(2):
            await service.parts.jobs.suspend(ALICE, job.id)
    answered.set()


async def test_who_is_not_said_to_be_an_admin_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """A dead name server keeps no job from running, and lifts no limit."""
    answered = threading.Event()
    quotas = Quotas(Limits(bytes_per_user=7), lambda uid: answered.wait(60), patience=0.05)
    assert (await quotas.of_owner(1)).bytes_per_user == 7
    assert (await quotas.of_owner(1)).bytes_per_user == 7
    asking = [each for each in threading.enumerate() if each.name.startswith("lookup of")]
    assert len(asking) == 1
    answered.set()
    assert "owner.unknown" in caplog.text
