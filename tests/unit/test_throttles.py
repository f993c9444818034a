"""Which limits may hold a job that moves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from transferd.model.admission import Admission
from transferd.model.job import Blocker, Priority, Settings, Timers
from transferd.model.rates import FREE, Rates
from transferd.service.throttles import limits_of, shown_rate

PLAIN = Settings(
    name="a", timers=Timers(min_retry_delay=1, no_progress_timeout=0, max_download_time=0)
)
NORMAL, LOW = Priority.NORMAL, Priority.LOW
SIX = datetime(2026, 11, 30, 18, tzinfo=UTC)


def limits(
    rates: Rates = FREE, others: Collection[Priority] = (), max_rate: int | None = None
) -> list[Blocker]:
    """Return what holds a normal job."""
    settings = replace(PLAIN, max_rate=max_rate)
    return list(limits_of(settings, Admission(rates=rates), others))


def codes(found: list[Blocker]) -> list[str]:
    """Return which limits they are."""
    return [each.code for each in found]


def test_a_job_without_limits_has_none() -> None:
    """Nor do those of other priorities hold for it, nor one that is 0: then nothing runs."""
    assert limits() == []
    assert limits(Rates(total=0, by_priority={LOW: 5})) == []


def test_a_limit_within_a_tighter_one_is_not_named() -> None:
    """Whoever lifts it gains nothing."""
    rates = Rates(total=1_000_000, by_priority={NORMAL: 2_000_000})
    assert codes(limits(rates, [NORMAL], max_rate=3_000_000)) == ["total_rate_limit"]
    assert codes(limits(rates, max_rate=1_000_000)) == ["total_rate_limit"]


def test_a_wider_limit_holds_only_where_others_take_of_it() -> None:
    """A job that moves alone has all of it, and is held by its own limit."""
    rates = Rates(total=3_000_000, by_priority={NORMAL: 2_000_000})
    assert codes(limits(rates, max_rate=500_000)) == ["rate_limit"]
    assert codes(limits(rates, [LOW], max_rate=500_000)) == ["rate_limit", "total_rate_limit"]
    assert codes(limits(rates, [NORMAL], max_rate=500_000)) == [
        "rate_limit",
        "priority_rate_limit",
        "total_rate_limit",
    ]


def test_the_tightest_limit_comes_first_and_wider_ones_say_when_they_hold() -> None:
    """That one is what the owner waits for; each has a remedy."""
    own, total = limits(Rates(total=1_000_000), [LOW], max_rate=500_000)
    assert own.text == "it is limited to 500 kB/s by its max_rate"
    assert "--max-rate" in own.remedy
    assert total.text == (
        "beside others it may be less, since all jobs together are limited to 1 MB/s"
    )
    assert total.remedy == "suspend other jobs, or have an admin raise the limit ([bandwidth])"


def test_a_job_that_moves_alone_is_not_told_to_suspend_others() -> None:
    """A remedy is one that works."""
    (total,) = limits(Rates(total=1_000_000))
    assert total.remedy == "have an admin raise the limit ([bandwidth])"


@pytest.mark.parametrize("level", [NORMAL, None])
def test_a_limit_of_the_schedule_says_so_and_until_when(level: Priority | None) -> None:
    """Nobody looks for it in [bandwidth]; it ends by itself."""
    rates = Rates(total=50_000) if level is None else Rates(by_priority={level: 50_000})
    admission = Admission(rates=rates, timed={level: SIX})
    (told,) = limits_of(PLAIN, admission, ())
    assert told.text.endswith("together are limited to 50 kB/s by the schedule")
    assert told.until == SIX
    assert told.remedy.startswith("wait, or ")
    assert "[schedule]" in told.remedy
    assert "[bandwidth]" not in told.remedy


@pytest.mark.parametrize(
    ("rate", "text"),
    [(900, "900 B/s"), (1024, "1 kB/s"), (2_500_000, "2.5 MB/s"), (10**10, "10 GB/s")],
)
def test_a_rate_is_shown_as_people_write_it(rate: int, text: str) -> None:
    """As --max-rate takes it."""
    assert shown_rate(rate) == text


def test_a_job_whose_reads_are_paced_is_told_so_first() -> None:
    """It is slower than the line, and no limit of anybody's explains that."""
    told = limits_of(replace(PLAIN, max_rate=500_000), Admission(), (), paced=True)
    assert [each.code for each in told] == ["paced_reads", "rate_limit"]
