"""Which limits hold a job that moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from transferd.model.job import Priority, Settings, Timers
from transferd.model.rates import FREE, Rates
from transferd.service.throttles import limits_of, shown_rate

PLAIN = Settings(
    name="a", timers=Timers(min_retry_delay=1, no_progress_timeout=0, max_download_time=0)
)


def test_a_job_without_limits_has_none() -> None:
    """Nor do those of other priorities hold for it, nor one that is 0: then nothing runs."""
    assert limits_of(PLAIN, FREE) == ()
    assert limits_of(PLAIN, Rates(total=0, by_priority={Priority.LOW: 5})) == ()


def test_every_limit_is_told_with_its_remedy_the_tightest_first() -> None:
    """That one is what the owner waits for."""
    rates = Rates(total=300_000, by_priority={Priority.NORMAL: 2_000_000})
    told = limits_of(replace(PLAIN, max_rate=500_000), rates)
    assert [each.code for each in told] == [
        "total_rate_limit",
        "rate_limit",
        "priority_rate_limit",
    ]
    assert told[1].text == "it is limited to 500 kB/s by its max_rate"
    assert "--max-rate" in told[1].remedy
    assert all(each.remedy for each in told)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(900, "900 B/s"), (1024, "1 kB/s"), (2_500_000, "2.5 MB/s"), (10**10, "10 GB/s")],
)
def test_a_rate_is_shown_as_people_write_it(rate: int, text: str) -> None:
    """As --max-rate takes it."""
    assert shown_rate(rate) == text


def test_a_job_whose_reads_are_paced_is_told_so_first() -> None:
    """It is slower than the line, and no limit of anybody's explains that."""
    told = limits_of(replace(PLAIN, max_rate=500_000), FREE, paced=True)
    assert [each.code for each in told] == ["paced_reads", "rate_limit"]
