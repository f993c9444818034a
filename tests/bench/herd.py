"""A million machines at one server, second by second, with the product's own retries and breakers.

What the product decides for one job is decided here for arrays of them; `tests/unit/test_herd.py`
holds each against the other. An answer takes no time, a refusal costs the server nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferd.transfer.breaker import BreakerPolicy
from transferd.transfer.retry import RetryPolicy

Times = NDArray[np.float64]
Indices = NDArray[np.int32]
Flags = NDArray[np.bool_]

#: The calendar keeps the seconds of so long apart, and what comes later by such windows.
_WINDOW = 60
_DOUBLINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How machines behave."""

    retry: RetryPolicy
    #: None: no server is ever left alone.
    breaker: BreakerPolicy | None
    #: Background jobs that may start at one moment start within this time.
    start_spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server can do."""

    #: Requests a second; it answers 503 to the others.
    capacity: int
    #: What a 503 says; 0: nothing.
    retry_after: float = 0.0
    #: When it is gone, and when it is back.
    outage: tuple[int, int] = (0, 0)
    #: How long a download takes, which an outage cuts off.
    download: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What became of it, each second."""

    requests: NDArray[np.int64]
    served: NDArray[np.int64]


def delays(
    policy: RetryPolicy, attempts: Indices, retry_after: float, jitter: Times, rest: Times
) -> Times:
    """Return what `RetryPolicy.delay` does for jobs with patience, after a server's failure."""
    growth = np.exp2(np.minimum(attempts, _DOUBLINGS))
    window = np.maximum(policy.first, np.minimum(policy.first * growth, policy.cap))
    least = max(policy.first, retry_after)
    window = np.maximum(window, least * (1 + policy.spread))
    return np.maximum(least + jitter * np.maximum(0.0, window - least), rest)


class Breakers:
    """A `transferd.transfer.breaker.Breaker` for each machine; no trial is ever under way."""

    def __init__(self, policy: BreakerPolicy, machines: int) -> None:
        self._policy = policy
        self._failures = np.zeros(machines, np.int32)
        self._since = np.zeros(machines)
        self._rests = np.zeros(machines, np.int32)
        #: Infinitely long ago: closed.
        self._until = np.full(machines, -np.inf)

    def waits(self, at: Indices, now: float) -> Times:
        """Return how long each of these machines has to wait."""
        return np.maximum(0.0, self._until[at] - now)

    def succeeded(self, at: Indices) -> None:
        """Close them."""
        self._failures[at] = self._rests[at] = 0
        self._until[at] = -np.inf

    def failed(self, at: Indices, now: float, retry_after: float, jitter: Times) -> None:
        """Take a failure at each of these machines, of which none is there twice."""
        policy = self._policy
        until = self._until[at]
        closed, begun_before = np.isneginf(until), until > now
        in_row = (self._failures[at] > 0) & (now - self._since[at] <= policy.window)
        counted = np.where(in_row, self._failures[at] + 1, 1)
        failures = np.where(closed, counted, self._failures[at])
        self._since[at] = np.where(closed & ~in_row, now, self._since[at])
        opens = np.where(closed, failures >= policy.failures, ~begun_before)
        growth = np.exp2(np.minimum(self._rests[at], _DOUBLINGS))
        longest = np.minimum(policy.first * growth, max(policy.cap, policy.first))
        asked = retry_after * (1 + policy.spread * jitter)
        rest = np.maximum(longest * (1 - jitter / 2), asked)
        until = np.where(begun_before & (asked > 0), np.maximum(until, now + asked), until)
        self._until[at] = np.where(opens, now + rest, until)
        self._failures[at] = failures
        self._rests[at] += opens

    def spread(self, waits: Times, jitter: Times) -> Times:
        """Return waits with each job's own part behind them, as the service adds it."""
        policy = self._policy
        return waits + np.minimum(waits, policy.first) * policy.spread * jitter


