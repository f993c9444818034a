"""Figures in Prometheus' text format (version 0.0.4). Import it when somebody asks, not before.

Nothing is labelled by user, job or host: each value of a label is a time series that whoever
collects keeps for months, and users and jobs come without end. `transferctl admin status` tells of
users, the journal of jobs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from transferd import __version__
from transferd.model.states import JobState
from transferd.service.figures import Figures, Histogram


def render(figures: Figures, jobs: Mapping[JobState, int], workers: int) -> bytes:
    """Write all figures, and those of the process."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(figures, jobs, workers))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Snapshot(Collector):
    """The figures as they are now."""

    def __init__(self, figures: Figures, jobs: Mapping[JobState, int], workers: int) -> None:
        self._figures = figures
        self._jobs = jobs
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        yield InfoMetricFamily(
            "transferd_build",
            "The daemon.",
            {"version": __version__, "python": platform.python_version()},
        )
        yield from self._of_jobs()
        yield from self._of_notices()
        yield from self._of_workers()
        yield from self._of_callers()
        database = HistogramMetricFamily(
            "transferd_store_seconds",
            "How long operations on the queue file took, waiting included.",
            labels=["operation"],
        )
        for operation, histogram in self._figures.queries.items():
            database.add_metric([operation], list(histogram.buckets), histogram.total)
        yield database

    def _of_jobs(self) -> Iterator[Metric]:
        figures = self._figures
        jobs = GaugeMetricFamily("transferd_jobs", "Jobs in the queue.", labels=["state"])
        for state in JobState:
            if not state.final:
                jobs.add_metric([state.label], self._jobs.get(state, 0))
        yield jobs
        yield CounterMetricFamily(
            "transferd_transferred_bytes", "Bytes that have become durable.", figures.bytes
        )
        yield _by_label(
            "transferd_job_errors", "Jobs that went into error.", "code", figures.errors
        )
        yield _by_label(
            "transferd_job_retries", "Interruptions that time may heal.", "code", figures.retries
        )

    def _of_notices(self) -> Iterator[Metric]:
        figures = self._figures
        yield _durations(
            "transferd_notice_delivery_seconds",
            "From a terminal notice to its first delivery.",
            figures.delivery,
        )
        yield _durations(
            "transferd_notice_acknowledgement_seconds",
            "From a terminal notice to its acknowledgement.",
            figures.acknowledgement,
        )

    def _of_workers(self) -> Iterator[Metric]:
        figures = self._figures
        yield GaugeMetricFamily("transferd_workers", "Worker processes.", self._workers)
        yield CounterMetricFamily(
            "transferd_worker_starts", "Worker processes that were started.", figures.worker_starts
        )
        yield _by_label(
            "transferd_worker_ends", "Worker processes that ended.", "how", figures.worker_ends
        )

    def _of_callers(self) -> Iterator[Metric]:
        figures = self._figures
        yield GaugeMetricFamily(
            "transferd_connections", "Callers that are connected.", figures.connections
        )
        requests = CounterMetricFamily(
            "transferd_requests", "Answered requests.", labels=["method", "route", "status"]
        )
        for (method, route, status), count in figures.requests.items():
            requests.add_metric([method, route, str(status)], count)
        yield requests


def _by_label(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _durations(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(
        name, text, buckets=list(histogram.buckets), sum_value=histogram.total
    )
