"""When a job is tried again: a pure decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.model.failures import Failure
from transferd.transfer.httpdate import parse_http_date
from transferd.transfer.retry import RetryPolicy, parse_retry_after

POLICY = RetryPolicy(first=60, cap=3600, soon=1, space=15, spread=0, patience=1_209_600)
LOST = Failure(code="connection_lost", message="…")
FULL = Failure(code="disk_full", message="…")
DEAD = Failure(code="worker_lost", message="…")
DENIED = Failure(code="http_403", message="…")
NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


def wait(
    failure: Failure = LOST,
    *,
    policy: RetryPolicy = POLICY,
    attempts: int = 0,
    stuck_for: float = 0.0,
    retry_after: float | None = None,
    jitter: float = 0.0,
    rest: float = 0.0,
) -> float | None:
    """Ask for a delay with everything else at rest."""
    return policy.delay(
        failure,
        attempts=attempts,
        stuck_for=stuck_for,
        retry_after=retry_after,
        jitter=jitter,
        rest=rest,
    )


def patience(seconds: float) -> RetryPolicy:
    """The usual policy with another no-progress timeout."""
    return RetryPolicy(first=60, cap=3600, soon=1, space=15, spread=0, patience=seconds)


def test_the_first_wait_is_the_minimum_retry_delay() -> None:
    """DESIGN 3: first delay = min_retry_delay."""
    assert wait(jitter=0.99) == 60


def test_the_window_doubles_with_each_attempt_up_to_the_cap() -> None:
    """DESIGN 3: doubling with full jitter up to a cap."""
    almost_one = 1 - 2**-53
    longest = [wait(attempts=n, jitter=almost_one) for n in range(8)]
    assert longest == pytest.approx([60, 120, 240, 480, 960, 1920, 3600, 3600])


def test_a_minimum_above_the_cap_wins() -> None:
    """The owner's min_retry_delay is a promise, the cap a default."""
    policy = RetryPolicy(first=7200, cap=3600, soon=1, space=15, spread=0, patience=1e6)
    assert wait(policy=policy, attempts=5, jitter=0.9) == 7200


def test_a_failure_of_the_service_itself_is_retried_soon() -> None:
    """A dead worker is not the job's fault: short delays, doubling to a minute."""
    waits = [wait(DEAD, attempts=n, jitter=0.9) for n in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_full_disk_is_looked_at_evenly_and_never_runs_out_of_patience() -> None:
    """BITS J11, Y4: waiting for space is waiting for an event."""
    assert wait(FULL, attempts=9, stuck_for=1e9, jitter=0.9) == 15


def test_what_the_owner_must_mend_is_not_retried() -> None:
    """A fatal failure goes straight to ERROR."""
    assert wait(DENIED) is None


@pytest.mark.parametrize("failure", [LOST, FULL, DEAD])
def test_without_patience_every_failure_is_fatal(failure: Failure) -> None:
    """BITS J16: timeout 0 makes any error fatal at once."""
    assert wait(failure, policy=patience(0)) is None


def test_a_timeout_shorter_than_the_delay_gives_up_at_once() -> None:
    """BITS T13, Y3: then no retry is made."""
    assert wait(policy=patience(59)) is None
    assert wait(policy=patience(60)) == 60


def test_the_last_allowed_try_is_not_jittered_past_the_timeout() -> None:
    """A random wait never makes a job miss a try that it was still allowed."""
    assert wait(policy=patience(1000), attempts=6, stuck_for=900, jitter=0.9) == 100


def test_retry_after_is_a_lower_bound() -> None:
    """RFC 9110 10.2.3: not before the server is ready."""
    assert wait(retry_after=500) == 500
    assert wait(retry_after=5) == 60
    assert wait(retry_after=7200) == 7200
    assert wait(policy=patience(400), retry_after=500) is None


SPREADING = replace(POLICY, spread=1.0)


def test_even_the_first_wait_is_spread_behind_the_minimum() -> None:
    """Whom one server lost at one moment, it does not get back at one moment."""
    assert wait(policy=SPREADING, jitter=0) == 60
    assert wait(policy=SPREADING, jitter=0.5) == 90
    assert wait(DEAD, policy=SPREADING, jitter=0.5) == 1


def test_retry_after_is_spread_behind_it_in_proportion_and_never_before() -> None:
    """A server that asks everybody for the same moment does not get everybody then."""
    assert wait(policy=SPREADING, retry_after=500, jitter=0) == 500
    assert wait(policy=SPREADING, retry_after=500, jitter=0.5) == 750


def test_a_job_waits_while_its_server_is_left_alone_but_is_not_given_up_for_it() -> None:
    """The rest of a server puts a try off, at most to the last moment that is allowed."""
    assert wait(rest=500) == 500
    assert wait(rest=30) == 60
    assert wait(policy=patience(400), rest=500) == 400
    assert wait(policy=patience(59), rest=500) is None


@given(
    attempts=st.integers(0, 10**6),
    stuck_for=st.floats(0, 1e7),
    retry_after=st.none() | st.floats(0, 1e5),
    jitter=st.floats(0, 1, exclude_max=True),
    code=st.sampled_from(["stalled", "worker_lost"]),
    spread=st.floats(0, 10),
    rest=st.floats(0, 1e5),
)
def test_a_wait_keeps_its_bounds(
    attempts: int,
    stuck_for: float,
    retry_after: float | None,
    jitter: float,
    code: str,
    spread: float,
    rest: float,
) -> None:
    """Never before the minimum or Retry-After, never past the timeout; given up only for that."""
    failure = Failure(code=code, message="…")
    delay = replace(POLICY, spread=spread).delay(
        failure,
        attempts=attempts,
        stuck_for=stuck_for,
        retry_after=retry_after,
        jitter=jitter,
        rest=rest,
    )
    floor = max(60 if code == "stalled" else 1, retry_after or 0)
    if delay is None:
        assert stuck_for + max(floor, 60) > POLICY.patience
    else:
        longest = max(3600, floor * (1 + (spread if code == "stalled" else 0)), rest)
        assert floor <= delay <= longest * (1 + 1e-9)
        assert stuck_for + delay <= POLICY.patience + 1e-6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("9" * 5000, 86_400),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120),
        ("Sunday, 06-Nov-94 08:51:37 GMT", 120),
        ("Sun Nov  6 08:51:37 1994", 120),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", 86_400),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """RFC 9110 10.2.3, 5.6.7: both forms, three date formats, a day at most; else nothing."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=80))
def test_any_text_can_be_tried_as_a_date(text: str) -> None:
    """What a server sends never raises; what is read is a time in UTC."""
    moment = parse_http_date(text)
    assert moment is None or moment.utcoffset() == timedelta(0)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))
def test_every_http_date_is_read(moment: datetime) -> None:
    """RFC 9110 5.6.7: IMF-fixdate, to the second."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_http_date(moment.strftime("%a, %d %b %Y %H:%M:%S GMT")) == moment
