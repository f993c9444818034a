"""Who hears that jobs may run, and how often anybody looks at the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from tests.support.clocks import WallClock
from transferd.model.admission import Rules
from transferd.model.costs import LinkCost
from transferd.model.job import Cost, Priority
from transferd.model.rates import FREE, Rates
from transferd.model.schedule import Kind, Period, Schedule
from transferd.service.windows import Policy, Windows

MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
WORK = Rates(by_priority={Priority.NORMAL: 0})
SCHEDULE = Schedule(
    periods=(Period(kind=Kind.WORK, days=frozenset(range(7)), start=time(8), end=time(18)),),
    limits={Kind.WORK: WORK},
)
UTC_ZONE = partial(ZoneInfo, "UTC")


class Heard:
    """A limiter, and somebody who is woken."""

    def __init__(self) -> None:
        self.rates: list[Rates] = []
        self.woken = 0
        self.opened: list[Priority] = []

    def limit(self, rates: Rates) -> None:
        """Hear of other rates."""
        self.rates.append(rates)

    def wake(self) -> None:
        """Be woken."""
        self.woken += 1

    def open(self, priorities: Collection[Priority]) -> None:
        """Hear for whom the clock has opened a window."""
        self.opened += priorities


def windows(clock: WallClock, heard: Heard, schedule: Schedule = SCHEDULE) -> Windows:
    """Windows by a schedule in UTC."""
    made = Windows(Policy(schedule=schedule, zone=UTC_ZONE), clock, [heard])
    made.report_to(heard.wake, heard.open)
    return made


@asynccontextmanager
async def running(organ: Windows) -> AsyncIterator[None]:
    """Follow the schedule meanwhile."""
    task = asyncio.create_task(organ.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_window_opens_and_closes_by_the_clock() -> None:
    """Whoever limits hears the rates; whoever schedules is woken; each once."""
    clock, heard = WallClock(MONDAY + timedelta(hours=7, minutes=59, seconds=30)), Heard()
    organ = windows(clock, heard)
    async with running(organ):
        assert await clock.nap(1) == 30
        assert organ.admitted[Priority.NORMAL] == frozenset(Cost)
        clock.moment += timedelta(seconds=30)
        clock.wake()
        await clock.nap(2)
        assert organ.admitted[Priority.NORMAL] == frozenset()
        blocker = organ.admission.may_run(Priority.NORMAL, Cost.DEFAULT)
        assert blocker is not None
        assert blocker.until == MONDAY + timedelta(hours=18)
        clock.moment += timedelta(hours=10)
        clock.wake()
        await clock.nap(3)
    assert (heard.rates, heard.woken) == ([WORK, FREE], 2)


def test_it_is_known_how_long_a_window_lasts() -> None:
    """Whoever starts a little later starts within it; one without an end has room for all."""
    clock, heard = WallClock(MONDAY + timedelta(hours=7, minutes=30)), Heard()
    organ = windows(clock, heard)
    assert organ.remaining(Priority.NORMAL) == 1800
    assert organ.remaining(Priority.LOW) is None


async def test_only_the_clock_opens_a_window_on_many_machines_at_one_moment() -> None:
    """A reload, another link and another interface are of one machine alone: nobody waits."""
    clock, heard = WallClock(MONDAY + timedelta(hours=17, minutes=59, seconds=55)), Heard()
    organ = windows(clock, heard)
    async with running(organ):
        await clock.nap(1)
        organ.configure(Policy(schedule=Schedule(), zone=UTC_ZONE))
        organ.configure(Policy(schedule=SCHEDULE, zone=UTC_ZONE))
        organ.costs(LinkCost.USAGE_BASED)
        organ.costs(LinkCost.UNRESTRICTED)
        assert heard.opened == []
        await clock.nap(2)
        clock.moment += timedelta(seconds=5)
        clock.wake()
        await clock.nap(3)
        assert heard.opened == [Priority.NORMAL]


async def test_a_clock_that_is_set_is_looked_at_again_within_a_minute() -> None:
    """BITS Y6: no change is waited for longer than that, however far away it seemed."""
    clock, heard = WallClock(MONDAY + timedelta(hours=9)), Heard()
    organ = windows(clock, heard)
    async with running(organ):
        assert await clock.nap(1) == 60
        clock.moment -= timedelta(hours=2)
        clock.wake()
        await clock.nap(2)
        assert organ.admission.rates == FREE


async def test_without_periods_no_timer_runs() -> None:
    """An idle machine is left in peace; limits that always hold are told once."""
    always = Schedule(limits={Kind.OTHER: WORK})
    for schedule, told in ((Schedule(), []), (always, [WORK])):
        clock, heard = WallClock(MONDAY), Heard()
        organ = windows(clock, heard, schedule)
        async with running(organ):
            for _ in range(10):
                await asyncio.sleep(0)
        assert (clock.naps, heard.rates) == ([], told)


async def test_another_policy_counts_at_once_and_has_its_own_timer() -> None:
    """A reload: what was closed is open, and the next change is waited for."""
    clock, heard = WallClock(MONDAY + timedelta(hours=17, minutes=59, seconds=55)), Heard()
    organ = windows(clock, heard, Schedule())
    async with running(organ):
        organ.configure(Policy(schedule=SCHEDULE, zone=UTC_ZONE))
        assert organ.admission.rates == WORK
        assert await clock.nap(1) == 5
        organ.configure(Policy(schedule=Schedule(), zone=UTC_ZONE))
        assert organ.admission.rates == FREE
    assert heard.rates == [WORK, FREE]


async def test_a_limit_of_the_schedule_is_known_for_one_and_until_when() -> None:
    """Where [bandwidth] has the same or a lower one, that one holds, and does not end."""
    clock, heard = WallClock(MONDAY + timedelta(hours=9)), Heard()
    own = {Priority.NORMAL: 50_000, Priority.LOW: 30_000, Priority.HIGH: 10_000}
    limits = {Kind.WORK: Rates(total=80_000, by_priority=own)}
    schedule = Schedule(periods=SCHEDULE.periods, limits=limits)
    organ = windows(clock, heard, schedule)
    caps = Rates(total=80_000, by_priority={Priority.NORMAL: 90_000, Priority.LOW: 20_000})
    organ.configure(Policy(schedule=schedule, zone=UTC_ZONE, caps=caps))
    end = MONDAY + timedelta(hours=18)
    assert organ.admission.timed == {Priority.NORMAL: end, Priority.HIGH: end}
    assert organ.admission.rates.at(None) == 80_000


async def test_links_and_rules_wake_only_where_they_change() -> None:
    """A chatty kernel makes nobody look into the queue."""
    clock, heard = WallClock(MONDAY), Heard()
    organ = windows(clock, heard, Schedule())
    for _ in range(2):
        organ.leads_over(frozenset({"wg0"}))
        organ.costs(LinkCost.USAGE_BASED)
    assert heard.woken == 2
    rules = Rules(costs=dict.fromkeys(Priority, Cost.ALWAYS), blocked=("wg*",))
    organ.configure(Policy(schedule=Schedule(), zone=UTC_ZONE, rules=rules))
    assert heard.woken == 3
    assert organ.admitted[Priority.HIGH] == frozenset()
    organ.leads_over(frozenset({"eth0"}))
    assert Cost.DEFAULT in organ.admitted[Priority.HIGH]
