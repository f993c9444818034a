"""Limits of a job, within those of its priority, within all of a worker's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from transferd.model.job import Priority
from transferd.model.rates import FREE, Rates
from transferd.worker.caps import Capped, Caps, RunCaps

NORMAL, LOW = Priority.NORMAL, Priority.LOW
MEGA = 1_000_000


@dataclass
class Reader:
    """Reads whatever it may, as long as its server sends so much."""

    body: Capped
    speed: float = math.inf
    count: int = 0
    next: float = 0.0

    def turn(self, now: float, most: int = 1 << 20) -> None:
        """Ask, and read."""
        room, wait = self.body.room(now, most)
        if room <= 0:
            self.next = now + wait
            return
        here = room if math.isinf(self.speed) else int(min(room, self.speed * now - self.count))
        self.body.took(now, here)
        self.count += here
        self.next = now if here == room else now + 0.01


@dataclass
class Asker(Reader):
    """Asks for small files, one after the other, each of which comes as a whole."""

    def turn(self, now: float, most: int = 2000) -> None:
        """Ask whether the next one may come."""
        wait = self.body.claim(now, most)
        self.next = now + wait + 0.001
        if not wait:
            self.body.took(now, most)
            self.count += most


@pytest.fixture
def caps(monkeypatch: pytest.MonkeyPatch) -> Caps:
    """The limits of a worker whose clock begins at 0."""
    monkeypatch.setattr("transferd.worker.caps.monotonic", lambda: 0.0)
    return Caps()


def read(readers: list[Reader], began: float, end: float) -> list[int]:
    """Let all of them read; returns how much each has got meanwhile."""
    before = [reader.count for reader in readers]
    for reader in readers:
        reader.next = began
    while (first := min(readers, key=lambda reader: reader.next)).next < end:
        first.turn(first.next)
        first.next += 20e-6
    return [reader.count - had for reader, had in zip(readers, before, strict=True)]


@pytest.mark.parametrize("bodies", [1, 4])
@pytest.mark.parametrize("rate", [100_000, MEGA, 100 * MEGA])
def test_a_job_keeps_its_rate_over_any_number_of_connections(
    caps: Caps, bodies: int, rate: int
) -> None:
    """To 2 %; and each of its bodies gets its part of it."""
    run = RunCaps(caps, NORMAL, rate)
    counts = read([Reader(run.body()) for _ in range(bodies)], 0.0, 5.0)
    assert sum(counts) == pytest.approx(5 * rate, rel=0.02)
    assert min(counts) == pytest.approx(max(counts), rel=0.3)


def test_the_tightest_limit_counts(caps: Caps) -> None:
    """A job within its priority, that within the total."""
    caps.limit(Rates(total=3 * MEGA, by_priority={LOW: MEGA}), 0.0)
    low, own, free = (
        Reader(RunCaps(caps, LOW, None).body()),
        Reader(RunCaps(caps, NORMAL, MEGA // 2).body()),
        Reader(RunCaps(caps, NORMAL, None).body()),
    )
    counts = read([low, own, free], 0.0, 5.0)
    assert sum(counts) == pytest.approx(15 * MEGA, rel=0.02)
    assert counts[0] == pytest.approx(5 * MEGA, rel=0.1)
    assert counts[1] == pytest.approx(2.5 * MEGA, rel=0.1)


def test_what_a_slow_one_leaves_others_take(caps: Caps) -> None:
    """A server that sends little keeps nobody from the rest."""
    caps.limit(Rates(total=MEGA), 0.0)
    slow = Reader(RunCaps(caps, NORMAL, None).body(), speed=100_000.0)
    quick = Reader(RunCaps(caps, NORMAL, None).body())
    counts = read([slow, quick], 0.0, 5.0)
    assert sum(counts) == pytest.approx(5 * MEGA, rel=0.02)
    assert counts[0] == pytest.approx(500_000, rel=0.05)


@pytest.mark.parametrize("rate", [1024, 4096])
def test_a_small_file_has_its_turn_among_many_long_bodies(caps: Caps, rate: int) -> None:
    """However slow the limit, and although somebody always waits who knows when there is more."""
    caps.limit(Rates(total=rate), 0.0)
    readers = [Reader(RunCaps(caps, NORMAL, None).body()) for _ in range(10)]
    asker = Asker(RunCaps(caps, NORMAL, None).body())
    counts = read([*readers, asker], 0.0, 400_000 / rate)
    fair = sum(counts) / len(counts)
    assert all(0.5 * fair < count < 2 * fair for count in counts)


def test_limits_change_at_once(caps: Caps) -> None:
    """Those of all, those of a job, and to which priority it belongs."""
    run = RunCaps(caps, NORMAL, None)
    reader = Reader(run.body())
    assert reader.body.room(0.0, 500) == (500, math.inf)
    reader.body.took(0.0, 500)
    caps.limit(Rates(total=MEGA), 1.0)
    assert read([reader], 1.0, 6.0) == [pytest.approx(5 * MEGA, rel=0.02)]
    run.retune(NORMAL, 200_000, 6.0)
    assert read([reader], 6.0, 11.0) == [pytest.approx(MEGA, rel=0.02)]
    caps.limit(Rates(by_priority={LOW: 100_000}), 11.0)
    run.retune(LOW, None, 11.0)
    assert read([reader], 11.0, 16.0) == [pytest.approx(500_000, rel=0.02)]
    caps.limit(FREE, 16.0)
    assert reader.body.room(16.0, 500) == (500, math.inf)


def test_nobody_waits_long_before_asking_again(caps: Caps) -> None:
    """The limit may be another by then."""
    body = RunCaps(caps, NORMAL, 1024).body()
    body.took(0.0, 10**6)
    room, wait = body.room(0.1, 100)
    assert room == 0
    assert wait < 0.2


def test_what_moved_without_a_limit_is_no_debt(caps: Caps) -> None:
    """A read that was under way when the limit came does not count against it."""
    body = RunCaps(caps, NORMAL, None).body()
    body.room(0.0, 1 << 20)
    caps.limit(Rates(total=100_000), 0.0)
    body.took(0.0, 1 << 20)
    assert body.room(0.1, 1 << 20)[0] > 0


def test_zero_limits_nothing(caps: Caps) -> None:
    """Where nothing may run, nothing is started: that is for others to see to."""
    caps.limit(Rates(total=0, by_priority={LOW: 0}), 0.0)
    assert RunCaps(caps, LOW, None).body().room(0.0, 500) == (500, math.inf)


def test_a_small_file_counts_before_the_next_begins(
    caps: Caps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come as a whole, and the next one waits for as long as it should have taken."""
    now = 1.0
    monkeypatch.setattr("transferd.worker.caps.monotonic", lambda: now)
    run = RunCaps(caps, NORMAL, 10_000)
    now = 2.0
    with run.small() as first:
        assert first.wait() == 0
        first.count(50_000)
    with run.small() as second:
        assert second.wait() > 0
        now = 7.5
        assert second.wait() == 0
        # Nothing came: it takes nobody's room.
    with run.small() as third:
        assert third.wait() == 0
        with run.small() as beside:
            assert beside.wait() > 0
