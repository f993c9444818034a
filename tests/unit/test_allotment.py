"""Who gets how much."""

from __future__ import annotations

import math

import pytest

from transferd.transfer.allotment import Throughput, allot, demand


def test_the_hungry_share_alike() -> None:
    """Nobody is first."""
    assert allot(90.0, dict.fromkeys("abc", math.inf)) == {"a": 30, "b": 30, "c": 30}


def test_what_one_does_not_want_is_for_the_others() -> None:
    """Max-min fair: the modest are served in full, the rest is shared alike."""
    shares = allot(100.0, {"a": 10.0, "b": math.inf, "c": math.inf, "d": 20.0})
    assert shares == pytest.approx({"a": 10, "b": 35, "c": 35, "d": 20})


def test_what_nobody_wants_is_shared_all_the_same() -> None:
    """Whoever begins to want more has it before anybody is asked."""
    assert allot(100.0, {"a": 10.0, "b": 30.0}) == pytest.approx({"a": 40, "b": 60})


@pytest.mark.parametrize("demands", [(1, 2, 3), (50, 60, 70), (math.inf, 5, 5), (0, 0, 0)])
def test_shares_are_the_whole(demands: tuple[float, ...]) -> None:
    """No more, or the limit would not hold; no less, or the line would be idle."""
    assert sum(allot(100.0, dict(enumerate(demands))).values()) == pytest.approx(100)


def test_whoever_uses_his_share_wants_more() -> None:
    """How much more, nobody can know; and of whom nothing is known that is to be believed."""
    assert demand(90.0, 100.0, 100.0) == math.inf
    assert demand(90.0, None, 100.0) == math.inf
    assert demand(None, 100.0, 100.0) == math.inf


def test_whoever_uses_less_keeps_room_to_grow() -> None:
    """Enough to show by it that he wants more, also after a silence."""
    assert 40.0 < demand(40.0, 100.0, 100.0) < 100.0
    assert 0.0 < demand(0.0, 100.0, 100.0) < 10.0
    used = 40.0
    assert demand(used, demand(used, 100.0, 100.0), 100.0) < math.inf


def test_a_throughput_is_known_after_a_second() -> None:
    """Reports come when they come; what counts is the time between them."""
    throughput = Throughput(0.0)
    assert not throughput.count(500, 0.5)
    assert throughput.rate(0.6) is None
    assert throughput.count(500, 1.0)
    assert throughput.rate(1.0) == 1000


def test_a_throughput_falls_when_nothing_is_heard() -> None:
    """Silence is no rate."""
    throughput = Throughput(0.0)
    throughput.count(1000, 1.0)
    assert throughput.rate(1.5) == 1000
    assert throughput.rate(3.0) == 0
    assert Throughput(0.0).rate(5.0) == 0
