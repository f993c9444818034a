"""Figures for Prometheus, collected when somebody asks. Import it then, not before."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from transferd import __version__
from transferd.model.states import JobState


def render(
    jobs: Mapping[JobState, int], workers: int, requests: Mapping[tuple[str, str, int], int]
) -> bytes:
    """Write the text format (version 0.0.4); requests are counted by method, route and status."""
    registry = CollectorRegistry()
    registry.register(_Figures(jobs, workers, requests))
    return generate_latest(registry)


class _Figures(Collector):
    """Figures that are at hand."""

    def __init__(
        self,
        jobs: Mapping[JobState, int],
        workers: int,
        requests: Mapping[tuple[str, str, int], int],
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        yield InfoMetricFamily(
            "transferd_build",
            "The daemon.",
            {"version": __version__, "python": platform.python_version()},
        )
        jobs = GaugeMetricFamily("transferd_jobs", "Jobs in the queue.", labels=["state"])
        for state in JobState:
            if not state.final:
                jobs.add_metric([state.label], self._jobs.get(state, 0))
        yield jobs
        yield GaugeMetricFamily("transferd_workers", "Worker processes.", self._workers)
        requests = CounterMetricFamily(
            "transferd_requests", "Answered requests.", labels=["method", "route", "status"]
        )
        for (method, route, status), count in self._requests.items():
            requests.add_metric([method, route, str(status)], count)
        yield requests
