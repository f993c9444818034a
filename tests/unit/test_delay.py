"""How a receiver measures the delay of a path by the window it advertised."""

from __future__ import annotations

import pytest

from transferd.transfer.delay import BASE_HISTORY, BaseDelay, Look, Rounds

SEGMENT = 1000


def rounds(window: int = 10_000) -> Rounds:
    """Return rounds of a flow of which nothing has come."""
    return Rounds(0, window, SEGMENT)


def rtt(measured: Rounds) -> float | None:
    """Return the shortest round that ended."""
    sample = measured.take()
    return None if sample is None else sample.rtt


def test_a_round_lasts_from_the_edge_to_its_byte() -> None:
    """The last byte of a window can leave only after the window was told."""
    measured = rounds()
    measured.saw(1.0, Look(received=5000), 0.0)
    measured.saw(1.03, Look(received=14_999), 9.0)
    assert rtt(measured) is None
    measured.saw(1.05, Look(received=15_000), 9.0)
    assert rtt(measured) == pytest.approx(0.05)


def test_no_round_begins_while_a_shrunk_window_stands_still() -> None:
    """A receiver cannot take back what it advertised (RFC 9293 3.8.6)."""
    measured = rounds()
    measured.saw(1.0, Look(received=5000), 0.0)
    measured.advertise(4000)
    measured.saw(1.01, Look(received=8000), 0.0)
    measured.saw(1.02, Look(received=15_000), 0.0)
    assert rtt(measured) == pytest.approx(0.02)
    measured.saw(1.06, Look(received=19_000), 0.0)
    assert rtt(measured) == pytest.approx(0.04)


def test_the_shortest_round_counts_with_its_window() -> None:
    """The last of a bunch has waited for the first: only the minimum is the queue that stands."""
    measured = rounds(3000)
    measured.saw(1.00, Look(received=1000), 0.0)
    measured.saw(1.01, Look(received=2000), 0.0)
    measured.saw(1.04, Look(received=4000), 0.0)
    measured.saw(1.041, Look(received=5000), 0.0)
    sample = measured.take()
    assert sample is not None
    assert sample.rtt == pytest.approx(0.031)
    assert sample.window == 3000
    assert measured.take() is None


def test_an_interruption_drops_what_was_under_way() -> None:
    """After it, nobody knows when the present edge was told."""
    measured = rounds()
    measured.saw(1.0, Look(received=5000), 0.0)
    measured.interrupt()
    measured.saw(2.0, Look(received=9000), 0.0)
    measured.saw(2.01, Look(received=19_000), 0.0)
    assert rtt(measured) is None
    measured.saw(2.05, Look(received=29_000), 0.0)
    assert rtt(measured) == pytest.approx(0.04)


def test_who_waits_knows_how_long_the_round_trip_is_at_least() -> None:
    """A queue that grows shows before the round ends."""
    measured = rounds()
    assert measured.waiting(1.0) == 0.0
    measured.saw(1.0, Look(received=5000), 0.0)
    assert measured.waiting(1.5) == pytest.approx(0.5)


def test_the_base_is_forgotten_after_minutes() -> None:
    """RFC 6817 2.4.2: a history of minima, so that a longer route is believed at last."""
    base = BaseDelay(0.0, 0.02)
    for minute in range(1, BASE_HISTORY):
        base.learn(60.0 * minute, 0.05)
        base.learn(60.0 * minute + 1, 0.05)
        assert base.value == 0.02
    base.learn(60.0 * BASE_HISTORY, 0.05)
    assert base.value == 0.05


def test_one_short_sample_is_a_mistake_of_timing() -> None:
    """A base that is too small would starve the flow for minutes."""
    base = BaseDelay(0.0, 0.02)
    base.learn(1.0, 0.005)
    assert base.value == 0.02
    base.learn(2.0, 0.012)
    assert base.value == 0.012


def test_a_delay_that_never_moves_is_a_route() -> None:
    """Queues of others rise and fall."""
    base = BaseDelay(0.0, 0.02)
    for second in range(40):
        base.settle(float(second), 0.06 + 0.02 * (second % 2), 0.002)
    assert base.value == 0.02
    for second in range(40, 75):
        base.settle(float(second), 0.06, 0.002)
    assert base.value == 0.06
