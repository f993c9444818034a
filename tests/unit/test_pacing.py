"""The window of a background download, in a model of a bottleneck: what it yields, and to whom."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bottleneck import Bottleneck, Flow
from tests.support.congestion import Bbr, Capped, Cubic
from tests.support.relaying import Home
from tests.support.yielding import Ticks, Yielding
from transferd.model.job import Priority
from transferd.transfer.advice import Phase
from transferd.transfer.delay import Look
from transferd.transfer.growth import INTERVAL
from transferd.transfer.pacing import LARGEST, TRICKLE, Pacing
from transferd.wire.conduct import WorkerSettings

MEGABIT = 125_000.0
NORMAL = 0.010
FLOOR = 2 * 1448


def background(
    base: float, *, handshake: float | None = None, target: float = NORMAL, flows: int = 1
) -> tuple[Flow, Yielding]:
    """Return a flow that yields, and its receiver."""
    receiver = Yielding(target, handshake or base, flows=flows)
    return Flow(Cubic(), base, receiver), receiver


def jain(rates: list[float]) -> float:
    """Return Jain's index of fairness: 1 when all rates are the same."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))


@dataclass(frozen=True)
class Record:
    """What happened to a background flow that was alone, then beside a cubic one, then alone."""

    queue: float
    foreground: float
    without_background: float
    yielded_after: float
    back_after: float


@cache
def recorded(mbit: int, buffer: float, base: float) -> Record:
    """Let a cubic flow come after eight seconds and go after twenty more."""
    start, end = 8.0, 28.0
    rate = mbit * MEGABIT
    reference = Bottleneck(rate=rate, buffer=buffer)
    lone = Flow(Cubic(), base, start=start, end=end)
    reference.add(lone)
    reference.run(end)

    line = Bottleneck(rate=rate, buffer=buffer)
    rival = Flow(Cubic(), base, start=start, end=end)
    own, _ = background(base)
    line.add(rival, own)
    line.run(end + 3)

    def first(moment: float, after: float, *, above: bool, part: float) -> float:
        while (own.between(moment, moment + after, line.step) > part * rate) is not above:
            moment += 0.05
        return moment

    return Record(
        queue=statistics.median(line.delays[3000:8000]),
        foreground=rival.between(start, end, line.step) / rate,
        without_background=lone.between(start, end, line.step) / rate,
        yielded_after=first(start, 0.1, above=False, part=0.1) - start,
        back_after=first(end, 0.2, above=True, part=0.9) - end,
    )


LINES = [
    pytest.param(20, 0.1, 0.001, id="20 Mbit/s, 1 ms"),
    pytest.param(100, 0.02, 0.001, id="100 Mbit/s, 1 ms, small buffer"),
    pytest.param(1000, 0.4, 0.001, id="1 Gbit/s, 1 ms, large buffer"),
    pytest.param(20, 0.4, 0.02, id="20 Mbit/s, 20 ms, large buffer"),
]

#: Where a change of the window takes long to show.
LONG = [
    pytest.param(20, 0.1, 0.1, id="20 Mbit/s, 100 ms"),
    pytest.param(100, 0.1, 0.1, id="100 Mbit/s, 100 ms"),
]


class TestAlone:
    @pytest.mark.parametrize(("mbit", "buffer", "base"), LINES)
    def test_it_uses_the_line(self, mbit: int, buffer: float, base: float) -> None:
        """DESIGN 8: nobody else is there, so nothing is left idle, slow-downs included."""
        line = Bottleneck(rate=mbit * MEGABIT, buffer=buffer)
        own, _ = background(base)
        line.add(own)
        line.run(20)
        assert own.between(8, 20, line.step) >= 0.97 * line.rate

    @pytest.mark.parametrize(("mbit", "buffer", "base"), LINES)
    def test_it_keeps_the_queue_below_its_target(
        self, mbit: int, buffer: float, base: float
    ) -> None:
        """DESIGN 8: the target of its class is the most that it adds to the delay of others."""
        assert recorded(mbit, buffer, base).queue <= NORMAL

    @pytest.mark.parametrize("buffer", [0.02, 0.4])
    def test_it_fills_a_long_path(self, buffer: float) -> None:
        """The window moves with what arrives, so even a small buffer is not overrun for long."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=buffer)
        own, _ = background(0.1)
        line.add(own)
        line.run(25)
        assert own.between(10, 25, line.step) >= 0.87 * line.rate

    def test_it_bears_a_line_whose_rate_flickers(self) -> None:
        """A real line is not even; ten per cent either way are no rival."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1, jitter=0.1)
        own, _ = background(0.02)
        line.add(own)
        line.run(15)
        assert own.between(5, 15, line.step) >= 0.95 * line.rate


