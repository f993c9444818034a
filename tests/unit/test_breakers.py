"""Servers that are left alone: by whom, by which jobs, and how many of them are remembered."""

from __future__ import annotations

from itertools import count

import pytest

from tests.support.hand_clock import HandClock, queued_job
from transferd.model.failures import Failure
from transferd.model.job import File, FileSpec, Job, Priority
from transferd.service.breakers import Breakers
from transferd.service.chronicle import Chronicle
from transferd.service.figures import Figures
from transferd.service.ports import Runnable
from transferd.service.run import Run
from transferd.transfer.breaker import BreakerPolicy

POLICY = BreakerPolicy(failures=2, window=600, first=60, cap=3600, spread=0.5)
BUSY = Failure(code="http_503", message="it is busy", http_status=503)
GONE = Failure(code="connection_refused", message="nobody listens")
RETRIED = queued_job("retried", retry_delay=60.0, error=BUSY)


class Fleet:
    """One machine of it: its breakers, and runs at them."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.jitter = 0.0
        self.breakers = Breakers(self.clock, lambda: self.jitter, POLICY)
        self._numbers = count(1)

    def run(self, *hosts: str, owner: int = 1000) -> Run:
        """Dispatch a job with a file of each host."""
        claim = Runnable(job_id=RETRIED.id, owner=owner, priority=Priority.NORMAL)
        run = Run(next(self._numbers), claim, Chronicle(claim, Figures(), self.clock))
        run.files = tuple(
            File(index=index, spec=FileSpec(remote=f"https://{host}/f", local=f"/{host}"))
            for index, host in enumerate(hosts or ("a.example",))
        )
        return run

    def fail(
        self,
        *hosts: str,
        owner: int = 1000,
        failure: Failure = BUSY,
        asks: float = 0,
        here: bool = False,
    ) -> float:
        """Let a run fail; returns for how long its server is left alone."""
        run = self.run(*hosts, owner=owner)
        try:
            return self.breakers.failed(run, failure, asks, here=here)
        finally:
            self.breakers.ended(run)

    def rests(self, *hosts: str, owner: int = 1000, job: Job = RETRIED) -> float:
        """Return how long a job is to wait; 0: it may try."""
        rest = self.breakers.admit(self.run(*hosts, owner=owner), job)
        return 0.0 if rest is None else rest.seconds


@pytest.fixture
def fleet() -> Fleet:
    """A machine on which nothing has failed."""
    return Fleet()


@pytest.fixture
def resting(fleet: Fleet) -> Fleet:
    """A machine whose server a.example has failed twice."""
    assert [fleet.fail(), fleet.fail()] == [0, 60]
    return fleet


def test_all_jobs_of_an_owner_leave_a_server_alone_that_failed_any_of_them(
    resting: Fleet,
) -> None:
    """Nor is any other server concerned."""
    assert resting.rests() == 60
    assert resting.rests("b.example") == 0


def test_one_owner_cannot_keep_anybody_else_from_a_server(resting: Fleet) -> None:
    """A worker may lie, and a user may fail on purpose: both hurt nobody but him."""
    assert resting.rests(owner=1001) == 0


def test_jobs_come_back_one_by_one_after_the_rest(resting: Fleet) -> None:
    """The jobs of one machine have moments of their own, none before the server's."""
    resting.jitter = 0.5
    assert resting.rests() == 60 + 60 * 0.5 * 0.5


def test_one_job_tries_then_and_bytes_open_the_way_for_all(resting: Fleet) -> None:
    """Half open: one trial; what it learns counts for everybody."""
    resting.clock.moment += 60
    trial = resting.run()
    assert resting.breakers.admit(trial, RETRIED) is None
    assert resting.rests() > 0
    resting.breakers.moved(trial, 0)
    assert resting.rests() == 0


def test_a_trial_that_is_broken_off_is_followed_by_another(resting: Fleet) -> None:
    """Its owner may suspend it."""
    resting.clock.moment += 60
    trial = resting.run()
    assert resting.breakers.admit(trial, RETRIED) is None
    resting.breakers.ended(trial)
    assert resting.rests() == 0


