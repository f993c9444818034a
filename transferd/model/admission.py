"""Who may run now: the schedule, the link's cost and its interfaces, as one pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from transferd.model.costs import DEFAULT_COSTS, UNKNOWN, LinkCost, goes_over, narrowest
from transferd.model.job import Blocker, Cost, Priority
from transferd.model.queue import Admitted
from transferd.model.rates import FREE, Rates

_BLOCKED, _ALLOWED = "network.blocked_interfaces", "network.allowed_interfaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is configured of links."""

    #: What DEFAULT means for a job of a priority.
    costs: Mapping[Priority, Cost] = field(default_factory=lambda: DEFAULT_COSTS)
    #: Names of interfaces as shell patterns: background jobs use none of these…
    blocked: tuple[str, ...] = ()
    #: …and, if there are any, no others than these.
    allowed: tuple[str, ...] = ()

    def cost(self, priority: Priority, cost: Cost) -> Cost:
        """Return what a job's cost means; never DEFAULT."""
        return self.costs[priority] if cost is Cost.DEFAULT else cost

    def barred(self, interface: str) -> str | None:
        """Return the key that keeps background jobs away from an interface; None: none does."""
        if any(fnmatchcase(interface, pattern) for pattern in self.blocked):
            return _BLOCKED
        if self.allowed and not any(fnmatchcase(interface, each) for each in self.allowed):
            return _ALLOWED
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How the machine is connected."""

    cost: LinkCost = UNKNOWN
    #: Over which the Internet is reached, by each family of addresses.
    interfaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """All that decides whether a job may run, at one moment."""

    rules: Rules = field(default_factory=Rules)
    link: Link = field(default_factory=Link)
    rates: Rates = FREE
    #: When jobs of priorities without any bandwidth get some again, as far as that is known.
    opens: Mapping[Priority, datetime] = field(default_factory=dict)
    #: Those of *rates* that are the schedule's, and until when, as far as that is known; those of
    #: priorities, and under None that of all jobs.
    timed: Mapping[Priority | None, datetime | None] = field(default_factory=dict)

    def may_run(self, priority: Priority, cost: Cost) -> Blocker | None:
        """Return what keeps such jobs from running; None when nothing does."""
        if self.rates.of(priority) == 0:
            return self._closed(priority)
        if priority is not Priority.FOREGROUND:
            for interface in sorted(self.link.interfaces):
                if (key := self.rules.barred(interface)) is not None:
                    return _interface_blocked(interface, key)
        meant = self.rules.cost(priority, cost)
        return None if goes_over(meant, self.link.cost) else self._metered(meant)

    def admitted(self) -> Admitted:
        """Return who may run."""
        return {
            priority: frozenset(cost for cost in Cost if self.may_run(priority, cost) is None)
            for priority in Priority
        }

    def _closed(self, priority: Priority) -> Blocker:
        front = self.rates.total != 0  # foreground jobs have no limit but this one (BITS.md B4)
        return Blocker(
            code="schedule_closed",
            text=f"the schedule leaves no bandwidth to {priority.label} jobs now",
            until=self.opens.get(priority),
            remedy="wait, or make it a foreground job" if front else "wait, or change the schedule",
        )

    def _metered(self, meant: Cost) -> Blocker:
        cost = narrowest(self.link.cost).label
        return Blocker(
            code="metered",
            text=f"the connection is metered, and the job's cost is {meant.label}",
            remedy=f"connect to another network, or set its cost to {cost}",
        )


def _interface_blocked(interface: str, key: str) -> Blocker:
    how = "is one of" if key == _BLOCKED else "is none of"
    return Blocker(
        code="interface_blocked",
        text=(
            f"the network is reached over {interface}, and background jobs wait since that"
            f" {how} {key}"
        ),
        remedy=f"use another network, make it a foreground job, or have an admin change {key}",
    )
