"""What a flow learns of its path from looks at its connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from transferd.transfer.delay import Look
from transferd.transfer.estimate import Estimate, Stance

BASE, QUEUE = 0.02, 0.005
RATE = 12_500_000
WINDOW = int(RATE * (BASE + QUEUE))
STANCE = Stance(
    advertised=WINDOW,
    window=WINDOW,
    flows=1,
    smallest=False,
    small=False,
    slowed=False,
    surging=False,
    steady=True,
    explicable=True,
)


def estimate(*, proxied: bool = False) -> Estimate:
    """Return what is known of a path at its beginning."""
    return Estimate(
        target=0.01,
        now=0.0,
        handshake=BASE,
        received=0,
        advertised=WINDOW,
        segment=1448,
        proxied=proxied,
    )


def at_the_queue(path: Estimate, begin: float, end: float) -> None:
    """Let a flow stand at its queue."""
    for step in range(round(begin / 0.05) + 1, round(end / 0.05) + 1):
        now = step * 0.05
        path.measure(now, Look(received=int(RATE * now), rtt=BASE + QUEUE), 0, STANCE)


def test_at_a_queue_that_stands_the_rate_is_that_of_the_line() -> None:
    """DESIGN 8: a flow alone has the whole of it, whatever its window."""
    path = estimate()
    at_the_queue(path, 0.0, 1.0)
    assert path.line.peak == pytest.approx(RATE, rel=0.01)
    assert path.queue == pytest.approx(QUEUE)
    assert not path.line.rivals


def test_what_waited_for_a_lost_segment_is_not_taken_for_a_rate() -> None:
    """It counts all at once, as if the line were many times as fast."""
    path = estimate()
    at_the_queue(path, 0.0, 1.0)
    stalled = int(RATE * 1.0)
    path.measure(1.05, Look(received=stalled, rtt=BASE + QUEUE, disordered=100), 0, STANCE)
    path.measure(1.1, Look(received=stalled, rtt=BASE + QUEUE, disordered=300), 0, STANCE)
    for now in (1.15, 1.2, 1.25, 1.3):
        look = Look(received=int(RATE * now), rtt=BASE + QUEUE, disordered=300)
        path.measure(now, look, 0, STANCE)
    assert path.line.peak <= 1.01 * RATE
    assert not path.line.rivals


def test_a_loss_at_a_surge_is_remembered_for_a_minute() -> None:
    """It tells of a buffer that is shorter than a round, and that does not change soon."""
    path = estimate()
    seen = []
    for now in (0.05, 0.1, 0.15, 30.0, 61.0):
        look = Look(received=int(RATE * now), rtt=BASE, disordered=3 if now > 0.06 else 0)
        path.measure(now, look, 0, replace(STANCE, surging=True))
        seen.append(path.lossy)
    assert seen == [False, True, True, True, False]


def test_any_other_loss_is_somebody_elses() -> None:
    """Whoever fills the buffer loses some of all that comes; that it is short is not said."""
    path = estimate()
    for now in (0.05, 0.1, 0.15):
        path.measure(now, Look(received=2896, rtt=BASE, disordered=int(now > 0.06)), 0, STANCE)
    assert not path.lossy


def test_where_nothing_has_ever_come_nothing_is_compared() -> None:
    """A best rate of nothing is no measure."""
    path = estimate()
    path.line.compare(0.05, 0, QUEUE, BASE)
    path.line.compare(0.2, 0, QUEUE, BASE)
    assert path.line.part == 1.0


def test_a_delay_that_the_own_window_does_not_make_is_made_by_others() -> None:
    """However small that window is by then."""
    path = estimate()
    at_the_queue(path, 0.0, 1.0)
    path.measure(1.05, Look(received=int(RATE * 1.05), rtt=0.045), 0, STANCE)
    assert path.unexplained(WINDOW) == pytest.approx(0.02, abs=0.001)
    assert path.unexplained(1000) == pytest.approx(0.025, abs=0.001)
    assert path.line.rivals


def test_what_a_window_has_to_spare_is_known_but_not_behind_a_proxy() -> None:
    """There the window is larger than what comes because somebody else keeps it back."""
    plain, proxied = estimate(), estimate(proxied=True)
    for path in (plain, proxied):
        for step in range(1, 30):
            look = Look(received=int(RATE * step * 0.05) // 4, rtt=BASE)
            path.measure(step * 0.05, look, 0, STANCE)
    assert plain.unused == pytest.approx(5.0, rel=0.1)
    assert proxied.unused == 0.0


def test_a_flow_that_has_made_room_takes_no_jitter_for_a_queue() -> None:
    """What a radio link does to single packets would keep it at its smallest window for ever."""
    path = estimate()
    small = replace(STANCE, small=True, smallest=True, window=2896.0, advertised=2944)
    for step in range(1, 40):
        jitter = 0.0 if step % 3 == 0 else 0.006
        path.measure(step * 0.05, Look(received=1448 * step, rtt=BASE + jitter), 0, small)
    assert path.queue == pytest.approx(0.0, abs=0.0005)
    queues = []
    for step in range(40, 70):
        jitter = 0.0 if step % 3 == 0 else 0.006
        look = Look(received=int(RATE * step * 0.05), rtt=BASE + jitter)
        path.measure(step * 0.05, look, 0, STANCE)
        queues.append(path.queue)
    assert max(queues) <= 0.0005


def test_a_queue_that_lasts_is_seen_all_the_same() -> None:
    """Others' queues do not vanish within a fifth of a second."""
    path = estimate()
    small = replace(STANCE, small=True, smallest=True, window=2896.0, advertised=2944)
    for step in range(1, 20):
        path.measure(step * 0.05, Look(received=1448 * step, rtt=BASE + 0.03), 0, small)
    assert path.queue == pytest.approx(0.03, abs=0.001)
