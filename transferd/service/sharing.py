"""Shares out between workers what all of them together may take of the line.

A worker holds its own jobs to its share. Whoever takes less than that leaves the rest to others:
how much each takes is known from what it reports anyway, so that no timer runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from transferd.model.job import Priority, Seconds
from transferd.model.rates import FREE, Rates
from transferd.service.ports import Clock
from transferd.service.run import Run
from transferd.service.worker import Worker
from transferd.transfer.allotment import Throughput, allot, demand
from transferd.wire import link


@dataclass(slots=True, eq=False)
class _Member:
    """A worker with runs."""

    worker: Worker
    runs: set[Run] = field(default_factory=set)
    #: How much its jobs move, by their priority.
    moves: dict[Priority, Throughput] = field(default_factory=dict)
    #: Its shares so far; None: of the total.
    shares: dict[Priority | None, float] = field(default_factory=dict)

    @property
    def levels(self) -> set[Priority]:
        """The priorities of its runs."""
        return {run.claim.priority for run in self.runs}

    def has(self, priority: Priority | None) -> bool:
        """Whether a limit concerns it."""
        return priority is None or priority in self.levels

    def used(self, priority: Priority | None, now: Seconds) -> float | None:
        """Return how much it moves of late; None: nobody knows yet."""
        levels = self.levels if priority is None else {priority}
        rates = [self.moves[level].rate(now) for level in levels]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if len(known) == len(rates) else None

    @property
    def flows(self) -> int:
        """How many background flows it has at most."""
        return sum(run.flows for run in self.runs if run.claim.priority is not Priority.FOREGROUND)


class Sharing:
    """Knows all runs, and tells each worker what holds for its own."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._members: dict[Worker, _Member] = {}

    def limit(self, rates: Rates) -> None:
        """Let other limits hold, at once; where one is 0, what runs stands still until it ends."""
        if rates != self._rates:
            self._rates = rates
            for member in self._members.values():
                member.shares.clear()
            self._tell()

    def begin(self, run: Run) -> None:
        """Take that a worker is about to be given a run."""
        if run.worker is not None:
            member = self._members.setdefault(run.worker, _Member(run.worker))
            member.runs.add(run)
            self._watch(member, run)
            self._tell()

    def changed(self, run: Run) -> None:
        """Take that a run has another priority."""
        member = self._member(run)
        if member is not None:
            self._watch(member, run)
            self._tell()

    def end(self, run: Run) -> None:
        """Take that a run is over."""
        member = self._member(run)
        if member is not None:
            member.runs.discard(run)
            if not member.runs:
                del self._members[member.worker]
            self._tell()

    def moved(self, run: Run, count: int) -> None:
        """Take that *count* bytes more of a run are here."""
        member = self._member(run)
        if member is None:
            return
        news = member.moves[run.claim.priority].count(count, self._clock.steady())
        if news and self._contested:
            self._tell()

    def _watch(self, member: _Member, run: Run) -> None:
        if run.claim.priority not in member.moves:
            member.moves[run.claim.priority] = Throughput(self._clock.steady())

    def _member(self, run: Run) -> _Member | None:
        member = self._members.get(run.worker) if run.worker is not None else None
        return member if member is not None and run in member.runs else None

    @property
    def _limits(self) -> Iterable[tuple[Priority | None, int]]:
        for priority in (None, *Priority):
            rate = self._rates.at(priority)
            if rate is not None:
                yield priority, rate

    @property
    def _contested(self) -> bool:
        """Whether there is something to be shared between several."""
        return len(self._members) > 1 and any(self._limits)

    def _tell(self) -> None:
        """Tell every worker for which something is new."""
        for priority, rate in self._limits:
            self._share(priority, rate)
        flows = sum(member.flows for member in self._members.values())
        for worker, member in self._members.items():
            terms = link.Terms(self._rates_of(member), flows - member.flows)
            if terms != worker.terms:
                worker.terms = terms
                worker.channel.post(terms)

    def _share(self, priority: Priority | None, rate: int) -> None:
        concerned = [member for member in self._members.values() if member.has(priority)]
        if not concerned:
            return
        now, fair = self._clock.steady(), rate / len(concerned)
        demands = {
            id(member): demand(member.used(priority, now), member.shares.get(priority), fair)
            for member in concerned
        }
        shares = allot(rate, demands)
        for member in self._members.values():
            member.shares.pop(priority, None)
        for member in concerned:
            member.shares[priority] = shares[id(member)]

    def _rates_of(self, member: _Member) -> Rates:
        if not member.shares:
            return FREE
        # Not 0, which limits nothing.
        told = {key: max(1, int(share)) for key, share in member.shares.items()}
        return Rates(
            total=told.get(None),
            by_priority={key: share for key, share in told.items() if key is not None},
        )
