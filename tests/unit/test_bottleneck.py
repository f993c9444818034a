"""The model of a bottleneck is worth its name: known senders do there what they are known for."""

from __future__ import annotations

import statistics

import pytest

from tests.support.bottleneck import Bottleneck, Flow
from tests.support.congestion import Bbr, Cubic

RATE = 12_500_000.0


def test_cubic_fills_the_line_and_the_buffer() -> None:
    """Only a loss stops it."""
    line = Bottleneck(rate=RATE, buffer=0.05)
    flow = Flow(Cubic(), 0.02)
    line.add(flow)
    line.run(15)
    assert flow.between(2, 15, line.step) >= 0.97 * RATE
    assert max(line.delays) == pytest.approx(0.05, abs=0.002)


def test_bbr_fills_the_line_and_not_the_buffer() -> None:
    """It paces at the rate it has measured."""
    line = Bottleneck(rate=RATE, buffer=0.1)
    flow = Flow(Bbr(), 0.02)
    line.add(flow)
    line.run(10)
    assert flow.between(2, 10, line.step) >= 0.93 * RATE
    assert statistics.median(line.delays[2000:]) <= 0.01


def test_two_cubic_flows_share_the_line() -> None:
    """A queue serves in the order of arrival, and each loss hits both."""
    line = Bottleneck(rate=RATE, buffer=0.05)
    flows = [Flow(Cubic(), 0.02), Flow(Cubic(), 0.02, start=3)]
    line.add(*flows)
    line.run(20)
    rates = [flow.between(10, 20, line.step) for flow in flows]
    assert sum(rates) >= 0.97 * RATE
    assert min(rates) >= 0.15 * RATE


def test_the_same_seed_makes_the_same_noise() -> None:
    """A model that cannot be repeated proves nothing."""

    def delays(seed: int) -> list[float]:
        line = Bottleneck(rate=RATE, buffer=0.05, jitter=0.1, seed=seed)
        line.add(Flow(Cubic(), 0.02))
        line.run(1)
        return line.delays

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)
