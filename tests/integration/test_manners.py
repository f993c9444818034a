"""The service as one machine of many: it spreads its starts, and lets a failing server rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from tests.support.service import (
    ME,
    QUICK,
    SETTINGS,
    TIMERS,
    ScriptedWorker,
    Service,
    running_service,
    spec,
)
from transferd.config import Config
from transferd.model.failures import Failure
from transferd.model.job import Job, JobSpec, Priority
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState
from transferd.wire import link

LONG = 1_000_000.0
PATIENT = replace(SETTINGS, timers=replace(TIMERS, no_progress_timeout=LONG))
SLOW = replace(PATIENT, timers=replace(PATIENT.timers, min_retry_delay=LONG / 4))
HASTY = replace(SETTINGS, timers=replace(TIMERS, no_progress_timeout=0))


def manners(**changes: float) -> Config:
    """Return a configuration with other manners than none."""
    fleet = msgspec.structs.replace(QUICK.fleet, **changes)
    return msgspec.structs.replace(QUICK, fleet=fleet)


def closed(config: Config) -> Config:
    """Return the same without any bandwidth for normal jobs."""
    none = msgspec.structs.replace(config.schedule.other, normal_bytes_per_second=0)
    schedule = msgspec.structs.replace(config.schedule, other=none)
    return msgspec.structs.replace(config, schedule=schedule)


RESTING = manners(rest_failures=2, rest_seconds=LONG / 10)
STAGGERED = manners(start_spread_seconds=LONG)


def in_state(state: JobState, code: str) -> Callable[[Job], bool]:
    """Tell whether a job is there for that reason."""
    return lambda job: job.state is state and job.error is not None and job.error.code == code


async def fail_twice(service: Service) -> ScriptedWorker:
    """Let two jobs fail by their server, one after the other."""
    for number in range(2):
        job = await service.create(spec(f"/{number}", settings=replace(SLOW, name="first")))
        worker = await service.worker()
        await worker.fail(await worker.hears(link.Start, number + 1), "connection_refused")
        await service.until(job, in_state(JobState.TRANSIENT_ERROR, "connection_refused"))
    return await service.worker()


async def test_a_job_whose_server_is_left_alone_waits_without_an_attempt(tmp_path: Path) -> None:
    """No worker hears of it; it says why it waits, and a resume lets it through."""
    async with running_service(tmp_path, RESTING) as service:
        worker = await fail_twice(service)
        job = await service.create(spec("/c", settings=PATIENT))
        seen = await service.until(job, in_state(JobState.TRANSIENT_ERROR, "server_resting"))
        assert (seen.attempts, seen.error_count) == (0, 0)
        (blocker,) = await service.parts.jobs.why(ME, job.id)
        assert (blocker.code, "http://127.0.0.1" in blocker.text) == ("server_resting", True)
        assert blocker.until is not None
        assert "resume" in blocker.remedy
        assert len([m for m in worker.heard if isinstance(m, link.Start)]) == 2
        await service.parts.jobs.resume(ME, job.id)
        start = await worker.hears(link.Start, 3)
        assert start.job == job.id
        await worker.carry(start)
        await service.next_notice(job, NoticeKind.TRANSFERRED)
        other = await service.create(spec("/d", settings=PATIENT))
        assert (await worker.hears(link.Start, 4)).job == other.id


async def test_no_server_rests_where_that_is_switched_off(tmp_path: Path) -> None:
    """Rule: `rest_failures = 0` is no rest, and not one after each failure."""
    async with running_service(tmp_path, manners(rest_failures=0)) as service:
        worker = await fail_twice(service)
        job = await service.create(spec("/c", settings=PATIENT))
        assert (await worker.hears(link.Start, 3)).job == job.id


async def test_a_failure_that_opens_the_breaker_puts_its_own_job_off_as_well(
    tmp_path: Path,
) -> None:
    """The retry of a job is not before its server's rest is over."""
    async with running_service(tmp_path, RESTING) as service:
        jobs = [await service.create(spec(f"/{n}", settings=PATIENT)) for n in range(2)]
        worker = await service.worker()
        starts = [await worker.hears(link.Start, n + 1) for n in range(2)]
        for start in starts:
            await worker.fail(start, "connection_refused")
        later = [service.until(job, lambda seen: seen.retry_delay > LONG / 30) for job in jobs]
        assert [(await wait).state for wait in later] == [JobState.TRANSIENT_ERROR] * 2


