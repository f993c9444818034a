"""How often something may happen, and how long an owner waits whose workers fall."""

from __future__ import annotations

from transferd.service.allowance import Allowance
from transferd.service.restraint import Restraint

OWNER, OTHER = 1000, 1001


def test_an_allowance_is_spent_at_once_and_comes_back_slowly() -> None:
    """So many in a burst, so many a second after that, and never more than the burst."""
    allowance = Allowance(rate=10, burst=5, now=100)
    assert [allowance.afford(1, 100) for _ in range(6)] == [True] * 5 + [False]
    assert allowance.afford(1, 100.05) is False
    assert allowance.afford(1, 100.25) is True
    assert allowance.afford(6, 1000) is False
    assert allowance.afford(5, 1000) is True


def test_what_is_spent_beyond_it_has_to_be_waited_for() -> None:
    """Whoever cannot give back what was read pauses for as long as it was too much."""
    allowance = Allowance(rate=10, burst=5, now=0)
    assert allowance.spend(5, 0) == 0
    assert allowance.spend(20, 0) == 2
    assert allowance.spend(0, 1) == 1
    assert allowance.spend(0, 2) == 0


def test_a_clock_that_stands_still_gives_nothing() -> None:
    """Nor does one that goes back take anything away."""
    allowance = Allowance(rate=10, burst=5, now=10)
    allowance.spend(5, 10)
    assert allowance.afford(1, 9) is False
    assert allowance.afford(1, 10) is False
    assert allowance.spend(0, 9) == 0


def fall(restraint: Restraint, now: float, lived: float = 0.0) -> float:
    """Let a worker fall; returns how long the owner has to wait then."""
    restraint.fell(OWNER, lived, now, "it died")
    until = restraint.until(OWNER, now)
    return 0.0 if until is None else until - now


def test_one_fall_is_an_accident() -> None:
    """Another worker may start at once."""
    assert fall(Restraint(), 100) == 0


def test_waits_double_up_to_a_minute() -> None:
    """From the second fall in a row on."""
    restraint = Restraint()
    assert [fall(restraint, 100) for _ in range(10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_good_life_makes_up_for_falls() -> None:
    """A worker that ran for long did not fall because of what its owner does at each start."""
    restraint = Restraint()
    for _ in range(5):
        fall(restraint, 100)
    assert fall(restraint, 200, lived=60) == 0
    assert fall(restraint, 201) == 1


def test_owners_wait_for_their_own_falls_only() -> None:
    """And whoever waits hears why."""
    restraint = Restraint()
    for _ in range(3):
        fall(restraint, 100)
    assert restraint.until(OTHER, 100) is None
    assert restraint.until(OWNER, 101.9) == 102
    assert restraint.until(OWNER, 102) is None
    assert restraint.explain(OWNER, 100) == (
        "the workers of uid 1000 ended 3 times in a row, at last like this: it died;"
        " the next one may start in 2 s"
    )


def test_falls_of_long_ago_are_forgotten() -> None:
    """A machine may have any number of users."""
    restraint = Restraint()
    for owner in range(1000):
        restraint.fell(owner, 0.0, 100, "it died")
    restraint.fell(OWNER, 0.0, 1000, "it died")
    assert len(restraint._owners) == 1
