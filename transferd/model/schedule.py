"""The weekly schedule: how much of the line transfers may take, and when that changes.

Periods are meant by the clock on the wall, so that 08:00 stays 08:00 when daylight saving begins or
ends. Nothing is remembered from one question to the next: a clock that is set is simply read again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo

from transferd.model.job import Priority
from transferd.model.rates import FREE, Rates

_DAY, _HOUR, _SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
#: Every period begins and ends within a week of any moment.
_AHEAD = timedelta(days=8)


class Kind(enum.StrEnum):
    """Which limits are in force (BITS.md B5)."""

    WORK = "work"
    #: Whenever no period is.
    OTHER = "other"
    #: Goes before both.
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Time that comes again each week."""

    kind: Kind
    #: On which it begins; 0 is Monday.
    days: frozenset[int]
    start: time
    #: On the next day where it is not later than *start*.
    end: time

    def covers(self, local: datetime) -> bool:
        """Tell whether a wall clock shows a time of the period."""
        day, now = local.weekday(), local.time()
        if self.start < self.end:
            return day in self.days and self.start <= now < self.end
        before = (day - 1) % 7
        return (day in self.days and now >= self.start) or (before in self.days and now < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Periods, and the limits of each kind; a kind that has none is not limited."""

    periods: tuple[Period, ...] = ()
    limits: Mapping[Kind, Rates] = field(default_factory=dict)

    def rates(self, moment: datetime, zone: tzinfo) -> Rates:
        """Return what is in force at a moment where the wall clocks are those of *zone*."""
        local = moment.astimezone(zone)
        kinds = {period.kind for period in self.periods if period.covers(local)}
        for kind in (Kind.MAINTENANCE, Kind.WORK):
            if kind in kinds:
                return self.limits.get(kind, FREE)
        return self.limits.get(Kind.OTHER, FREE)

    def changes(self, moment: datetime, zone: tzinfo) -> Iterator[tuple[datetime, Rates]]:
        """Yield when other rates come into force in the week after a moment, and which."""
        before = self.rates(moment, zone)
        for at in self._turns(moment, zone):
            after = self.rates(at, zone)
            if after != before:
                yield at, after
            before = after

    def opens(self, priority: Priority, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return when there is bandwidth for a priority the next time."""
        for at, rates in self.changes(moment, zone):
            if rates.of(priority) != 0:
                return at
        return None

    def closes(self, priority: Priority, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return when a priority is left without any bandwidth the next time."""
        changes = self.changes(moment, zone)
        return next((at for at, rates in changes if rates.of(priority) == 0), None)

    def ends(self, level: Priority | None, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return when the limit of a priority, or of all jobs (None), becomes another."""
        now = self.rates(moment, zone).at(level)
        changes = self.changes(moment, zone)
        return next((at for at, rates in changes if rates.at(level) != now), None)

    def _turns(self, moment: datetime, zone: tzinfo) -> list[datetime]:
        """Return the moments in the week to come at which a period may begin or end, in order."""
        if not self.periods:
            return []
        times = {each for period in self.periods for each in (period.start, period.end)}
        first = moment.astimezone(zone).date() - _DAY
        days = [first + _DAY * number for number in range(_AHEAD.days + 2)]
        # An hour that comes twice has each of its times twice.
        turns = {
            datetime.combine(day, at, zone).replace(fold=fold).astimezone(UTC)
            for day in days
            for at in times
            for fold in (0, 1)
        }
        turns.update(_shifts(moment.astimezone(UTC), zone))
        return sorted(turn for turn in turns if moment < turn <= moment + _AHEAD)


def _shifts(moment: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Yield when the wall clocks of *zone* are put forward or back in the week after a moment."""
    early = moment
    while early < moment + _AHEAD:
        late = early + _HOUR
        if _offset(early, zone) != _offset(late, zone):
            yield _shift(early, late, zone)
        early = late


def _shift(early: datetime, late: datetime, zone: tzinfo) -> datetime:
    """Find by halves when it is, between two moments."""
    while late - early > _SECOND:
        middle = early + (late - early) / 2
        if _offset(middle, zone) == _offset(early, zone):
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
