"""What a token bucket lets through."""

from __future__ import annotations

import math
import random

import pytest

from transferd.transfer.bucket import Bucket

RATES = (100e3, 1e6, 10e6, 100e6)


def run(bucket: Bucket, now: float, end: float, late: float = 0.0, most: float = 1e9) -> list[int]:
    """Read whatever is let through, as soon as it is; returns the bytes of each millisecond."""
    counts = [0] * round((end - now) * 1000)
    began, chance = now, random.Random(3)  # noqa: S311
    while now < end:
        if room := bucket.room(now):
            count = int(min(room, most))
            bucket.take(now, count)
            counts[min(int((now - began) * 1000), len(counts) - 1)] += count
        else:
            now += bucket.wait(now) + late * chance.random() + 1e-6
    return counts


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("late", [0.0, 0.03])
def test_any_five_seconds_bring_the_rate(rate: float, late: float) -> None:
    """To 2 %, also for a reader who is woken late."""
    counts = run(Bucket(rate, 0.0), 0.0, 12.0, late)
    for start in range(0, 7000, 250):
        assert sum(counts[start : start + 5000]) == pytest.approx(5 * rate, rel=0.02)


def test_nothing_is_saved_up() -> None:
    """Whoever did not read for an hour gets a moment's worth."""
    bucket = Bucket(1e6, 0.0)
    assert bucket.room(3600.0) < 0.1e6


def test_a_debt_is_paid_before_anything_is_let_through() -> None:
    """What came in one piece counts all the same."""
    bucket = Bucket(1e6, 0.0)
    bucket.take(0.0, 2_000_000)
    assert bucket.wait(0.0) == pytest.approx(2.0, abs=0.05)
    assert bucket.room(2.0) == 0
    assert bucket.room(2.05) > 0


def test_what_is_given_back_is_there_again() -> None:
    """Fewer bytes came than were let through."""
    bucket = Bucket(1e6, 0.0)
    room = bucket.room(0.05)
    bucket.take(0.05, int(room))
    bucket.take(0.05, -int(room))
    assert bucket.room(0.05) == pytest.approx(room)


def test_a_rate_may_change_under_way() -> None:
    """It counts from that moment on, upwards and downwards, to none and back."""
    bucket = Bucket(1e6, 0.0)
    run(bucket, 0.0, 1.0)
    bucket.change(100e3, 1.0)
    assert sum(run(bucket, 1.0, 6.0)) == pytest.approx(500e3, rel=0.02)
    bucket.change(10e6, 6.0)
    assert sum(run(bucket, 6.0, 11.0)) == pytest.approx(50e6, rel=0.02)
    bucket.change(None, 11.0)
    assert bucket.room(11.0) == math.inf
    assert bucket.wait(11.0) == 0
    bucket.take(11.0, 10**9)
    bucket.change(1e6, 12.0)
    assert sum(run(bucket, 12.0, 17.0)) == pytest.approx(5e6, rel=0.02)


def test_the_patient_wait_for_what_others_leave() -> None:
    """They get it all the same when nobody else takes it."""
    bucket = Bucket(1e6, 0.0)
    assert bucket.room(0.03) > 0
    assert bucket.room(0.03, patient=True) == 0
    assert bucket.room(0.03 + bucket.wait(0.03, patient=True) + 1e-9, patient=True) > 0


def test_a_turn_lasts_as_long_as_all_others_need_for_theirs() -> None:
    """So that whoever asks first does not get everything."""
    bucket = Bucket(1e6, 0.0)
    bucket.sharers = 1
    assert bucket.turn(1000) == 0
    bucket.sharers = 4
    assert bucket.turn(1000) == pytest.approx(0.004)
