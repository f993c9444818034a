"""Why a queued job waits for others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.hand_clock import HandClock, queued_job
from transferd.model.admission import Admission
from transferd.model.job import Blocker, JobId, Priority
from transferd.service.blockers import blockers_of
from transferd.service.turns import Occupant, Slots

FOREGROUND, HIGH, NORMAL, LOW = Priority


def job_at(priority: Priority, name: str = "n1", owner: int = 1000) -> Occupant:
    """A job that holds a slot."""
    return Occupant(job_id=JobId(name), name=name, owner=owner, priority=priority)


def blockers(
    priority: Priority, *occupants: Occupant, slots: int = 4, barred: float | None = None
) -> tuple[Blocker, ...]:
    """Return why a job of somebody waits; there are as many slots in the foreground."""
    clock = HandClock()
    return blockers_of(
        queued_job(priority=priority),
        Admission(),
        Slots(foreground=slots, background=slots, slice=300.0),
        clock.now(),
        clock.steady(),
        None,
        occupants,
        barred=barred,
    )


@pytest.mark.parametrize(
    ("priority", "slots", "text"),
    [
        (FOREGROUND, 4, "other foreground jobs hold all 4 foreground slots"),
        (HIGH, 1, "jobs of its own priority hold the only background slot"),
        (LOW, 4, "jobs of its own priority hold all 4 background slots"),
    ],
)
def test_a_job_without_a_slot_says_how_many_there_are(
    priority: Priority, slots: int, text: str
) -> None:
    """Promise 9: whoever waits learns what is configured."""
    (blocker,) = blockers(priority, *[job_at(priority)] * slots, slots=slots)
    assert (blocker.code, blocker.text) == ("no_slot", text)


def test_a_job_that_others_go_before_names_one_of_its_owners() -> None:
    """Beside free slots, too: one job of a higher priority is enough."""
    (blocker,) = blockers(LOW, job_at(NORMAL))
    assert blocker.code == "no_slot"
    assert blocker.text == "jobs of a higher priority go first ('n1' runs)"


def test_jobs_of_others_are_not_named() -> None:
    """Others' jobs do not exist for an owner."""
    (blocker,) = blockers(LOW, job_at(HIGH, "secret", owner=1001))
    assert blocker.text == "jobs of a higher priority go first"


def test_a_job_that_is_next_to_start_is_blocked_by_nothing() -> None:
    """Neither foreground jobs nor lower ones take its slot."""
    others = [job_at(FOREGROUND)] * 3 + [job_at(NORMAL)] * 3 + [job_at(LOW)] * 4
    assert blockers(NORMAL, *others) == blockers(FOREGROUND, *others) == ()


def test_an_owner_whose_workers_fall_learns_when_there_is_another() -> None:
    """There is a slot, and nobody to use it."""
    (blocker,) = blockers(NORMAL, barred=1030.0)
    assert blocker.code == "worker_lost"
    assert blocker.until == HandClock().now() + timedelta(seconds=30)
