"""The simulated fleet decides as the product does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import herd
from transferd.model.failures import Failure
from transferd.transfer.breaker import Breaker, BreakerPolicy
from transferd.transfer.retry import RetryPolicy

LOST = Failure(code="connection_lost", message="…")
RANDOM = st.floats(0, 1, exclude_max=True)


@given(
    attempts=st.integers(0, 50),
    retry_after=st.floats(0, 1e4),
    jitter=RANDOM,
    rest=st.floats(0, 1e4),
    spread=st.floats(0, 3),
)
def test_waits_are_those_of_the_retry_policy(
    attempts: int, retry_after: float, jitter: float, rest: float, spread: float
) -> None:
    """The figures in the README are the product's."""
    policy = RetryPolicy(first=60, cap=3600, soon=1, space=15, spread=spread, patience=1e9)
    one = policy.delay(
        LOST, attempts=attempts, stuck_for=0, retry_after=retry_after, jitter=jitter, rest=rest
    )
    (many,) = herd.delays(
        policy,
        np.array([attempts], np.int32),
        retry_after,
        np.array([jitter]),
        np.array([rest]),
    )
    assert many == pytest.approx(one)


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.floats(0, 300), st.sampled_from([0.0, 120.0]), RANDOM),
        max_size=40,
    )
)
def test_breakers_are_those_of_the_product(steps: list[tuple[bool, float, float, float]]) -> None:
    """Tries whenever it is allowed, failures at any time."""
    policy = BreakerPolicy(failures=3, window=600, first=60, cap=400, spread=0.5)
    one, many, now = Breaker(), herd.Breakers(policy, 1), 0.0
    at = np.array([0], np.int32)
    for succeeds, passed, retry_after, jitter in steps:
        now += passed
        one = one.begun(1, now)
        if succeeds:
            one = Breaker()
            many.succeeded(at)
        else:
            one = one.failed(1, now, policy, retry_after=retry_after, jitter=jitter)
            many.failed(at, now, retry_after, np.array([jitter]))
        assert many.waits(at, now)[0] == pytest.approx(one.wait(now, policy))


def test_every_job_is_served_once_and_the_server_never_beyond_its_capacity() -> None:
    """No request gets lost between the seconds."""
    retry = RetryPolicy(first=60, cap=3600, soon=1, space=15, spread=1, patience=1e9)
    breaker = BreakerPolicy(failures=3, window=600, first=60, cap=400, spread=0.5)
    manners = herd.Manners(retry=retry, breaker=breaker, start_spread=0)
    server = herd.Server(capacity=20, retry_after=30, outage=(50, 90), download=20)
    story = herd.Herd(1000, 3, manners, server, seed=1).run(np.zeros(1000), 100_000)
    assert story.served.sum() == 3000
    assert story.served.max() == 20
    assert story.requests[50:90].sum() > 0
    assert story.served[50:90].max() <= 0
