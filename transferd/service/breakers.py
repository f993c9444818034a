"""Servers that are left alone: a circuit breaker for each owner and origin, in memory only.

One owner's failures say nothing to another's jobs: whoever could make a server seem dead (by a lie
of his worker, or a port that he listens on himself) would hold up everybody else's downloads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from transferd.model.failures import Failure
from transferd.model.job import Job, Priority, Seconds
from transferd.model.origins import Origin
from transferd.service.ports import Clock
from transferd.service.run import Run
from transferd.transfer.breaker import Breaker, BreakerPolicy, blames_server

log = logging.getLogger(__name__)

#: Servers in distress that are remembered for each owner; the one that failed last is the last to
#: be forgotten.
_MOST = 128


@dataclass(frozen=True, slots=True)
class Rest:
    """A server is left alone."""

    seconds: Seconds
    failure: Failure


@dataclass(frozen=True, slots=True)
class _Distress:
    """A server that has failed: how often in a row, and by which code last."""

    breaker: Breaker
    failures: int
    code: str
    #: It is left alone on this network only: it asked for more than anybody waits by himself.
    here: bool = False


class Breakers:
    """The breakers of all owners. Servers without a failure have none; without a policy, nobody."""

    def __init__(
        self, clock: Clock, jitter: Callable[[], float], policy: BreakerPolicy | None
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._policy = policy
        self._known: dict[int, dict[Origin, _Distress]] = {}

    def configure(self, policy: BreakerPolicy | None) -> None:
        """Behave otherwise from the next event on; who rests, rests on, if anybody may."""
        self._policy = policy
        if policy is None:
            self._known.clear()

    def admit(self, run: Run, job: Job) -> Rest | None:
        """Let a run begin, or say how long its next file's server is left alone.

        A job that its owner has resumed since it failed last is let through once, and so is a new
        one in the foreground: somebody waits for it.
        """
        place = run.origin_of(None)
        known, policy = self._known.get(run.claim.owner, {}).get(place), self._policy
        if known is None or policy is None:
            return None
        now = self._clock.steady()
        wait = known.breaker.wait(now, policy)
        if wait > 0 and not _urged(job):
            spread = min(wait, policy.first) * policy.spread * self._jitter()
            return Rest(wait + spread, _resting(place, known))
        self._keep(run, place, replace(known, breaker=known.breaker.begun(run.number, now)))
        return None

    def failed(
        self, run: Run, failure: Failure, retry_after: Seconds, *, here: bool = False
    ) -> Seconds:
        """Take how a run has failed; returns for how long its server is left alone from now on.

        What it has asked for may hold *here* alone, on this network.
        """
        verdict, policy = blames_server(failure), self._policy
        if verdict is None or policy is None:
            return 0.0
        place = run.origin_of(run.file_at(failure.file))
        if not verdict:
            self._forget(run, place)
            return 0.0
        now = self._clock.steady()
        before = self._known.get(run.claim.owner, {}).get(place)
        breaker = (before.breaker if before else Breaker()).failed(
            run.number, now, policy, retry_after=retry_after, jitter=self._jitter()
        )
        # A breaker counts until it opens, and begins anew where the last failure is long ago.
        opened = before is not None and before.breaker.until is not None
        failures = before.failures + 1 if before and opened else breaker.failures
        here = here or (before is not None and before.here and before.breaker.wait(now, policy) > 0)
        self._keep(run, place, _Distress(breaker, failures, failure.code, here))
        if breaker.rests > (before.breaker.rests if before else 0):
            fields = {
                "owner": run.claim.owner,
                "server": str(place),
                "code": failure.code,
                "seconds": round((breaker.until or now) - now, 1),
            }
            log.info("server.resting", extra={"fields": fields})
        wait = breaker.wait(now, policy)
        return wait + min(wait, policy.first) * policy.spread * self._jitter()

    def moved(self, run: Run, file: int) -> None:
        """Take that bytes of a file have come: its server is there."""
        if run.claim.owner in self._known and (found := run.file_numbered(file)):
            self._forget(run, run.origin_of(found))

    def ended(self, run: Run) -> None:
        """Take that a run is over, whatever was learnt by it."""
        known = self._known.get(run.claim.owner, {})
        for place, each in known.items():
            if each.breaker.trial == run.number:
                known[place] = replace(each, breaker=each.breaker.ended(run.number))

    def network_back(self) -> None:
        """Forget servers that did not answer, or in whose place another may have answered."""
        for owner, known in tuple(self._known.items()):
            kept = {
                at: each
                for at, each in known.items()
                if each.code.startswith("http_") and not each.here
            }
            self._known[owner] = kept
            if not kept:
                del self._known[owner]

    def _keep(self, run: Run, place: Origin, distress: _Distress) -> None:
        known = self._known.setdefault(run.claim.owner, {})
        known.pop(place, None)
        known[place] = distress
        while len(known) > _MOST:
            del known[next(iter(known))]

    def _forget(self, run: Run, place: Origin) -> None:
        known = self._known.get(run.claim.owner, {})
        if known.pop(place, None) is not None and not known:
            del self._known[run.claim.owner]


def _urged(job: Job) -> bool:
    # A resume takes the delay of the last failure away, and leaves the failure.
    fresh = job.retry_delay <= 0
    return fresh and (job.error is not None or job.settings.priority is Priority.FOREGROUND)


def _resting(place: Origin, known: _Distress) -> Failure:
    return Failure(
        code="server_resting",
        message=(
            f"left alone for a while: {place} failed {known.failures} times in a row"
            f" (last: {known.code})"
        ),
    )
