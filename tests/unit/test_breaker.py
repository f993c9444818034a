"""When a server is left alone: a pure decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.model.failures import Failure
from transferd.transfer.breaker import Breaker, BreakerPolicy, blames_server

POLICY = BreakerPolicy(failures=3, window=100, first=60, cap=240, spread=1.0)


def after(
    *moments: float,
    breaker: Breaker | None = None,
    run: int = 1,
    retry_after: float = 0.0,
    jitter: float = 0.0,
) -> Breaker:
    """Fail at these moments."""
    breaker = breaker or Breaker()
    for now in moments:
        breaker = breaker.failed(run, now, POLICY, retry_after=retry_after, jitter=jitter)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """Fewer are an accident, as any server has them."""
    assert after(10, 11).wait(11, POLICY) == 0
    assert after(10, 11, 12).wait(12, POLICY) == 60


def test_failures_that_are_far_apart_are_not_in_a_row() -> None:
    """A server that fails now and then is not left alone."""
    assert after(0, 60, 101, 150).wait(150, POLICY) == 0
    assert after(0, 60, 101, 150, 151).wait(151, POLICY) == 60


def test_half_open_one_job_tries_and_the_others_wait() -> None:
    """What comes back is not trampled on."""
    breaker = after(0, 0, 0)
    assert breaker.begun(7, 59).trial is None
    breaker = breaker.begun(7, 60)
    assert (breaker.trial, breaker.begun(8, 60).trial) == (7, 7)
    assert breaker.wait(61, POLICY) == 60


def test_each_rest_in_a_row_is_twice_as_long_up_to_the_cap() -> None:
    """A server that stays away is asked ever less often."""
    breaker, now, rests = after(0, 0, 0), 0.0, []
    for run in range(4):
        assert breaker.until is not None
        rests.append(breaker.until - now)
        now = breaker.until
        breaker = after(now, breaker=breaker.begun(run, now), run=run)
    assert rests == [60, 120, 240, 240]


def test_jitter_shortens_a_rest_but_not_what_the_server_asked_for() -> None:
    """Machines that stopped together come back one by one; nobody before Retry-After."""
    assert after(0, 0, 0, jitter=0.5).wait(0, POLICY) == 45
    assert after(0, 0, 0, retry_after=100).wait(0, POLICY) == 100
    assert after(0, 0, 0, retry_after=100, jitter=0.5).wait(0, POLICY) == 150


def test_a_trial_that_tells_nothing_makes_room_for_another() -> None:
    """A job that is suspended while it tries does not keep its server alone for ever."""
    breaker = after(0, 0, 0).begun(7, 60)
    assert breaker.ended(8).wait(61, POLICY) == 60
    assert breaker.ended(7).wait(61, POLICY) == 0


def test_a_straggler_counts_only_by_what_the_server_asked_of_it() -> None:
    """Runs that began before tell nothing new when they fail, but Retry-After is kept."""
    breaker = after(0, 0, 0)
    assert after(5, breaker=breaker) == breaker
    assert after(5, breaker=breaker, retry_after=90).wait(5, POLICY) == 90
    trying = breaker.begun(7, 60)
    assert after(61, breaker=trying, run=2) == trying


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["begun", "ended", "failed"]),
            st.integers(0, 3),
            st.floats(0, 500),
            st.floats(0, 1000),
            st.floats(0, 1, exclude_max=True),
        ),
        max_size=60,
    )
)
def test_nobody_is_kept_out_without_end(
    steps: list[tuple[str, int, float, float, float]],
) -> None:
    """Whatever happens, a wait is no longer than the longest rest, and then somebody may try."""
    breaker, now = Breaker(), 0.0
    for what, run, passed, retry_after, jitter in steps:
        now += passed
        if what == "begun":
            breaker = breaker.begun(run, now)
        elif what == "ended":
            breaker = breaker.ended(run)
        else:
            breaker = after(now, breaker=breaker, run=run, retry_after=retry_after, jitter=jitter)
        assert 0 <= breaker.wait(now, POLICY) <= max(POLICY.cap, 2 * 1000)
        later = now + 2001
        idle = breaker if breaker.trial is None else breaker.ended(breaker.trial)
        assert idle.wait(later, POLICY) == 0


@pytest.mark.parametrize(
    ("code", "status", "verdict"),
    [
        ("http_429", 429, True),
        ("http_503", 503, True),
        ("http_501", 501, True),
        ("connection_refused", None, True),
        ("stalled", None, True),
        ("http_404", 404, False),
        ("http_408", 408, False),
        ("http_407", 407, None),
        ("name_not_resolved", None, None),
        ("proxy_unreachable", None, None),
        ("disk_full", None, None),
        ("server_resting", None, None),
    ],
)
def test_only_a_servers_own_failures_are_laid_to_its_charge(
    code: str, status: int | None, verdict: bool | None
) -> None:
    """A full disk here or a proxy that is gone says nothing of the server."""
    failure = Failure(code=code, message="it failed", http_status=status)
    assert blames_server(failure) is verdict