async def test_a_server_is_left_alone_for_as_long_as_it_asks_for(tmp_path: Path) -> None:
    """Our own longest delay is not the server's: it says when it can see somebody again."""
    queue = msgspec.structs.replace(QUICK.queue, max_retry_delay_seconds=4.0)
    async with running_service(tmp_path, msgspec.structs.replace(QUICK, queue=queue)) as service:
        job = await service.create(spec("/a", settings=PATIENT))
        worker = await service.worker()
        await worker.fail(await worker.hears(link.Start), "http_503", 7200.0)
        seen = await service.until(job, in_state(JobState.TRANSIENT_ERROR, "http_503"))
        assert 7200 <= seen.retry_delay <= 2 * 7200
        (blocker,) = await service.parts.jobs.why(ME, job.id)
        assert blocker.until is not None
        assert blocker.until - datetime.now(UTC) > timedelta(seconds=7100)


async def test_what_was_asked_for_beyond_our_own_delays_holds_on_one_network(
    tmp_path: Path,
) -> None:
    """A login page may ask for a day in the server's name: another network is tried."""
    queue = msgspec.structs.replace(QUICK.queue, max_retry_delay_seconds=4000.0)
    async with running_service(tmp_path, msgspec.structs.replace(QUICK, queue=queue)) as service:
        jobs = [await service.create(spec(f"/{n}", settings=PATIENT)) for n in range(2)]
        worker = await service.worker()
        starts = [await worker.hears(link.Start, n + 1) for n in range(2)]
        busy = Failure(code="http_503", message="it is busy", http_status=503)
        for start, asks in zip(starts, (7200.0, 3600.0), strict=True):
            await worker.say(link.Failed(start.job, start.run, busy, asks))
        for job in jobs:
            await service.until(job, in_state(JobState.TRANSIENT_ERROR, "http_503"))
        await service.parts.network._on_route()
        assert (await worker.hears(link.Start, 3)).job == starts[0].job
        waiting = await service.parts.jobs.get(ME, starts[1].job)
        assert waiting.state is JobState.TRANSIENT_ERROR


async def test_a_job_whose_server_asked_for_time_says_so(tmp_path: Path) -> None:
    """Who wonders why the wait is so long learns that it is not transferd's idea."""
    async with running_service(tmp_path, QUICK) as service:
        job = await service.create(spec("/a", settings=PATIENT))
        worker = await service.worker()
        await worker.fail(await worker.hears(link.Start), "http_503", 0.5)
        await service.until(job, in_state(JobState.TRANSIENT_ERROR, "http_503"))
        (blocker,) = await service.parts.jobs.why(ME, job.id)
        assert blocker.text == ("cannot go on: http_503; the server asked to be left alone for 1 s")
        assert blocker.until is not None


async def test_a_job_without_patience_tries_all_the_same(tmp_path: Path) -> None:
    """Nobody is given up because somebody else's download has failed."""
    async with running_service(tmp_path, RESTING) as service:
        worker = await fail_twice(service)
        job = await service.create(spec("/c", settings=HASTY))
        assert (await worker.hears(link.Start, 3)).job == job.id


async def test_after_a_start_background_jobs_wait_and_what_is_asked_for_does_not(
    tmp_path: Path,
) -> None:
    """A fleet that is switched on at once does not ask at once; people do not wait for it."""

    def wish(name: str, priority: Priority = Priority.NORMAL) -> JobSpec:
        return spec(name, settings=replace(SETTINGS, priority=priority), start=True)

    async with running_service(tmp_path, QUICK) as service:
        await service.parts.organs.runs.close()
        old = await service.create(wish("/old"))
        front = await service.create(wish("/front", Priority.FOREGROUND))
    async with running_service(tmp_path, STAGGERED) as service:
        worker = await service.worker()
        assert (await worker.hears(link.Start)).job == front.id
        new = await service.create(wish("/new", Priority.LOW))
        assert (await worker.hears(link.Start, 2)).job == new.id
        (blocker,) = await service.parts.jobs.why(ME, old.id)
        assert blocker.code == "start_spread"
        assert blocker.until is not None
        await service.parts.jobs.resume(ME, old.id)
        assert (await worker.hears(link.Start, 3)).job == old.id


