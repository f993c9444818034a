"""Why a queued job waits for others."""

from __future__ import annotations

import pytest

from tests.support.hand_clock import HandClock, queued_job
from transferd.model.admission import Admission
from transferd.model.job import Priority
from transferd.service.blockers import blockers_of
from transferd.service.turns import Slots


@pytest.mark.parametrize(
    ("priority", "background", "text"),
    [
        (Priority.FOREGROUND, 4, "other foreground jobs hold all 64 foreground slots"),
        (Priority.HIGH, 1, "jobs of its own priority hold the only background slot"),
        (
            Priority.LOW,
            4,
            "jobs of its own priority hold all 4 background slots, "
            "or those of a higher one go first",
        ),
    ],
)
def test_a_job_without_a_slot_says_how_many_there_are(
    priority: Priority, background: int, text: str
) -> None:
    """Promise 9: whoever waits learns what is configured, and who goes first."""
    clock = HandClock()
    slots = Slots(foreground=64, background=background, slice=300.0)
    job = queued_job(priority=priority)
    (blocker,) = blockers_of(job, Admission(), slots, clock.now(), clock.steady(), None)
    assert (blocker.code, blocker.text) == ("no_slot", text)