class Calendar:
    """Which jobs are due in which second."""

    def __init__(self) -> None:
        self._near: list[list[Indices]] = [[] for _ in range(_WINDOW)]
        self._far: dict[int, list[tuple[NDArray[np.int64], Indices]]] = defaultdict(list)
        self._window = -1

    def add(self, at: Times, jobs: Indices) -> None:
        """Note when jobs are due."""
        seconds = at.astype(np.int64)
        near = seconds // _WINDOW == self._window
        self._add_near(seconds[near], jobs[near])
        seconds, jobs = seconds[~near], jobs[~near]
        for window, chosen in _groups(seconds // _WINDOW):
            self._far[window].append((seconds[chosen], jobs[chosen]))

    def _add_near(self, seconds: NDArray[np.int64], jobs: Indices) -> None:
        for second, chosen in _groups(seconds % _WINDOW):
            self._near[second].append(jobs[chosen])

    def take(self, second: int) -> Indices:
        """Return who is due, in turn from the first second to the last."""
        if second // _WINDOW != self._window:
            self._window = second // _WINDOW
            for seconds, jobs in self._far.pop(self._window, []):
                self._add_near(seconds, jobs)
        found, self._near[second % _WINDOW] = self._near[second % _WINDOW], []
        return np.concatenate(found) if found else np.empty(0, np.int32)


def _groups(keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each key with the places where it stands."""
    if not len(keys):
        return
    low = int(keys.min())
    short = (keys - low).astype(np.uint16)
    order = np.argsort(short, kind="stable")
    found, starts = np.unique(short[order], return_index=True)
    for key, places in zip(found, np.split(order, starts[1:]), strict=True):
        yield int(key) + low, places


class Herd:
    """Machines with some jobs each, all at one server."""

    def __init__(
        self, machines: int, jobs_each: int, manners: Manners, server: Server, seed: int
    ) -> None:
        self._jobs_each = jobs_each
        self._manners = manners
        self._server = server
        self._random = np.random.default_rng(seed)
        self._calendar = Calendar()
        self._attempts = np.zeros(machines * jobs_each, np.int32)
        self._served_at = np.full(machines * jobs_each, np.nan)
        policy = manners.breaker
        self._breakers = None if policy is None else Breakers(policy, machines)

    def run(self, starts: Times, horizon: int) -> Story:
        """Start each machine's jobs at its moment, and go on until all are served."""
        self._calendar.add(
            np.repeat(starts, self._jobs_each), np.arange(len(self._attempts), dtype=np.int32)
        )
        requests, served = np.zeros(horizon, np.int64), np.zeros(horizon, np.int64)
        left = len(self._attempts)
        for now in range(horizon):
            if now == self._server.outage[0] < self._server.outage[1]:
                cut = self._cut_off(now)
                left, served[now] = left + cut, served[now] - cut
            for jobs in self._apart(self._calendar.take(now)):
                trying = self._admitted(jobs, now)
                good = self._answer(trying, now, int(served[now]))
                requests[now] += len(trying)
                served[now] += good
                left -= good
            if not left and now >= self._server.outage[1]:
                return Story(requests=requests[: now + 1], served=served[: now + 1])
        return Story(requests=requests, served=served)

    def _apart(self, jobs: Indices) -> Iterator[Indices]:
        """Yield jobs so that no two of a machine come together, in random order."""
        if self._breakers is None or self._jobs_each == 1:
            yield self._random.permutation(jobs)
            return
        place = jobs % self._jobs_each
        for turn in range(self._jobs_each):
            yield self._random.permutation(jobs[place == turn])

    def _admitted(self, jobs: Indices, now: int) -> Indices:
        """Put off those whose breaker is open."""
        if self._breakers is None:
            return jobs
        waits = self._breakers.waits(jobs // self._jobs_each, now)
        rests = waits > 0
        if rests.any():
            spread = self._breakers.spread(waits[rests], self._jitter(int(rests.sum())))
            self._calendar.add(np.maximum(now + spread, now + 1), jobs[rests])
        return jobs[~rests]

    def _answer(self, jobs: Indices, now: int, served: int) -> int:
        """Serve as many as there is room for; returns how many."""
        begin, end = self._server.outage
        room = 0 if begin <= now < end else max(0, self._server.capacity - served)
        good, bad = jobs[:room], jobs[room:]
        if len(good):
            self._served_at[good] = now
            self._attempts[good] = 0
            if self._breakers is not None:
                self._breakers.succeeded(good // self._jobs_each)
        self._fail(bad, now, 0.0 if begin <= now < end else self._server.retry_after)
        return len(good)

    def _cut_off(self, now: int) -> int:
        """Let running downloads fail all at once; returns how many there were."""
        running = now - self._served_at < self._server.download
        jobs = np.flatnonzero(running).astype(np.int32)
        for each in self._apart(jobs):
            self._fail(each, now, 0.0)
        return len(jobs)

    def _fail(self, jobs: Indices, now: int, retry_after: float) -> None:
        if not len(jobs):
            return
        rest = np.zeros(len(jobs))
        if self._breakers is not None:
            at = jobs // self._jobs_each
            self._breakers.failed(at, now, retry_after, self._jitter(len(jobs)))
            rest = self._breakers.spread(self._breakers.waits(at, now), self._jitter(len(jobs)))
        wait = delays(
            self._manners.retry, self._attempts[jobs], retry_after, self._jitter(len(jobs)), rest
        )
        self._attempts[jobs] += 1
        self._calendar.add(now + wait, jobs)

    def _jitter(self, count: int) -> Times:
        return self._random.random(count)
