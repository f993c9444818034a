"""What workers are told of their shares, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest

from transferd.model.job import JobId, Priority
from transferd.model.queue import Runnable
from transferd.model.rates import FREE, Rates
from transferd.service.chronicle import Chronicle
from transferd.service.run import Run
from transferd.service.sharing import Sharing
from transferd.service.worker import Worker
from transferd.wire import link

FRONT, NORMAL, LOW = Priority.FOREGROUND, Priority.NORMAL, Priority.LOW


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> datetime:
        """Any time."""
        return datetime.fromtimestamp(self.time, UTC)

    def steady(self) -> float:
        """The time."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Not waited for."""
        raise AssertionError("nothing is to wait")


@dataclass(eq=False)
class Desk:
    """A worker, as far as it is told something."""

    terms: link.Terms = field(default_factory=link.Terms)
    heard: list[link.Terms] = field(default_factory=list)

    @property
    def channel(self) -> Desk:
        """The way to it."""
        return self

    def post(self, terms: link.Terms) -> None:
        """Hear."""
        self.heard.append(terms)

    @property
    def total(self) -> int | None:
        """What all of its jobs may take, as it was told last."""
        return self.heard[-1].rates.total if self.heard else None


class Office:
    """A Sharing with runs on workers of its own."""

    def __init__(self, rates: Rates = FREE) -> None:
        self.clock = Clock()
        self.sharing = Sharing(rates, self.clock)
        self._runs = 0

    def begin(self, desk: Desk, priority: Priority = FRONT, flows: int = 1) -> Run:
        """Have a worker begin with a run."""
        self._runs += 1
        claim = Runnable(job_id=JobId(str(self._runs)), owner=id(desk), priority=priority)
        run = Run(self._runs, claim, cast(Chronicle, None))
        run.worker, run.flows = cast(Worker, desk), flows
        self.sharing.begin(run)
        return run

    def pass_time(self, seconds: int, rates: dict[Run, float]) -> None:
        """Let runs report twice a second."""
        for _ in range(2 * seconds):
            self.clock.time += 0.5
            for run, rate in rates.items():
                self.sharing.moved(run, int(rate / 2))


@pytest.fixture
def desks() -> tuple[Desk, Desk, Desk]:
    """Three workers."""
    return Desk(), Desk(), Desk()


def test_nobody_is_told_what_was_never_otherwise(desks: tuple[Desk, ...]) -> None:
    """Without limits and background flows there is nothing to say."""
    office = Office()
    runs = [office.begin(desk) for desk in desks]
    office.pass_time(5, dict.fromkeys(runs, 1e6))
    for run in runs:
        office.sharing.end(run)
    assert [desk.heard for desk in desks] == [[], [], []]


def test_one_worker_has_the_whole_limit(desks: tuple[Desk, ...]) -> None:
    """And hears of it once, however much it moves."""
    office = Office(Rates(total=1000, by_priority={LOW: 10, NORMAL: 20}))
    run = office.begin(desks[0], LOW)
    office.pass_time(5, {run: 900.0})
    assert [terms.rates for terms in desks[0].heard] == [Rates(total=1000, by_priority={LOW: 10})]


def test_hungry_workers_share_alike(desks: tuple[Desk, ...]) -> None:
    """However many runs each has; and whoever ends leaves his share."""
    office = Office(Rates(total=1200))
    office.begin(desks[0])
    office.begin(desks[0])
    second, third = office.begin(desks[1]), office.begin(desks[2])
    assert [desk.total for desk in desks] == [400, 400, 400]
    office.sharing.end(third)
    assert [desk.total for desk in desks[:2]] == [600, 600]
    office.sharing.end(second)
    assert desks[0].total == 1200


def test_what_a_worker_does_not_use_others_get(desks: tuple[Desk, ...]) -> None:
    """Within about a second; and it gets it back as soon as it wants it."""
    office = Office(Rates(total=1000))
    slow, quick = office.begin(desks[0]), office.begin(desks[1])
    office.pass_time(2, {slow: 100.0, quick: 500.0})
    assert desks[1].total is not None
    assert desks[1].total >= 800
    assert desks[0].total is not None
    assert 100 < desks[0].total <= 200
    for _ in range(3):
        office.pass_time(1, {slow: float(desks[0].total or 0), quick: float(desks[1].total or 0)})
    assert [desk.total for desk in desks[:2]] == [500, 500]