async def test_a_window_that_opens_lets_background_jobs_go_at_a_moment_of_their_own(
    tmp_path: Path,
) -> None:
    """The same hour comes for a whole fleet; who may run all the time, and people, do not wait."""

    def wish(name: str, priority: Priority = Priority.NORMAL) -> JobSpec:
        return spec(name, settings=replace(SETTINGS, priority=priority), start=True)

    async with running_service(tmp_path, STAGGERED) as service:
        scheduler = service.parts.organs.scheduler
        service.parts.reconfigure(closed(STAGGERED))
        old = await service.create(wish("/old"))
        (blocker,) = await service.parts.jobs.why(ME, old.id)
        assert blocker.code == "schedule_closed"
        scheduler.opened([Priority.NORMAL])
        service.parts.reconfigure(STAGGERED)
        low = await service.create(wish("/low", Priority.LOW))
        worker = await service.worker()
        assert (await worker.hears(link.Start)).job == low.id
        new = await service.create(wish("/new"))
        assert (await worker.hears(link.Start, 2)).job == new.id
        (blocker,) = await service.parts.jobs.why(ME, old.id)
        assert (blocker.code, blocker.until is None) == ("start_spread", False)
        service.parts.reconfigure(QUICK)
        assert (await worker.hears(link.Start, 3)).job == old.id
        assert await service.parts.jobs.why(ME, old.id) == ()


async def test_a_retry_is_not_put_off_because_others_are_held_back(tmp_path: Path) -> None:
    """What was asked for, and has failed, comes back when its own delay is over."""
    async with running_service(tmp_path, STAGGERED) as service:
        job = await service.create(spec("/a"))
        worker = await service.worker()
        await worker.fail(await worker.hears(link.Start), "connection_refused")
        assert (await worker.hears(link.Start, 2)).job == job.id


async def test_when_the_network_is_back_people_do_not_wait_for_the_fleet(tmp_path: Path) -> None:
    """BITS Y5 for foreground jobs at once; background jobs are tried at a moment of their own."""
    async with running_service(tmp_path, STAGGERED) as service:
        jobs = []
        for number, priority in enumerate((Priority.FOREGROUND, Priority.NORMAL), start=1):
            settings = replace(SLOW, priority=priority)
            jobs.append(await service.create(spec(f"/{number}", settings=settings)))
            worker = await service.worker()
            await worker.fail(await worker.hears(link.Start, number), "network_unreachable")
            await service.until(jobs[-1], lambda seen: seen.state is JobState.TRANSIENT_ERROR)
        worker = await service.worker()
        await service.parts.organs.scheduler.retry_all()
        assert (await worker.hears(link.Start, 3)).job == jobs[0].id
        waiting = await service.parts.jobs.get(ME, jobs[1].id)
        assert waiting.state is JobState.TRANSIENT_ERROR


async def test_when_the_network_is_back_a_server_that_did_not_answer_is_asked(
    tmp_path: Path,
) -> None:
    """It may have been the network that failed, and not the server."""
    async with running_service(tmp_path, RESTING) as service:
        worker = await fail_twice(service)
        job = await service.create(spec("/c", settings=PATIENT))
        await service.until(job, in_state(JobState.TRANSIENT_ERROR, "server_resting"))
        await service.parts.network._on_route()
        again = {(await worker.hears(link.Start, number)).job for number in (3, 4, 5)}
        assert job.id in again


async def test_a_job_whose_reads_are_paced_says_why(tmp_path: Path) -> None:
    """It is slower than the line, and its owner is to know that nothing is broken."""
    async with running_service(tmp_path, QUICK) as service:
        job = await service.create(spec("/paced"))
        worker = await service.worker()
        start = await worker.hears(link.Start)
        await worker.say(link.Paced(start.job, start.run, held=True))
        await worker.say(link.Connected(start.job, start.run))
        await service.until(job, lambda now: now.state is JobState.TRANSFERRING)
        (blocker,) = await service.parts.jobs.why(ME, job.id)
        assert blocker.code == "paced_reads"