class TestBesideOthers:
    @pytest.mark.parametrize(("mbit", "buffer", "base"), [*LINES, *LONG])
    def test_a_cubic_foreground_keeps_what_it_has_alone(
        self, mbit: int, buffer: float, base: float
    ) -> None:
        """DESIGN 8: background means idle bandwidth."""
        record = recorded(mbit, buffer, base)
        assert record.foreground >= 0.97 * record.without_background

    @pytest.mark.parametrize(("mbit", "buffer", "base"), [*LINES, *LONG])
    def test_it_yields_within_a_second(self, mbit: int, buffer: float, base: float) -> None:
        """DESIGN 8: a foreground that starts has the line at once."""
        assert recorded(mbit, buffer, base).yielded_after <= 1.0

    @pytest.mark.parametrize(("mbit", "buffer", "base"), [*LINES, *LONG])
    def test_it_is_back_two_seconds_after_the_foreground(
        self, mbit: int, buffer: float, base: float
    ) -> None:
        """DESIGN 8: what became idle is used again."""
        assert recorded(mbit, buffer, base).back_after <= 2.0

    def test_a_bbr_foreground_on_a_long_path_keeps_what_it_has_alone(self) -> None:
        """BBR fills no queue, so only a rate that falls tells of it."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        own, _ = background(0.1)
        rival = Flow(Bbr(), 0.1, start=10)
        line.add(own, rival)
        line.run(30)
        assert rival.between(15, 30, line.step) >= 0.9 * line.rate
        assert own.between(15, 30, line.step) <= 0.03 * line.rate

    @pytest.mark.parametrize(
        ("mbit", "buffer", "base"),
        [(100, 0.02, 0.001), (20, 0.1, 0.02), (100, 0.4, 0.02), (100, 0.1, 0.1)],
    )
    def test_a_full_buffer_at_the_handshake_does_not_fool_it(
        self, mbit: int, buffer: float, base: float
    ) -> None:
        """The base delay was measured over the queue of others: its own slow-downs show that."""
        line = Bottleneck(rate=mbit * MEGABIT, buffer=buffer)
        line.add(Flow(Cubic(), base))
        line.run(15)
        own, _ = background(base, handshake=base + line.delays[-1])
        own.start = line.now
        line.add(own)
        line.run(18)
        assert own.between(25, 33, line.step) <= 0.1 * line.rate

    def test_it_paces_its_reads_where_two_segments_are_too_many(self) -> None:
        """At a short delay the smallest window alone is a considerable rate."""
        line = Bottleneck(rate=20 * MEGABIT, buffer=0.02)
        own, receiver = background(0.001)
        line.add(Flow(Cubic(), 0.001, start=2), own)
        resting = 0

        def look(now: float) -> None:
            nonlocal resting
            if receiver.pacing is not None and receiver.pacing.phase is Phase.RESTING:
                resting += 1
                assert receiver.pacing.advice.rate == TRICKLE

        line.run(8, look)
        assert resting > 3000


class TestOfOneMachine:
    @pytest.mark.parametrize(
        ("bases", "late"),
        [((0.02, 0.02), 0.3), ((0.02, 0.02), 6.0), ((0.02, 0.1), 6.0), ((0.1, 0.1), 6.0)],
    )
    def test_two_flows_share_the_line(self, bases: tuple[float, float], late: float) -> None:
        """A latecomer, which takes the queue of the first for its base, does not starve it."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        first, _ = background(bases[0], flows=2)
        line.add(first)
        line.run(late)
        second, _ = background(bases[1], handshake=bases[1] + line.delays[-1], flows=2)
        second.start = line.now
        line.add(second)
        line.run(32)
        rates = [flow.between(late + 22, late + 32, line.step) for flow in (first, second)]
        assert jain(rates) >= 0.94
        assert sum(rates) >= 0.8 * line.rate