def test_of_a_worker_that_is_silent_nothing_is_kept_back_for_long(desks: tuple[Desk, ...]) -> None:
    """It reports nothing, so that the reports of others have to do."""
    office = Office(Rates(total=1600))
    office.begin(desks[0])
    quick = office.begin(desks[1])
    office.pass_time(3, {quick: 1600.0})
    assert desks[1].total is not None
    assert desks[1].total >= 1500


@pytest.mark.parametrize("used", [(0, 0), (10, 400), (500, 500), (200, 900)])
def test_shares_are_never_more_than_the_limit(
    desks: tuple[Desk, ...], used: tuple[float, float]
) -> None:
    """Whatever is reported."""
    office = Office(Rates(total=1000, by_priority={LOW: 300}))
    one, two = office.begin(desks[0], LOW), office.begin(desks[1], LOW)
    office.pass_time(6, {one: used[0], two: used[1]})
    told = [desk.heard[-1].rates for desk in desks[:2]]
    assert 998 <= sum(rates.total or 0 for rates in told) <= 1000
    assert 298 <= sum(rates.by_priority[LOW] or 0 for rates in told) <= 300


def test_another_limit_counts_at_once(desks: tuple[Desk, ...]) -> None:
    """Higher, lower, or none; the same again is nothing new."""
    office = Office(Rates(total=1000))
    office.begin(desks[0])
    office.sharing.limit(Rates(total=1000))
    office.sharing.limit(Rates(total=500))
    office.sharing.limit(FREE)
    assert [terms.rates for terms in desks[0].heard] == [Rates(total=1000), Rates(total=500), FREE]


def test_when_a_window_closes_what_runs_stands_still(desks: tuple[Desk, ...]) -> None:
    """Jobs are ended one by one; meanwhile none goes on as if there were no limit."""
    office = Office(Rates(total=1000, by_priority={LOW: 500}))
    front, low = office.begin(desks[0]), office.begin(desks[1], LOW)
    office.sharing.limit(Rates(total=1000, by_priority={LOW: 0}))
    assert desks[0].heard[-1].rates == Rates(total=500)
    assert desks[1].heard[-1].rates == Rates(total=500, by_priority={LOW: 1})
    office.sharing.limit(Rates(total=0))
    assert [desk.total for desk in desks[:2]] == [1, 1]
    office.pass_time(2, {front: 1.0, low: 0.0})
    assert [desk.total for desk in desks[:2]] == [1, 1]


def test_another_priority_is_another_limit(desks: tuple[Desk, ...]) -> None:
    """A job that changes sides takes from the other's bucket."""
    office = Office(Rates(by_priority={LOW: 100}))
    office.begin(desks[0], LOW)
    run = office.begin(desks[1])
    assert desks[0].heard[-1].rates.by_priority == {LOW: 100}
    run.claim = Runnable(job_id=run.claim.job_id, owner=run.claim.owner, priority=LOW)
    office.sharing.changed(run)
    assert [desk.heard[-1].rates.by_priority for desk in desks[:2]] == [{LOW: 50}, {LOW: 50}]


def test_each_knows_the_background_flows_of_the_others(desks: tuple[Desk, ...]) -> None:
    """They give way together, so that each must know how many they are."""
    office = Office()
    low = office.begin(desks[0], LOW, flows=3)
    office.begin(desks[1], NORMAL)
    office.begin(desks[2], FRONT, flows=4)
    assert [desk.heard[-1].others for desk in desks] == [1, 3, 4]
    office.sharing.end(low)
    assert [desk.heard[-1].others for desk in desks[1:]] == [0, 1]


def test_what_is_over_counts_no_more(desks: tuple[Desk, ...]) -> None:
    """Its worker may still say something of it."""
    office = Office(Rates(total=1000))
    run = office.begin(desks[0])
    office.sharing.end(run)
    office.sharing.end(run)
    office.sharing.moved(run, 500)
    office.sharing.changed(run)
    assert len(desks[0].heard) == 1
