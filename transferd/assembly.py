"""Puts the service together: which organs there are, and who knows whom. Nothing runs yet."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from zoneinfo import ZoneInfo

from transferd import __version__
from transferd.accounts import is_member
from transferd.config import Config
from transferd.model.caller import Caller
from transferd.model.job import Job, JobId, Timers
from transferd.model.rates import FREE
from transferd.service.announcement import announce
from transferd.service.breakers import Breakers
from transferd.service.carrier import Carrier
from transferd.service.chronicle import Chronicle
from transferd.service.clock import local_zone
from transferd.service.closing import Closing
from transferd.service.housekeeper import Ages, Housekeeper
from transferd.service.jobs import Jobs
from transferd.service.locks import JobLocks
from transferd.service.meter import Meter
from transferd.service.metering import SYSTEM_BUS, Metering
from transferd.service.network import NetworkWatch
from transferd.service.notifier import Delivery, Notifier
from transferd.service.organs import Organs
from transferd.service.outbox import NoticeStore
from transferd.service.outcomes import Outcomes
from transferd.service.ports import Clock, JobStore
from transferd.service.quotas import Quotas
from transferd.service.retries import RetryTimes
from transferd.service.runs import Runs
from transferd.service.scheduler import Scheduler
from transferd.service.sharing import Sharing
from transferd.service.stagger import Stagger
from transferd.service.turns import Slots
from transferd.service.windows import Policy, Windows
from transferd.service.workers import Launch, Workers
from transferd.transfer.breaker import BreakerPolicy
from transferd.wire import link
from transferd.wire.answers import Answers


def own_user(_: Caller) -> int:
    """Return the user of a daemon that works for one: whoever asks, the jobs are its own."""
    return os.getuid()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the service is put together over."""

    jobs: JobStore
    notices: NoticeStore
    launch: Launch
    clock: Clock
    answers: Answers
    meter: Meter
    #: Says whose a caller's jobs are.
    owner_of: Callable[[Caller], int] = own_user
    #: Where D-Bus services of the system are.
    bus: str = SYSTEM_BUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The service, put together."""

    organs: Organs
    jobs: Jobs
    notifier: Notifier
    carrier: Carrier
    breakers: Breakers
    housekeeper: Housekeeper
    network: NetworkWatch
    metering: Metering

    def reconfigure(self, config: Config) -> None:
        """Give every organ its part of another configuration.

        It counts from the next decision on: a run that is under way keeps the network settings that
        it began with, a job its timers, a running job beyond fewer slots its slot.
        """
        limits = config.limits.limits()
        self.organs.workers.configure(worker_settings(config), config.worker.idle_seconds)
        self.carrier.configure(retry_times(config), config.passport.options())
        self.breakers.configure(breaker_policy(config))
        self.organs.stagger.configure(config.fleet.start_spread_seconds)
        self.organs.quotas.configure(limits, _membership(config))
        self.organs.windows.configure(_policy(config))
        self.organs.scheduler.configure(_slots(config))
        self.notifier.configure(_delivery(config))
        self.housekeeper.configure(_ages(config))
        self.jobs.configure(limits)


def assemble(config: Config, ports: Ports) -> Parts:
    """Put the service together."""
    store, clock, meter = ports.jobs, ports.clock, ports.meter
    settings, idle = worker_settings(config), config.worker.idle_seconds
    workers = Workers(ports.launch, settings, idle, clock, meter)
    limits = config.limits.limits()
    quotas = Quotas(limits, _membership(config))
    jitter = random.random
    breakers = Breakers(clock, jitter, breaker_policy(config))
    stagger = Stagger(clock, jitter, config.fleet.start_spread_seconds)
    sharing = Sharing(FREE, clock)
    times, passport = retry_times(config), config.passport.options()
    carrier = Carrier(store, workers, clock, times, jitter, breakers, passport, quotas, sharing)
    runs = Runs(carrier, partial(Chronicle, meter=meter, clock=clock), sharing)
    workers.listen(runs)
    notifier = _notifier(config, ports, workers, runs)
    windows = Windows(_policy(config), clock, [sharing])
    scheduler = Scheduler(store, runs, _slots(config), windows, clock, stagger)
    windows.report_to(scheduler.wake, scheduler.opened)
    locks = JobLocks()
    closing = Closing(store, runs, workers, locks, clock)
    outcomes = Outcomes(notifier, scheduler, stagger, closing, runs, meter)
    for teller in (runs, scheduler, closing):
        teller.report_to(outcomes)
    organs = Organs(
        store=store,
        runs=runs,
        scheduler=scheduler,
        workers=workers,
        closing=closing,
        outcomes=outcomes,
        locks=locks,
        quotas=quotas,
        windows=windows,
        stagger=stagger,
        clock=clock,
    )
    return Parts(
        organs=organs,
        jobs=Jobs(organs, limits, ports.owner_of),
        notifier=notifier,
        carrier=carrier,
        breakers=breakers,
        housekeeper=Housekeeper(store, ports.notices, closing, _ages(config), clock),
        network=_network(organs, breakers),
        metering=Metering(windows.costs, clock, ports.bus),
    )


def _notifier(config: Config, ports: Ports, workers: Workers, runs: Runs) -> Notifier:
    async def view(job_id: JobId) -> Job:
        return runs.view(await ports.jobs.job(job_id))

    return Notifier(
        ports.notices,
        workers,
        ports.clock,
        _delivery(config),
        partial(announce, ports.answers),
        view,
        ports.meter,
        ports.owner_of,
    )


def _network(organs: Organs, breakers: Breakers) -> NetworkWatch:
    async def back() -> None:
        breakers.network_back()
        await organs.scheduler.retry_all()

    return NetworkWatch(back, organs.windows.leads_over, organs.clock)


def _membership(config: Config) -> Callable[[int], bool]:
    """Return who tells whether a uid is an admin's."""
    return partial(is_member, group=config.api.admin_group)


