"""What is counted, and how Prometheus reads it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from transferd import __version__
from transferd.model.states import JobState
from transferd.service.exposition import render
from transferd.service.figures import Figures, Histogram


def told(figures: Figures, jobs: dict[JobState, int] | None = None) -> dict[str, Metric]:
    """Read back what is told, by name."""
    text = render(figures, jobs or {}, 2).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """The samples of a family by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for sample in family.samples
        if sample.name == family.name + suffix
    }


@pytest.fixture
def busy() -> Figures:
    """Figures of which each was counted once."""
    figures = Figures()
    figures.moved(1000)
    figures.failed("http_404")
    figures.stumbled("connection_refused")
    figures.told(0.2)
    figures.settled(40.0)
    figures.queried("commit", 0.002)
    figures.queried("read", 0.0001)
    figures.worker_started()
    figures.worker_ended(-9)
    figures.answered("GET", "/v1/jobs/{id}", 200)
    figures.connected(3)
    return figures


def test_everything_that_was_counted_is_told(busy: Figures) -> None:
    """Rule: jobs, bytes, errors, retries, lag, latency, workers, callers, build and process."""
    families = told(busy, {JobState.QUEUED: 5})
    assert values(families["transferd_jobs"])[("queued",)] == 5
    assert values(families["transferd_jobs"])[("error",)] == 0
    assert values(families["transferd_transferred_bytes"], "_total") == {(): 1000}
    assert values(families["transferd_job_errors"], "_total") == {("http_404",): 1}
    assert values(families["transferd_job_retries"], "_total") == {("connection_refused",): 1}
    assert values(families["transferd_notice_delivery_seconds"], "_count") == {(): 1}
    assert values(families["transferd_notice_acknowledgement_seconds"], "_sum") == {(): 40}
    assert values(families["transferd_store_seconds"], "_count") == {("commit",): 1, ("read",): 1}
    assert values(families["transferd_workers"]) == {(): 2}
    assert values(families["transferd_worker_starts"], "_total") == {(): 1}
    assert values(families["transferd_worker_ends"], "_total") == {("killed",): 1}
    assert values(families["transferd_connections"]) == {(): 3}
    assert values(families["transferd_requests"], "_total") == {("GET", "/v1/jobs/{id}", "200"): 1}
    (build,) = families["transferd_build_info"].samples
    assert build.labels["version"] == __version__
    for name in ("process_start_time_seconds", "process_resident_memory_bytes"):
        assert families[name].samples[0].value > 0


def test_names_and_texts_are_as_prometheus_wants_them(busy: Figures) -> None:
    """Rule: what promtool looks at: help, a type, base units, counters that end in _total."""
    for name, family in told(busy).items():
        assert re.fullmatch(r"(transferd|process)_[a-z_]+", name)
        assert family.documentation.strip(), name
        assert family.type in {"counter", "gauge", "histogram"}, name
        assert not name.endswith("_total")
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "counter":
            assert {s.name.removeprefix(name) for s in family.samples} <= {"_total", "_created"}


def test_no_label_tells_users_or_jobs_apart(busy: Figures) -> None:
    """Rule: labels have few values, since each makes a series that is kept for months."""
    labels = {
        label
        for family in told(busy).values()
        for sample in family.samples
        for label in sample.labels
    }
    assert labels == {
        *("state", "code", "how", "operation", "le"),
        *("method", "route", "status", "version", "python"),
    }


@given(st.lists(st.text(), max_size=20))
def test_what_a_worker_calls_a_failure_makes_no_series(codes: list[str]) -> None:
    """Rule: codes come over the link; unknown ones are counted together."""
    figures = Figures()
    for code in codes:
        figures.failed(f"?{code}")
        figures.stumbled(f"?{code}")
    assert set(figures.errors) | set(figures.retries) <= {"other"}


@given(st.lists(st.floats(-10, 1e6), max_size=50))
def test_a_histogram_counts_everything_once(durations: list[float]) -> None:
    """Rule: buckets are cumulative, the last holds all, and a clock that was set back adds none."""
    histogram = Histogram((0.1, 1, 10))
    for seconds in durations:
        histogram.observe(seconds)
    assert list(histogram.buckets) == [
        *((str(b), sum(seconds <= b for seconds in durations)) for b in (0.1, 1, 10)),
        ("+Inf", len(durations)),
    ]
    assert histogram.total == pytest.approx(sum(max(0, seconds) for seconds in durations))


@pytest.mark.parametrize(
    ("status", "how"), [(0, "left"), (1, "failed"), (-15, "killed"), (None, "stuck")]
)
def test_the_end_of_a_worker_says_how(status: int | None, how: str) -> None:
    """Rule: a worker that leaves is no worker that dies."""
    figures = Figures()
    figures.worker_ended(status)
    assert dict(figures.worker_ends) == {how: 1}
