"""Registered callbacks, against the real API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from tests.support.scripted_daemon import ScriptedDaemon, ScriptedService, scripted_daemon
from transferd.client import manager as manager_module
from transferd.client.job import Job
from transferd.client.manager import Manager, connect
from transferd.model.caller import Caller
from transferd.model.errors import NotFound
from transferd.model.job import JobId
from transferd.model.notices import Modified, NoticeKind
from transferd.model.states import JobState
from transferd.wire.api import NoticeAnswer

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def daemon() -> AsyncIterator[ScriptedDaemon]:
    """A daemon that says what it is told to."""
    async with scripted_daemon() as running:
        yield running


@pytest.fixture
def service(daemon: ScriptedDaemon) -> ScriptedService:
    """What is behind that daemon."""
    return daemon.service


@pytest.fixture
async def manager(daemon: ScriptedDaemon) -> AsyncIterator[Manager]:
    """A client of that daemon."""
    async with connect(daemon.path) as connected:
        yield connected


async def running_job(manager: Manager, name: str = "a job") -> Job:
    """Make a job that runs."""
    job = await manager.create_job(name)
    await job.add_file("https://host/a", f"/tmp/{job.id}")
    await job.resume()
    return job


async def test_a_callback_gets_the_job_and_the_notice(
    manager: Manager, service: ScriptedService
) -> None:
    """BITS.md N10; to return is to acknowledge (N2)."""
    job = await running_job(manager)
    calls: list[tuple[Job, NoticeAnswer]] = []
    await job.set_notify(on_transferred=lambda *call: calls.append(call))
    notice = await service.transfer(job)
    assert await service.acknowledgements(1) == [notice.number]
    ((called, told),) = calls
    assert called is job
    assert called.state is JobState.TRANSFERRED
    assert (told.kind, told.number) == ("transferred", notice.number)


async def test_coroutine_functions_are_awaited(manager: Manager, service: ScriptedService) -> None:
    """Whatever a callback returns is awaited if it can be; only then it has returned."""
    job = await running_job(manager)
    steps: list[str] = []

    async def done(job: Job, notice: NoticeAnswer) -> None:
        await asyncio.sleep(0)
        steps.append(f"{notice.kind} {service.acknowledged}")

    await job.set_notify(on_error=done, on_transferred=lambda job, notice: done(job, notice))
    await service.fail(job)
    await service.acknowledgements(1)
    await service.transfer(job)
    await service.acknowledgements(2)
    assert steps == ["error []", "transferred [1]"]


class Barrier:
    """Tells when everything that a job's callbacks were told so far has been dealt with.

    The callbacks of one job run one after the other: the one for a file stands behind all others.
    """

    def __init__(self, service: ScriptedService) -> None:
        self._service = service
        self._passed = asyncio.Event()

    def on_file(self, job: Job, notice: NoticeAnswer) -> None:
        """To be registered."""
        self._passed.set()

    async def reach(self, job: Job) -> None:
        """Wait until then."""
        self._passed.clear()
        state = self._service.jobs[JobId(job.id)].state
        await self._service.happen(job, NoticeKind.FILE_TRANSFERRED, state)
        await self._passed.wait()


async def test_an_exception_means_not_delivered(
    manager: Manager, service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    """BITS.md N2: what raised is not acknowledged, and is called again when it comes again."""
    job = await running_job(manager)
    barrier = Barrier(service)
    tries: list[int | None] = []

    def stubborn(job: Job, notice: NoticeAnswer) -> None:
        tries.append(notice.number)
        if len(tries) < 3:
            raise RuntimeError("not yet")

    await job.set_notify(on_transferred=stubborn, on_file=barrier.on_file)
    notice = await service.transfer(job)
    for count in (1, 2):
        await barrier.reach(job)
        assert len(tries) == count
        assert service.acknowledged == []
        service.again(notice)
    await service.acknowledgements(1)
    assert tries == [notice.number] * 3
    assert "not yet" in caplog.text


async def test_completing_from_within_does_not_dead_lock(
    manager: Manager, service: ScriptedService
) -> None:
    """BITS.md N11: it is what the sample does."""
    job = await running_job(manager)
    completed = asyncio.Event()

    async def complete(job: Job, notice: NoticeAnswer) -> None:
        await job.complete()
        completed.set()

    await job.set_notify(on_transferred=complete)
    await service.transfer(job)
    await completed.wait()
    assert JobId(job.id) not in service.jobs


async def test_repairing_from_within_goes_on(manager: Manager, service: ScriptedService) -> None:
    """BITS.md A7: on error, set the credentials again and resume."""
    job = await running_job(manager)

    async def repair(job: Job, notice: NoticeAnswer) -> None:
        await job.set_credentials("server", "basic", "alice", "secret")
        await job.resume()

    await job.set_notify(on_error=repair)
    await service.fail(job)
    await service.acknowledgements(1)
    assert service.jobs[JobId(job.id)].state is JobState.QUEUED


async def test_waiting_from_within_does_not_wait_for_itself(
    manager: Manager, service: ScriptedService
) -> None:
    """`wait` lets callbacks have their turn, but not the one that waits."""
    job = await running_job(manager)

    async def look(job: Job, notice: NoticeAnswer) -> None:
        assert (await job.wait()).state == "transferred"

    await job.set_notify(on_transferred=look)
    await service.transfer(job)
    assert await service.acknowledgements(1) == [1]


async def test_a_notice_is_not_called_twice_at_once(
    manager: Manager, service: ScriptedService
) -> None:
    """A slow callback outlasts the daemon's patience; its notice comes again meanwhile."""
    job = await running_job(manager)
    barrier = Barrier(service)
    began, go_on = asyncio.Event(), asyncio.Event()
    calls: list[int | None] = []

    async def slow(job: Job, notice: NoticeAnswer) -> None:
        calls.append(notice.number)
        began.set()
        await go_on.wait()

    await job.set_notify(on_transferred=slow, on_file=barrier.on_file)
    notice = await service.transfer(job)
    await began.wait()
    service.again(notice)
    service.again(notice)
    reached = asyncio.ensure_future(barrier.reach(job))
    go_on.set()
    await reached
    assert calls == [notice.number]
    assert service.acknowledged == [notice.number]