def retry_times(config: Config) -> RetryTimes:
    """Return how patient the daemon is."""
    queue = config.queue
    return RetryTimes(
        cap=queue.max_retry_delay_seconds,
        soon=queue.soon_seconds,
        space=queue.space_seconds,
        spread=config.fleet.retry_spread,
    )


def breaker_policy(config: Config) -> BreakerPolicy | None:
    """Return when servers are left alone; None: never."""
    fleet = config.fleet
    if not fleet.rest_failures:
        return None
    return BreakerPolicy(
        failures=fleet.rest_failures,
        window=fleet.rest_window_seconds,
        first=fleet.rest_seconds,
        cap=fleet.max_rest_seconds,
        spread=fleet.retry_spread,
    )


def _delivery(config: Config) -> Delivery:
    return Delivery(
        redeliver=config.notices.redeliver_seconds,
        before_command=config.notices.deliveries_before_command,
        modification=config.notices.modification_seconds,
    )


def _slots(config: Config) -> Slots:
    return Slots(
        foreground=config.queue.foreground_slots,
        background=config.queue.background_slots,
        slice=config.queue.time_slice_seconds,
    )


def _policy(config: Config) -> Policy:
    name = config.schedule.time_zone
    return Policy(
        caps=config.bandwidth.rates(),
        schedule=config.schedule.schedule(),
        zone=partial(ZoneInfo, name) if name else local_zone,
        rules=config.network.rules(),
    )


def _ages(config: Config) -> Ages:
    return Ages(
        notices=timedelta(days=config.notices.retention_days),
        inactivity=timedelta(days=config.queue.inactivity_days),
    )


def worker_settings(config: Config) -> link.WorkerSettings:
    """Return what a worker has to know of the configuration."""
    network, pacing = config.network, config.pacing
    return link.WorkerSettings(
        user_agent=f"transferd/{__version__}",
        connect_timeout=network.connect_timeout_seconds,
        kerberos_timeout=network.kerberos_timeout_seconds,
        stall_window=network.stall_window_seconds,
        stall_bytes=network.stall_bytes,
        max_redirects=network.max_redirects,
        header_bytes=network.header_bytes,
        durable_seconds=config.durability.seconds,
        durable_bytes=config.durability.bytes,
        command_timeout=config.notices.command_timeout_seconds,
        high_delay=pacing.high_delay_seconds,
        normal_delay=pacing.normal_delay_seconds,
        low_delay=pacing.low_delay_seconds,
        lower_effort=pacing.lower_effort,
    )


def default_timers(config: Config) -> Timers:
    """Return the timers of a job that names none."""
    return Timers(
        min_retry_delay=config.queue.min_retry_delay_seconds,
        no_progress_timeout=config.queue.no_progress_timeout_seconds,
        max_download_time=config.queue.max_download_time_seconds,
    )
