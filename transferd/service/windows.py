"""When and over which links jobs may run: what is so at the moment, and who hears of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from transferd.model.admission import Admission, Rules
from transferd.model.costs import LinkCost
from transferd.model.job import Priority, Seconds
from transferd.model.rates import FREE, Rates
from transferd.model.schedule import Schedule
from transferd.service.ports import Admitted, Clock, RateLimiter

log = logging.getLogger(__name__)

#: Before a schedule is held against the clock again, which may have been set, or have slept.
_LOOK: Seconds = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is configured."""

    schedule: Schedule
    #: Asked at each look: machines travel.
    zone: Callable[[], tzinfo]
    #: What holds at all times.
    caps: Rates = FREE
    rules: Rules = field(default_factory=Rules)


class Windows:
    """Knows who may run now. No timer runs unless the schedule has periods."""

    def __init__(self, policy: Policy, clock: Clock, limiters: Sequence[RateLimiter] = ()) -> None:
        self._policy = policy
        self._clock = clock
        self._limiters = limiters
        self._wake: Callable[[], None] | None = None
        self._opened: Callable[[Collection[Priority]], None] | None = None
        self._reconfigured = asyncio.Event()
        self._admission = Admission()
        self._admitted = self._admission.admitted()
        self._look()

    def report_to(
        self, wake: Callable[[], None], opened: Callable[[Collection[Priority]], None]
    ) -> None:
        """Say who is woken when others may run than before; before run.

        And who hears first for whom the clock has opened a window, on this machine and all others.
        """
        self._wake, self._opened = wake, opened

    @property
    def admission(self) -> Admission:
        """What decides who may run at this moment."""
        return self._admission

    @property
    def admitted(self) -> Admitted:
        """Who may run at this moment."""
        return self._admitted

    def remaining(self, priority: Priority) -> Seconds | None:
        """Return for how long the schedule lets jobs of a priority go; None: as far as it knows."""
        now = self._clock.now()
        closes = self._policy.schedule.closes(priority, now, self._policy.zone())
        return None if closes is None else (closes - now).total_seconds()

    def configure(self, policy: Policy) -> None:
        """Go by another policy from now on."""
        self._policy = policy
        self._look()
        self._reconfigured.set()

    def costs(self, cost: LinkCost) -> None:
        """Take what is known now of the link's cost."""
        self._become(replace(self._admission, link=replace(self._admission.link, cost=cost)))

    def leads_over(self, interfaces: frozenset[str]) -> None:
        """Take over which interfaces the Internet is reached now."""
        link = replace(self._admission.link, interfaces=interfaces)
        self._become(replace(self._admission, link=link))

    async def run(self) -> None:
        """Follow the schedule until cancelled."""
        while True:
            self._reconfigured.clear()
            await self._pause(self._follow())

    def _follow(self) -> Seconds | None:
        """Look, and say for whom there is bandwidth again; returns what `_look` does."""
        closed = [priority for priority in Priority if self._admission.rates.of(priority) == 0]
        enough = self._look()
        opened = [priority for priority in closed if self._admission.rates.of(priority) != 0]
        if opened and self._opened is not None:
            self._opened(opened)
        return enough

    def _look(self) -> Seconds | None:
        """Hold the schedule against the clock; return for how long that is enough."""
        schedule, zone, now = self._policy.schedule, self._policy.zone(), self._clock.now()
        caps = self._policy.caps
        rates = schedule.rates(now, zone).within(caps)
        opens = {
            priority: at
            for priority in Priority
            if rates.of(priority) == 0 and (at := schedule.opens(priority, now, zone)) is not None
        }
        timed = {
            level: schedule.ends(level, now, zone)
            for level in (None, *Priority)
            if rates.at(level) != caps.at(level)
        }
        rules = self._policy.rules
        self._become(replace(self._admission, rules=rules, rates=rates, opens=opens, timed=timed))
        if not schedule.periods:
            return None
        turn = next((at for at, _ in schedule.changes(now, zone)), None)
        return _LOOK if turn is None else min(_LOOK, (turn - now).total_seconds())

    async def _pause(self, delay: Seconds | None) -> None:
        """Wait until the next look, or for another policy."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._reconfigured.wait())]
        if delay is not None:
            waits.append(asyncio.create_task(self._clock.sleep(delay)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _become(self, admission: Admission) -> None:
        before, self._admission = self._admission, admission
        if admission.rates != before.rates:
            self._tell(admission.rates)
        if admission.link != before.link:
            link = admission.link
            fields = {
                "cost": link.cost.name or "UNKNOWN",
                "interfaces": ",".join(sorted(link.interfaces)),
            }
            log.info("network.changed", extra={"fields": fields})
        if admission == before:
            return
        self._admitted = admission.admitted()
        if self._wake is not None:
            self._wake()

    def _tell(self, rates: Rates) -> None:
        own = rates.by_priority
        fields = {
            "total": rates.total,
            "high": own.get(Priority.HIGH),
            "normal": own.get(Priority.NORMAL),
            "low": own.get(Priority.LOW),
        }
        log.info("schedule.changed", extra={"fields": fields})
        for limiter in self._limiters:
            limiter.limit(rates)