async def test_what_was_dealt_with_is_only_acknowledged_again(
    manager: Manager, service: ScriptedService
) -> None:
    """The acknowledgement may get lost; what the callback has done must not be done twice."""
    job = await running_job(manager)
    barrier = Barrier(service)
    calls: list[int | None] = []

    def once(job: Job, notice: NoticeAnswer) -> None:
        calls.append(notice.number)

    await job.set_notify(on_transferred=once, on_file=barrier.on_file)
    service.lose_acknowledgements = 1
    notice = await service.transfer(job)
    await barrier.reach(job)
    assert calls == [notice.number]
    assert service.acknowledged == []
    service.again(notice)
    await service.acknowledgements(1)
    assert calls == [notice.number]


async def test_a_files_callback_comes_before_its_jobs(
    manager: Manager, service: ScriptedService
) -> None:
    """BITS.md N7: the callbacks of one job are serial, and files precede the job."""
    job = await running_job(manager)
    order: list[str] = []

    async def slow_file(job: Job, notice: NoticeAnswer) -> None:
        await asyncio.sleep(0)
        order.append(f"{notice.kind} {notice.number}")

    def done(job: Job, notice: NoticeAnswer) -> None:
        order.append(f"{notice.kind} {notice.number}")

    await job.set_notify(on_file=slow_file, on_transferred=done)
    for _ in range(3):
        await service.happen(job, NoticeKind.FILE_TRANSFERRED, JobState.TRANSFERRING)
    await service.transfer(job)
    await service.acknowledgements(1)
    assert order == [
        "file_transferred 1",
        "file_transferred 2",
        "file_transferred 3",
        "transferred 4",
    ]


async def test_at_most_four_callbacks_run_at_once(
    manager: Manager, service: ScriptedService
) -> None:
    """BITS.md N6."""
    jobs = [await running_job(manager, f"job {number}") for number in range(6)]
    running: list[int] = [0, 0]
    four, go_on = asyncio.Event(), asyncio.Event()

    async def slow(job: Job, notice: NoticeAnswer) -> None:
        running[0] += 1
        running[1] = max(running)
        if running[0] == 4:
            four.set()
        await go_on.wait()
        running[0] -= 1

    for job in jobs:
        await job.set_notify(on_transferred=slow)
        await service.transfer(job)
    await four.wait()
    go_on.set()
    await service.acknowledgements(6)
    assert running == [0, 4]


