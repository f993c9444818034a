"""The service holds jobs back by schedule, cost and interface, and lets them go on again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.service import (
    ME,
    QUICK,
    SETTINGS,
    ScriptedWorker,
    Service,
    running_service,
    spec,
)
from transferd.config import Config
from transferd.model.costs import NETWORK_MANAGER
from transferd.model.job import Cost, Job, JobSpec, Priority
from transferd.model.states import JobState
from transferd.wire import link

METERED, UNMETERED = NETWORK_MANAGER[1], NETWORK_MANAGER[2]
CLOSED: dict[str, object] = {"other": {"normal_bytes_per_second": 0}}


def changed(**sections: dict[str, object]) -> Config:
    """The configuration of the running service with other values."""
    plain = msgspec.to_builtins(QUICK)
    for section, values in sections.items():
        plain[section] |= values
    return msgspec.convert(plain, Config)


def wish(name: str, priority: Priority = Priority.NORMAL, cost: Cost = Cost.DEFAULT) -> JobSpec:
    """A job of one file."""
    return spec(name, settings=replace(SETTINGS, priority=priority, cost=cost))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with an empty queue."""
    async with running_service(tmp_path / "state") as running:
        yield running


async def codes(service: Service, job: Job) -> list[str]:
    """Why a job does not move."""
    return [blocker.code for blocker in await service.parts.jobs.why(ME, job.id)]


async def started(worker: ScriptedWorker, count: int, job: Job) -> link.Start:
    """Wait for the *count*-th start, which is this job's."""
    start = await worker.hears(link.Start, count)
    assert start.job == job.id
    return start


async def test_a_metered_link_interrupts_background_jobs_and_leaves_foreground_ones(
    service: Service,
) -> None:
    """BITS B8: it acts at once; the jobs are queued, without an error and without an attempt."""
    front = await service.create(wish("/front", Priority.FOREGROUND))
    worker = await service.worker()
    await started(worker, 1, front)
    back = await service.create(wish("/back"))
    await started(worker, 2, back)
    service.parts.organs.windows.costs(METERED)
    stopped = await worker.hears(link.Stop)
    held = await service.until(back, lambda job: job.state is JobState.QUEUED)
    assert stopped.job == back.id
    assert (held.attempts, held.error, held.error_count) == (0, None, 0)
    assert await codes(service, back) == ["metered"]
    assert await codes(service, front) == []
    service.parts.organs.windows.costs(UNMETERED)
    await started(worker, 3, back)
    assert [each.job for each in worker.heard if isinstance(each, link.Stop)] == [back.id]


async def test_a_job_that_may_cost_money_goes_before_those_that_may_not(service: Service) -> None:
    """Nobody waits behind a higher job that waits for another link."""
    service.parts.organs.windows.costs(METERED)
    held = await service.create(wish("/held", Priority.HIGH))
    paid = await service.create(wish("/paid", Priority.LOW, Cost.ALWAYS))
    worker = await service.worker()
    await started(worker, 1, paid)
    assert await codes(service, held) == ["metered"]


async def test_a_change_of_a_jobs_cost_counts_at_once_in_both_directions(service: Service) -> None:
    """The setting is live: a running job is interrupted by it, a queued one let go."""
    service.parts.organs.windows.costs(METERED)
    job = await service.create(wish("/a"))

    async def change(cost: Cost) -> None:
        await service.parts.jobs.change(ME, job.id, lambda was: replace(was, cost=cost))

    await change(Cost.NO_SURCHARGE)
    worker = await service.worker()
    await started(worker, 1, job)
    await change(Cost.STANDARD)
    assert (await worker.hears(link.Stop)).job == job.id
    await service.until(job, lambda seen: seen.state is JobState.QUEUED)
    await change(Cost.ALWAYS)
    await started(worker, 2, job)


async def test_a_closed_schedule_holds_its_priorities_and_an_open_one_starts_them(
    service: Service,
) -> None:
    """BITS B4, B5, Y4: 0 blocks; the end of the window is waited for, and no delay."""
    normal = await service.create(wish("/normal"))
    worker = await service.worker()
    await started(worker, 1, normal)
    service.parts.reconfigure(changed(schedule=CLOSED))
    assert (await worker.hears(link.Stop)).job == normal.id
    low = await service.create(wish("/low", Priority.LOW))
    await started(worker, 2, low)
    assert await codes(service, normal) == ["schedule_closed"]
    front = await service.create(wish("/front", Priority.FOREGROUND))
    await started(worker, 3, front)
    service.parts.reconfigure(QUICK)
    await started(worker, 4, normal)


async def test_a_vpn_holds_background_jobs_while_the_configuration_says_so(
    service: Service,
) -> None:
    """Both ends are live: the way of the packets, and what is said of it."""
    service.parts.reconfigure(changed(network={"blocked_interfaces": ["wg*"]}))
    service.parts.organs.windows.leads_over(frozenset({"wg0"}))
    job = await service.create(wish("/a", cost=Cost.ALWAYS))
    front = await service.create(wish("/front", Priority.FOREGROUND))
    worker = await service.worker()
    await started(worker, 1, front)
    (blocker,) = await service.parts.jobs.why(ME, job.id)
    assert (blocker.code, blocker.until) == ("interface_blocked", None)
    assert "wg0" in blocker.text
    service.parts.organs.windows.leads_over(frozenset({"eth0"}))
    await started(worker, 2, job)
    service.parts.organs.windows.leads_over(frozenset({"wg0"}))
    assert (await worker.hears(link.Stop)).job == job.id
    service.parts.reconfigure(QUICK)
    await started(worker, 3, job)


async def test_a_policy_sets_what_jobs_mean_that_do_not_say(service: Service) -> None:
    """BITS B8: the defaults are by priority, and an explicit setting is not beaten."""
    service.parts.organs.windows.costs(METERED)
    service.parts.reconfigure(
        changed(network={"normal_cost": "always", "foreground_cost": "unrestricted"})
    )
    held = await service.create(wish("/held", Priority.FOREGROUND))
    own = await service.create(wish("/own", Priority.NORMAL, Cost.STANDARD))
    job = await service.create(wish("/a"))
    worker = await service.worker()
    await started(worker, 1, job)
    assert await codes(service, held) == await codes(service, own) == ["metered"]


async def test_a_job_that_somebody_has_asked_for_waits_for_its_link_all_the_same(
    service: Service,
) -> None:
    """Whoever starts at once while others are held back is not above the rules."""
    service.parts.reconfigure(changed(fleet={"start_spread_seconds": 1000}))
    service.parts.organs.stagger.hold()
    service.parts.organs.windows.costs(METERED)
    job = await service.create(wish("/a"))
    front = await service.create(wish("/front", Priority.FOREGROUND))
    worker = await service.worker()
    await started(worker, 1, front)
    assert await codes(service, job) == ["metered"]
    service.parts.organs.windows.costs(UNMETERED)
    await started(worker, 2, job)
