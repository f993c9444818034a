"""How fast a flow reads that a proxy keeps from seeing the line."""

from __future__ import annotations

import pytest

from transferd.transfer.reads import Reads

BEST = 1_000_000.0
LEAST = 14_480.0


def held(*came: float) -> Reads:
    """After trials that brought so much, one every half minute."""
    reads = Reads(LEAST)
    for number, rate in enumerate(came):
        reads.step(30.0 * number)
        reads.tried(30.0 * number, rate)
    return reads


def test_nobody_is_held_before_it_is_found_out() -> None:
    """A window that rules needs no paced reads."""
    reads = Reads(LEAST)
    reads.step(1000.0)
    assert not reads.needed
    assert reads.rate is None


def test_half_of_the_line_is_left_to_others() -> None:
    """DESIGN 8: nothing tells when they come."""
    assert held(BEST).rate == BEST / 2


def test_from_time_to_time_it_is_tried_how_much_there_is() -> None:
    """While it is, nobody holds it; that it is needed is still to be said."""
    reads = held(BEST)
    reads.step(19.0)
    assert reads.rate is not None
    reads.step(20.0)
    assert reads.rate is None
    assert reads.needed


def test_who_gets_less_than_before_is_not_alone_and_leaves_nearly_everything() -> None:
    """DESIGN 8: background means idle bandwidth."""
    assert held(BEST, BEST / 2).rate == pytest.approx(0.9 * BEST / 16)


def test_who_gets_as_much_as_before_is_alone() -> None:
    """Rates flicker a little."""
    assert held(BEST, 0.9 * BEST).rate == pytest.approx(0.9 * BEST / 2)


def test_a_line_that_has_become_slower_is_believed_after_some_trials() -> None:
    """Nobody is to crawl for ever because the line was faster once."""
    assert held(BEST, *[BEST / 2] * 8).rate == BEST / 4


def test_it_never_reads_so_little_that_a_server_gives_up() -> None:
    """A slow line has a slow half."""
    assert held(20_000.0).rate == LEAST


def test_a_trial_that_shows_nothing_ends_it() -> None:
    """The window rules after all: the bottleneck is elsewhere now."""
    reads = held(BEST)
    reads.step(20.0)
    reads.step(25.0)
    assert not reads.needed
    assert reads.best == 0


def test_flows_of_one_machine_leave_half_of_the_line_together() -> None:
    """DESIGN 8: they count as one."""
    flows = [Reads(LEAST) for _ in range(3)]
    for number in range(30):
        reads = flows[number % 3]
        others = sum(each.rate or 0.0 for each in flows if each is not reads)
        reads.tried(7.0 * number, BEST - others, flows=3)
    assert sum(reads.rate or 0.0 for reads in flows) == pytest.approx(BEST / 2, rel=0.1)


def test_who_was_joined_by_another_flow_of_its_machine_takes_it_for_no_rival() -> None:
    """What one of them takes is not missing from the line."""
    reads = held(BEST)
    reads.tried(20.0, BEST / 2, flows=2)
    assert reads.rate == pytest.approx(BEST / 2 / 3)