async def test_acknowledgements_that_wait_go_together(
    manager: Manager, service: ScriptedService
) -> None:
    """One request is under way at a time; what callbacks have done meanwhile is the next one."""
    jobs = [await running_job(manager, f"job {number}") for number in range(20)]
    returned = asyncio.Semaphore(0)
    for job in jobs:
        await job.set_notify(on_transferred=lambda *_: returned.release())
    service.gate.clear()
    for job in jobs:
        await service.transfer(job)
    for _ in jobs:
        await returned.acquire()
    service.gate.set()
    await service.acknowledgements(len(jobs))
    assert len(service.together) <= 2


async def test_what_happened_before_anybody_registered_is_still_delivered(
    manager: Manager, service: ScriptedService
) -> None:
    """BITS.md N3: the guarantee removes the race between the job's end and the registration."""
    job = await running_job(manager)
    notice = await service.transfer(job)
    calls: list[int | None] = []
    await job.set_notify(on_transferred=lambda job, notice: calls.append(notice.number))
    await service.acknowledgements(1)
    assert calls == [notice.number]


async def test_the_last_registration_wins(manager: Manager, service: ScriptedService) -> None:
    """BITS.md N4: a registration replaces the one before."""
    job = await running_job(manager)
    calls: list[str] = []
    await job.set_notify(on_transferred=lambda *_: calls.append("first"))
    await job.set_notify(on_transferred=lambda *_: calls.append("second"))
    await service.listening(1)
    await service.transfer(job)
    await service.acknowledgements(1)
    assert calls == ["second"]


async def test_registering_nothing_unregisters(manager: Manager, service: ScriptedService) -> None:
    """BITS.md N4: NULL unregisters; the daemon hears of nobody who listens."""
    job = await running_job(manager)
    await job.set_notify(on_transferred=lambda *_: None)
    await service.listening(1)
    await job.set_notify()
    await service.listening(0)


async def test_the_daemon_is_told_what_the_callbacks_want(
    manager: Manager, service: ScriptedService
) -> None:
    """A file's notice is written down only for jobs that ask for it; the command stays."""
    job = await running_job(manager)
    await job.set_notify(kinds=["transferred"], command=["/bin/true", "x"])
    assert job.answer.notify.kinds == ["transferred"]
    await job.set_notify(on_file=lambda *_: None)
    assert job.answer.notify.kinds == ["transferred", "error", "file_transferred"]
    assert job.answer.notify.command == ["/bin/true", "x"]
    await job.set_notify(command=None)
    assert job.answer.notify.command is None


async def test_modifications_are_merged(manager: Manager, service: ScriptedService) -> None:
    """A slow callback sees how the job is, not each step of how it got there."""
    job = await running_job(manager)
    barrier = Barrier(service)
    began, go_on = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def slow(job: Job, notice: NoticeAnswer) -> None:
        began.set()
        await go_on.wait()
        seen.append(notice.job.bytes_transferred)

    await job.set_notify(on_modification=slow, on_file=barrier.on_file)
    for count in range(1, 50):
        told = Modified(job=service.put(JobId(job.id), bytes_transferred=count))
        service.tell(told, NoticeKind.MODIFICATION, job.id)
        if count == 1:
            await began.wait()
    reached = asyncio.ensure_future(barrier.reach(job))
    await manager.version()  # by then the stream has been read
    go_on.set()
    await reached
    assert seen[0] == 1
    assert seen[-1] == 49
    assert len(seen) < 49