@pytest.mark.parametrize(
    ("job", "let_through"),
    [
        (RETRIED, False),
        (queued_job("resumed", error=BUSY), True),
        (queued_job("get", priority=Priority.FOREGROUND), True),
        (queued_job("new"), False),
    ],
)
def test_a_resume_lets_a_job_through_once(resting: Fleet, job: Job, let_through: bool) -> None:
    """Somebody waits for it, or for a new one in the foreground; the next failure ends that."""
    assert (resting.rests(job=job) == 0) is let_through


def test_an_answer_that_is_no_distress_is_a_sign_of_life(fleet: Fleet) -> None:
    """404 is somebody's answer."""
    fleet.fail()
    fleet.fail(failure=Failure(code="http_404", message="no such file", http_status=404))
    fleet.fail()
    assert fleet.rests() == 0


def test_a_failure_is_laid_to_the_server_of_the_file_that_failed(fleet: Fleet) -> None:
    """A job may have files of many servers."""
    run = fleet.run("a.example", "b.example")
    second = Failure(code="stalled", message="nothing came", file="/b.example")
    for _ in range(2):
        fleet.breakers.failed(run, second, 0.0)
    assert (fleet.rests(), fleet.rests("b.example")) == (0, 60)


def test_the_server_is_named_with_what_it_did(resting: Fleet) -> None:
    """Promise 9: a stuck job says why."""
    rest = resting.breakers.admit(resting.run(), RETRIED)
    assert rest is not None
    assert rest.failure.code == "server_resting"
    assert "https://a.example failed 2 times in a row (last: http_503)" in rest.failure.message
    assert "`resume`" in rest.failure.remedy


def test_a_server_is_said_to_have_failed_as_often_as_it_has(resting: Fleet) -> None:
    """Those that were under way when it was given up fail as well, and so do trials."""
    resting.fail()
    resting.clock.moment += 60
    trial = resting.run()
    assert resting.breakers.admit(trial, RETRIED) is None
    resting.breakers.failed(trial, GONE, 0.0)
    resting.breakers.ended(trial)
    rest = resting.breakers.admit(resting.run(), RETRIED)
    assert rest is not None
    assert "failed 4 times in a row (last: connection_refused)" in rest.failure.message


def test_without_a_policy_no_server_rests(resting: Fleet) -> None:
    """Switched off, also for those that rest already; and on again, it begins anew."""
    resting.breakers.configure(None)
    assert [resting.fail(), resting.fail(), resting.rests()] == [0, 0, 0]
    resting.breakers.configure(POLICY)
    assert [resting.fail(), resting.fail()] == [0, 60]


def test_when_the_network_is_back_those_are_asked_that_did_not_answer(fleet: Fleet) -> None:
    """It may have been the network; an answer came from the server."""
    for _ in range(2):
        fleet.fail("silent.example", failure=GONE)
        fleet.fail("busy.example")
    fleet.breakers.network_back()
    assert fleet.rests("silent.example") == 0
    assert fleet.rests("busy.example") == 60


def test_a_day_that_a_login_page_asked_for_is_over_on_another_network(fleet: Fleet) -> None:
    """It spoke in the server's name, and those that failed after it did not end that."""
    for asks in (0.0, 86_400.0, 0.0):
        fleet.fail(asks=asks, here=asks > 0)
    assert fleet.rests() >= 86_400
    fleet.breakers.network_back()
    assert fleet.rests() == 0


def test_nobody_fills_the_memory_with_servers(fleet: Fleet) -> None:
    """Those that failed longest ago are forgotten, of the same owner alone."""
    for _ in range(2):
        fleet.fail("kept.example", owner=1001)
        fleet.fail("first.example")
    for number in range(1000):
        fleet.fail(f"{number}.example")
    assert fleet.rests("first.example") == 0
    assert fleet.rests("kept.example", owner=1001) == 60
