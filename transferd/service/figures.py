"""What the daemon has counted since it was started. Fits `ports.Meter`.

Plain numbers, so that counting costs nothing where nobody asks; `exposition` writes them down.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from transferd.model.failures import FAILURES
from transferd.model.job import Seconds

_LAG: tuple[Seconds, ...] = (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600, 86400)
_LATENCY: tuple[Seconds, ...] = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

_HTTP_CODE = re.compile(r"http_[1-9]\d\d")
#: Codes may come from a worker, and a label must not have endless values.
_OTHER = "other"


class Histogram:
    """How many of some durations were how long."""

    def __init__(self, bounds: Sequence[Seconds]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total: Seconds = 0.0

    def observe(self, seconds: Seconds) -> None:
        """Count a duration; less than none is none."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    @property
    def buckets(self) -> Iterator[tuple[str, int]]:
        """Upper bounds, and how many durations were not longer; the last is `+Inf`."""
        count = 0
        for bound, here in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            count += here
            yield bound, count


class Figures:
    """Counters and histograms."""

    def __init__(self) -> None:
        self.bytes = 0
        self.errors: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.delivery = Histogram(_LAG)
        self.acknowledgement = Histogram(_LAG)
        self.queries = {operation: Histogram(_LATENCY) for operation in ("commit", "read")}
        self.worker_starts = 0
        self.worker_ends: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.connections = 0

    def moved(self, count: int) -> None:
        """So many more bytes are durable."""
        self.bytes += count

    def failed(self, code: str) -> None:
        """A job is in error."""
        self.errors[_label(code)] += 1

    def stumbled(self, code: str) -> None:
        """A job was interrupted, and is tried again."""
        self.retries[_label(code)] += 1

    def told(self, lag: Seconds) -> None:
        """A terminal notice was first handed to somebody so long after it was made."""
        self.delivery.observe(lag)

    def settled(self, lag: Seconds) -> None:
        """A terminal notice was acknowledged, so long after it was made."""
        self.acknowledgement.observe(lag)

    def queried(self, operation: str, seconds: Seconds) -> None:
        """A `commit` to the queue file or a `read` from it took so long, waiting included."""
        self.queries[operation].observe(seconds)

    def worker_started(self) -> None:
        """A worker process has said hello."""
        self.worker_starts += 1

    def worker_ended(self, status: int | None) -> None:
        """A worker process is gone; None: it would not go."""
        self.worker_ends[_end(status)] += 1

    def answered(self, method: str, route: str, status: int) -> None:
        """A request was answered."""
        self.requests[method, route, status] += 1

    def connected(self, count: int) -> None:
        """So many callers are connected now."""
        self.connections = count


def _label(code: str) -> str:
    return code if code in FAILURES or _HTTP_CODE.fullmatch(code) else _OTHER


def _end(status: int | None) -> str:
    if status is None:
        return "stuck"
    if status < 0:
        return "killed"
    return "failed" if status else "left"