class TestThePathChanges:
    @pytest.mark.parametrize(("before", "after"), [(0.02, 0.06), (0.06, 0.02)])
    def test_a_new_route_is_learnt_within_a_minute(self, before: float, after: float) -> None:
        """A longer one looks like a queue, but one that never moves."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=before)
        now, received, ticks = 0.0, 0, Ticks(0.0)
        while now < 60.0:
            delay = before if now < 5.0 else after
            now += delay
            received += pacing.advice.window
            pacing.saw(now, Look(received=received))
            if ticks.due(now):
                pacing.step(now, Look(received=received))
        assert pacing.base == pytest.approx(after, rel=0.02)


class TestTheWindowIsNotTheLimit:
    def test_the_window_follows_the_need_of_a_slow_server(self) -> None:
        """W/R is then no delay; it holds the window near what the rate needs all the same."""
        base, rate = 0.02, 30 * MEGABIT
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        receiver = Yielding(NORMAL, base)
        line.add(Flow(Capped(rate=rate), base, receiver))
        line.run(10)
        assert max(window for *_, window in receiver.history[60:]) <= 2.5 * rate * base

    def test_a_store_before_the_sender_is_found_out(self) -> None:
        """What was kept during a slow-down comes faster afterwards than anything before."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        receiver = Yielding(NORMAL, 0.005)
        flow = Flow(Capped(rate=30 * MEGABIT, store=1e6), 0.005, receiver)
        line.add(flow)
        line.run(25)
        assert receiver.pacing is not None
        assert receiver.pacing.defeated
        assert receiver.pacing.advice.rate == pytest.approx(0.5 * 30 * MEGABIT, rel=0.1)
        line.run(60)
        tried_again = flow.between(45, 85, line.step)
        assert tried_again >= 0.85 * 30 * MEGABIT

    def test_a_proxy_on_this_side_of_the_line_is_found_out_and_half_is_left(self) -> None:
        """Its window is not ours: it fills the queue, and nothing that is seen here tells."""
        receiver = Yielding(NORMAL, 0.001, proxied=True, rtt=0.001)
        home = Home(Bottleneck(rate=100 * MEGABIT, buffer=0.1), 0.02, receiver, room=3e6)
        home.run(5)
        assert receiver.pacing is not None
        assert receiver.pacing.defeated
        home.run(10)
        collected = home.collected.between(8, 15, home.line.step)
        assert collected == pytest.approx(0.5 * home.line.rate, rel=0.1)
        assert statistics.median(home.line.delays[8000:]) <= 0.001

    def test_a_foreground_beside_a_proxy_has_the_line_after_the_next_trial(self) -> None:
        """Half of it at once, and nearly everything when it has shown that somebody is there."""
        receiver = Yielding(NORMAL, 0.001, proxied=True, rtt=0.001)
        home = Home(Bottleneck(rate=100 * MEGABIT, buffer=0.1), 0.02, receiver, room=3e6)
        rival = Flow(Cubic(), 0.02, start=10)
        home.line.add(rival)
        home.run(42)
        assert rival.between(11, 20, home.line.step) >= 0.45 * home.line.rate
        assert rival.between(28, 42, home.line.step) >= 0.85 * home.line.rate

    @pytest.mark.parametrize("base", [0.001, 0.02, 0.1])
    def test_a_proxy_beyond_the_line_needs_no_paced_reads(self, base: float) -> None:
        """The window rules what it sends, with others on the line and without."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        receiver = Yielding(NORMAL, base, proxied=True)
        line.add(Flow(Cubic(), base, receiver), Flow(Cubic(), base, start=10, end=20))
        line.run(30, lambda _: self._assert_rules(receiver))

    def _assert_rules(self, receiver: Yielding) -> None:
        assert receiver.pacing is None or not receiver.pacing.defeated

    def test_a_plain_line_keeps_nothing(self) -> None:
        """The bottleneck's own rate is the most that ever comes."""
        line = Bottleneck(rate=100 * MEGABIT, buffer=0.1)
        own, receiver = background(0.005)
        line.add(own)
        line.run(15)
        assert receiver.pacing is not None
        assert not receiver.pacing.defeated

    def test_an_idle_flow_neither_grows_nor_learns(self) -> None:
        """Nothing that the application held back tells of the network."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=0.02)
        window = pacing.advice.window
        for step in range(1, 200):
            pacing.step(step * INTERVAL, Look(received=step), limited=True)
        assert pacing.advice.window == window
        assert pacing.base == 0.02

    def test_the_kernel_is_believed_where_it_measures(self) -> None:
        """Who looks late sees rounds too long or too short; the kernel does not look late."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=0.02)
        for step in (1, 2):
            pacing.step(step * INTERVAL, Look(received=step, rtt=0.013))
        assert pacing.base == 0.013