async def test_a_restart_of_the_daemon_loses_nothing(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """The stream is opened again, and what is owed is delivered then."""
    job = await running_job(manager)
    calls: list[int | None] = []
    await job.set_notify(on_transferred=lambda job, notice: calls.append(notice.number))
    await daemon.stop()
    notice = await service.transfer(job)
    await daemon.start()
    await service.acknowledgements(1)
    assert calls == [notice.number]


async def test_something_cancelled_within_a_callback_ends_nothing(
    manager: Manager, service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that awaits a cancelled task has failed; its job is still listened to."""
    job = await running_job(manager)
    tries: list[int] = []
    barrier = Barrier(service)

    async def stumble(job: Job, notice: NoticeAnswer) -> None:
        tries.append(1)
        if len(tries) == 1:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task

    await job.set_notify(on_transferred=stumble, on_file=barrier.on_file)
    notice = await service.transfer(job)
    await barrier.reach(job)
    service.again(notice)
    await service.acknowledgements(1)
    assert len(tries) == 2
    assert "cancelled" in caplog.text


async def test_wait_returns_after_the_callback(manager: Manager, service: ScriptedService) -> None:
    """Who waits and completes must not take the notice away from a registered callback."""
    job = await running_job(manager)
    order: list[str] = []
    began, go_on = asyncio.Event(), asyncio.Event()

    async def done(job: Job, notice: NoticeAnswer) -> None:
        began.set()
        await go_on.wait()
        order.append("callback")

    await job.set_notify(on_transferred=done)

    async def waiter() -> None:
        await job.wait()
        order.append("wait")

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(waiter())
        await service.transfer(job)
        await began.wait()
        early, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not early
        go_on.set()
    assert order == ["callback", "wait"]


async def test_wait_does_not_hang_on_a_callback_that_nobody_will_call(
    manager: Manager, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may have acknowledged; then nothing comes."""
    monkeypatch.setattr("transferd.client.job.CALLBACK_GRACE", 0.01)
    job = await running_job(manager)
    service.put(JobId(job.id), state=JobState.TRANSFERRED)
    await job.set_notify(on_transferred=lambda *_: None)
    assert (await job.wait()).state == "transferred"


async def test_the_end_of_a_manager_lets_callbacks_end(daemon: ScriptedDaemon) -> None:
    """A callback that runs is not cut off by the program's going on."""
    service = daemon.service
    ended = asyncio.Event()
    async with connect(daemon.path) as manager:
        job = await running_job(manager)
        began = asyncio.Event()

        async def slow(job: Job, notice: NoticeAnswer) -> None:
            began.set()
            await manager.version()
            ended.set()

        await job.set_notify(on_transferred=slow)
        await service.transfer(job)
        await began.wait()
    assert ended.is_set()
    assert service.acknowledged == [1]


async def test_a_callback_that_does_not_end_is_cut_off_and_comes_again(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's end is not held up for ever; the notice stays unacknowledged."""
    monkeypatch.setattr(manager_module, "CLOSING_GRACE", 0.01)
    service = daemon.service
    async with connect(daemon.path) as manager:
        job = await running_job(manager)
        began = asyncio.Event()

        async def endless(job: Job, notice: NoticeAnswer) -> None:
            began.set()
            await asyncio.Event().wait()

        await job.set_notify(on_transferred=endless)
        await service.transfer(job)
        await began.wait()
    assert service.acknowledged == []
    assert [notice.settled for notice in service.outbox] == [False]


async def test_an_exception_in_the_block_is_not_wrapped(daemon: ScriptedDaemon) -> None:
    """`except NotFound` around the block must see a NotFound, callbacks or not."""

    async def block() -> None:
        async with connect(daemon.path) as manager:
            job = await running_job(manager)
            await job.set_notify(on_transferred=lambda *_: None)
            await manager.job("00000000-0000-0000-0000-000000000000")

    with pytest.raises(NotFound):
        await block()


async def test_a_job_that_ends_is_no_longer_listened_to(
    manager: Manager, service: ScriptedService
) -> None:
    """Ten thousand jobs must not mean ten thousand streams for ever."""
    job = await running_job(manager)
    await job.set_notify(on_transferred=lambda *_: None)
    await service.happen(job, NoticeKind.ENDED, JobState.CANCELLED)
    await service.listening(0)


async def test_a_job_that_ended_while_the_daemon_was_away_is_no_error(
    manager: Manager,
    daemon: ScriptedDaemon,
    service: ScriptedService,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream of a job that is gone is refused with 404: then all is said."""
    job = await running_job(manager)
    await job.set_notify(on_transferred=lambda *_: None)
    await service.listening(1)
    await daemon.stop()
    del service.jobs[JobId(job.id)]
    refused = asyncio.Event()
    look = service.get

    async def looking(caller: Caller, job_id: JobId) -> object:
        refused.set()
        return await look(caller, job_id)

    monkeypatch.setattr(service, "get", looking)
    await daemon.start()
    await refused.wait()
    await manager.version()
    await service.listening(0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
