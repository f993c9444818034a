"""How much of the line transfers may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transferd.model.job import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bytes in a second, of all owners together; None: no limit, 0: nothing at all."""

    #: Of all jobs.
    total: int | None = None
    #: Of the jobs of a priority; one that is not there has no limit of its own (BITS.md B5).
    by_priority: Mapping[Priority, int | None] = field(default_factory=dict)

    def at(self, level: Priority | None) -> int | None:
        """Return the one limit of a priority's jobs, or, with None, of all jobs."""
        return self.total if level is None else self.by_priority.get(level)

    def of(self, priority: Priority) -> int | None:
        """Return the tightest limit that holds for jobs of *priority*."""
        own = self.by_priority.get(priority)
        return _least(self.total, own)

    def within(self, others: Rates) -> Rates:
        """Return what holds where both hold."""
        priorities = {*self.by_priority, *others.by_priority}
        return Rates(
            total=_least(self.total, others.total),
            by_priority={
                each: _least(self.by_priority.get(each), others.by_priority.get(each))
                for each in priorities
            },
        )


def _least(*rates: int | None) -> int | None:
    return min((rate for rate in rates if rate is not None), default=None)


#: Nothing is limited.
FREE = Rates()
