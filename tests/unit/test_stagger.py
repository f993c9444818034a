"""Background jobs of many machines do not start at one moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.hand_clock import HandClock, queued_job
from transferd.model.admission import Admission, Link
from transferd.model.costs import LinkCost
from transferd.model.job import Job, Priority
from transferd.model.states import JobState
from transferd.service.blockers import blockers_of
from transferd.service.stagger import Stagger
from transferd.service.turns import Slots

OPEN = Admission()
SLOTS = Slots(foreground=64, background=4, slice=300.0)


def holding(clock: HandClock, jitter: float = 0.5, spread: float = 100.0) -> Stagger:
    """A daemon has just started."""
    stagger = Stagger(clock, lambda: jitter, spread)
    stagger.hold()
    return stagger


def called(stagger: Stagger) -> list[str]:
    """Who starts all the same, in turn."""
    return [claim.job_id for claims in stagger.called.values() for claim in claims]


@given(jitter=st.floats(0, 1, exclude_max=True), spread=st.floats(0, 1e6))
def test_the_moment_lies_within_the_spread(jitter: float, spread: float) -> None:
    """Nobody waits longer than the configuration says."""
    until = holding(HandClock(1000.0), jitter, spread).until(Priority.NORMAL)
    assert until is None or 1000 < until <= 1000 + spread


def test_a_hold_ends_and_is_not_made_longer() -> None:
    """Whoever asks again and again keeps no job from its start."""
    clock = HandClock(1000.0)
    stagger = holding(clock)
    clock.moment = 1049.0
    stagger.hold()
    assert stagger.until(Priority.NORMAL) == 1050
    clock.moment = 1050.0
    assert stagger.until(Priority.NORMAL) is None


def test_a_window_is_not_over_before_its_jobs_may_start() -> None:
    """However short it is: they start in its first quarter, and whoever was held back longer."""
    clock = HandClock(1000.0)
    stagger = holding(clock)
    stagger.hold({Priority.NORMAL: 40.0, Priority.LOW: 4000.0})
    assert stagger.until(Priority.NORMAL) == 1000 + 40 / 4 * 0.5
    assert stagger.until(Priority.LOW) == stagger.until(Priority.HIGH) == 1050
    stagger.configure(1000.0)
    assert stagger.until(Priority.NORMAL) == 1005
    clock.moment = 1005.0
    stagger.hold({Priority.NORMAL: 8000.0})
    assert stagger.until(Priority.NORMAL) == 1005 + 1000 * 0.5


def test_one_owner_cannot_have_others_new_jobs_wait() -> None:
    """Only so many of his start at once; when some have started, others may again."""
    stagger = holding(HandClock())
    for number in range(20_000):
        stagger.call(queued_job(f"many-{number}", owner=1000))
    assert len(called(stagger)) == 1000
    stagger.call(queued_job("other", owner=1001))
    stagger.started(queued_job("many-0").id)
    for name in ("next", "one-more"):
        stagger.call(queued_job(name, owner=1000))
    assert called(stagger)[-2:] == ["other", "next"]
    for owner in range(2000, 2020):
        for number in range(1000):
            stagger.call(queued_job(f"{owner}-{number}", owner=owner))
    assert len(called(stagger)) == 10_000


def test_without_a_spread_nobody_is_held_back() -> None:
    """0 switches it off."""
    assert holding(HandClock(), spread=0.0).held == {}


def test_another_spread_counts_for_those_who_are_held_back_already() -> None:
    """A shorter one brings their moment forward by as much, and 0 lets them go."""
    clock = HandClock(1000.0)
    stagger = holding(clock)
    stagger.configure(20.0)
    assert set(stagger.held.values()) == {1010}
    stagger.configure(0.0)
    assert stagger.held == {}


def test_a_window_that_opens_for_some_holds_nobody_else_back() -> None:
    """Who could start all the time does not wait for those who could not."""
    stagger = Stagger(HandClock(), lambda: 0.5, 100.0)
    stagger.hold({Priority.LOW: None})
    assert set(stagger.held) == {Priority.LOW}
    assert stagger.holds(queued_job("high", priority=Priority.HIGH)) is None
    assert stagger.holds(queued_job("low", priority=Priority.LOW)) is not None


def test_what_was_asked_for_before_a_window_opened_waits_for_its_moment() -> None:
    """It waited for the window as all the others do, however it came to be there."""
    stagger = holding(HandClock())
    stagger.call(queued_job("early"))
    stagger.hold({Priority.NORMAL: None})
    stagger.call(queued_job("late"))
    assert called(stagger) == ["late"]


def test_a_job_that_was_let_go_is_not_held_back_by_a_change_of_it() -> None:
    """Neither its name nor its cost says anything of when it starts."""
    stagger = holding(HandClock())
    job = queued_job("retried", retry_delay=60.0)
    stagger.call(job, asked=True)
    stagger.call(job)
    assert called(stagger) == ["retried"]


def test_what_somebody_asks_for_starts_at_once() -> None:
    """Jobs that were there wait, and what is retried; a new one and a resumed one do not."""
    stagger = holding(HandClock())
    retried = queued_job("retried", retry_delay=60.0)
    for job in (queued_job("new"), retried):
        stagger.call(job)
    assert called(stagger) == ["new"]
    stagger.call(retried, asked=True)
    assert called(stagger) == ["new", "retried"]


def test_a_job_that_has_moved_on_is_not_started_again() -> None:
    """The queue is not asked for the same job for ever."""
    stagger = holding(HandClock())
    for name in ("paused", "started"):
        stagger.call(queued_job(name))
    stagger.call(queued_job("paused", state=JobState.SUSPENDED))
    stagger.started(queued_job("started").id)
    assert called(stagger) == []


def why(job: Job, stagger: Stagger, clock: HandClock, admission: Admission = OPEN) -> list[str]:
    """Return what keeps a job from moving."""
    found = blockers_of(job, admission, SLOTS, clock.now(), clock.steady(), stagger.holds(job))
    return [blocker.code for blocker in found]


def test_a_job_that_is_held_back_says_so() -> None:
    """Promise 9; what is not held back starts."""
    clock = HandClock()
    stagger = holding(clock)
    assert why(queued_job("old"), stagger, clock) == ["start_spread"]
    assert why(queued_job("f", priority=Priority.FOREGROUND), stagger, clock) == []
    stagger.call(queued_job("new"))
    assert why(queued_job("new"), stagger, clock) == []
    metered = Admission(link=Link(cost=LinkCost.USAGE_BASED))
    assert why(queued_job("old"), stagger, clock, metered) == ["metered"]
