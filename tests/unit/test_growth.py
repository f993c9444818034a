"""How a flow takes more: each step by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from transferd.transfer.growth import INTERVAL, Course, crept, period, risen, sought, started

BASE = 0.1
KNOWN = 1_000_000.0
COURSE = Course(
    window=100_000.0,
    past=INTERVAL,
    base=BASE,
    queue=0.0,
    target=0.002,
    flows=1,
    known=KNOWN,
    rivals=False,
    calm=True,
    unused=1.0,
    lossy=False,
)


def test_a_change_of_the_window_is_waited_for_but_not_for_ever() -> None:
    """A base that was measured over a long queue would make everything slow."""
    assert [period(base) for base in (0.001, 0.1, 2.0)] == [INTERVAL, 0.2, 1.6]


@pytest.mark.parametrize("step", [started, crept])
def test_a_window_that_nobody_fills_does_not_grow(step: object) -> None:
    """RFC 7661: what was never used says nothing of the line."""
    idle = replace(COURSE, unused=5.0)
    grown = started(idle, warned=False) if step is started else crept(idle)
    assert grown == idle.window


def test_a_flow_that_was_warned_starts_again_with_care() -> None:
    """What seemed to be the end of the line may be near."""
    full = replace(COURSE, past=1.0)
    assert started(full, warned=False) == pytest.approx(2 * full.window)
    assert started(full, warned=True) == pytest.approx(1.5 * full.window)


def test_the_way_back_is_fast_as_long_as_little_is_allowed_at_once() -> None:
    """A long round is no reason to be slow with a window that is a small part of the line."""
    low = replace(COURSE, past=2 * INTERVAL)
    assert risen(low, KNOWN) == pytest.approx(4 * low.window)
    high = replace(low, window=KNOWN / 4)
    assert risen(high, KNOWN) == pytest.approx(2 * high.window)


def test_the_way_back_ends_at_its_goal() -> None:
    """What goes beyond it stands in the queue of others."""
    near = replace(COURSE, window=0.9 * KNOWN, past=1.0)
    assert risen(near, KNOWN) == KNOWN


@pytest.mark.parametrize("rivals", [False, True])
@pytest.mark.parametrize("calm", [False, True])
def test_no_single_step_passes_the_window_that_filled_the_line(rivals: bool, calm: bool) -> None:
    """There it goes on in steps as small as its target."""
    course = replace(COURSE, window=0.95 * KNOWN, past=1.0, rivals=rivals, calm=calm)
    assert crept(course) <= 0.97 * KNOWN
    fine = replace(course, window=0.98 * KNOWN)
    assert crept(fine) <= fine.window * (1 + fine.target / BASE)


def test_among_rivals_it_grows_slowly_until_they_have_gone() -> None:
    """They may only have paused."""
    steps = {
        (rivals, calm): crept(replace(COURSE, rivals=rivals, calm=calm))
        for rivals in (False, True)
        for calm in (False, True)
    }
    assert steps[True, False] < steps[False, False] < steps[True, True]


def test_at_the_target_it_stays() -> None:
    """The nearer the target, the less it grows."""
    steps = [crept(replace(COURSE, queue=queue)) for queue in (0.0, 0.001, 0.002, 0.004)]
    assert steps == sorted(steps, reverse=True)
    assert steps[2] == steps[3] == COURSE.window


def test_a_fast_flow_stands_at_a_shorter_queue() -> None:
    """Whoever asks for something short waits for it with each round."""
    queues = [sought(0.01, rate, 1) for rate in (10_000, 125_000, 12_500_000, 125_000_000)]
    assert queues == sorted(queues, reverse=True)
    assert queues[0] == 0.01
    assert 0.001 < queues[-1] < queues[2] < 0.003


def test_several_flows_stand_at_a_queue_in_which_their_shares_show() -> None:
    """The slower one has to see more room than the faster one."""
    slow, fast = sought(0.01, 3_000_000, 2), sought(0.01, 9_000_000, 2)
    assert slow - fast > 0.0005
    assert fast > sought(0.01, 9_000_000, 1)


def test_where_segments_were_lost_of_late_nothing_is_taken_back_at_one_go() -> None:
    """A bunch as long as half of a round does not fit into a buffer that is shorter."""
    lossy = replace(COURSE, lossy=True)
    assert COURSE.goal > KNOWN / 2
    assert lossy.goal < KNOWN / 4
    assert not replace(lossy, window=KNOWN / 4).far
    assert crept(lossy) > crept(COURSE)