class TestTheWindow:
    def test_it_doubles_until_the_delay_passes_the_target(self) -> None:
        """DESIGN 8: a new flow finds the rate of the line within a second."""
        line = Bottleneck(rate=1000 * MEGABIT, buffer=0.1)
        own, receiver = background(0.001)
        line.add(own)
        line.run(1)
        seen = [own.between(tenth / 10, (tenth + 1) / 10, line.step) for tenth in range(10)]
        assert max(seen) >= 0.95 * line.rate
        assert receiver.pacing is not None
        assert receiver.pacing.phase is not Phase.STARTING

    @settings(max_examples=50, deadline=None)
    @given(
        arrivals=st.lists(
            st.tuples(st.floats(0.001, 0.4), st.floats(0.0, 1.0), st.booleans(), st.integers(1, 4)),
            max_size=60,
        ),
        scale=st.integers(0, 14),
    )
    def test_whatever_comes_it_is_whole_units_and_two_segments(
        self, arrivals: list[tuple[float, float, bool, int]], scale: int
    ) -> None:
        """Less than two segments would stop acknowledgements; parts of a unit cannot be said."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=0.01, scale=scale)
        now, received, ticks = 0.0, 0, Ticks(0.0)
        for past, part, limited, flows in arrivals:
            now += past
            received += int(part * pacing.advice.window)
            pacing.saw(now, Look(received=received))
            if ticks.due(now):
                pacing.step(now, Look(received=received), limited=limited, flows=flows)
            assert pacing.advice.window >= FLOOR
            assert pacing.advice.window % (1 << scale) == 0

    @pytest.mark.parametrize("server", [50_000, 5_000_000])
    def test_a_server_that_is_slow_makes_no_window_without_bounds(self, server: int) -> None:
        """No queue ends the doubling then; what the kernel is told is a number that it takes."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=0.01)
        largest = 0
        for step in range(1, 120 * 20):
            now = step * INTERVAL
            look = Look(received=int(server * now), rtt=0.01)
            pacing.saw(now, look)
            largest = max(largest, pacing.step(now, look).window)
        assert largest <= LARGEST

    def test_it_is_never_more_than_halved_in_a_step(self) -> None:
        """DESIGN 8: a share is given up by a half at most, whatever the delay says."""
        pacing = Pacing(target=NORMAL, now=0.0, handshake=0.02)
        received, windows = 0, [pacing.advice.window]
        for step in range(1, 200):
            now = step * INTERVAL
            received += 1448 if step % 4 == 0 else 0
            pacing.saw(now, Look(received=received))
            windows.append(pacing.step(now, Look(received=received)).window)
        assert windows[-1] <= FLOOR + 128
        assert all(after >= before / 2 - 128 for before, after in pairwise(windows))


def test_lower_classes_have_lower_targets() -> None:
    """DESIGN 8: foreground is not paced; the lower the class, the sooner it yields."""
    delay = WorkerSettings(user_agent="").delay
    assert delay(Priority.FOREGROUND) is None
    paced = [delay(each) or 0.0 for each in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
    assert paced == sorted(paced, reverse=True)
