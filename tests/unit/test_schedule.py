"""Which limits a weekly schedule has in force, and when others are."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferd.model.job import Priority
from transferd.model.rates import FREE, Rates
from transferd.model.schedule import Kind, Period, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
WORK = Rates(by_priority={Priority.NORMAL: 1000, Priority.LOW: 0})
OTHER = Rates(total=50_000)
MAINTENANCE = Rates(total=0)
LIMITS = {Kind.WORK: WORK, Kind.OTHER: OTHER, Kind.MAINTENANCE: MAINTENANCE}
EVERY_DAY = frozenset(range(7))
WORKDAYS = frozenset(range(5))


def period(
    start: str, end: str, days: frozenset[int] = EVERY_DAY, kind: Kind = Kind.WORK
) -> Period:
    """A period by its times."""
    return Period(
        kind=kind, days=days, start=time.fromisoformat(start), end=time.fromisoformat(end)
    )


def weekly(*periods: Period) -> Schedule:
    """A schedule with limits of all kinds."""
    return Schedule(periods=periods, limits=LIMITS)


def at(text: str) -> datetime:
    """A moment by the wall clock in Berlin; 2026-11-30 is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def changes(schedule: Schedule, moment: datetime, count: int) -> list[tuple[str, Rates]]:
    """The next changes, in UTC."""
    found = schedule.changes(moment, BERLIN)
    return [(f"{when.astimezone(UTC):%m-%dT%H:%M}", rates) for when, rates in found][:count]


@pytest.mark.parametrize(
    ("moment", "rates"),
    [
        ("2026-11-30T07:59:59", OTHER),
        ("2026-11-30T08:00", WORK),
        ("2026-12-04T17:59:59", WORK),
        ("2026-12-04T18:00", OTHER),
        ("2026-12-05T12:00", OTHER),
    ],
)
def test_work_has_limits_of_its_own(moment: str, rates: Rates) -> None:
    """BITS B5: work hours and the rest of the week."""
    assert weekly(period("08:00", "18:00", WORKDAYS)).rates(at(moment), BERLIN) == rates


def test_the_end_of_a_limit_is_when_that_one_changes() -> None:
    """Not when another one does; without an end nothing is made up."""
    schedule = weekly(period("08:00", "18:00"), period("12:00", "13:00", kind=Kind.MAINTENANCE))
    noon, evening = at("2026-11-30T12:00"), at("2026-11-30T18:00")
    assert schedule.ends(Priority.LOW, at("2026-11-30T09:00"), BERLIN) == noon
    assert schedule.ends(Priority.LOW, at("2026-11-30T13:00"), BERLIN) == evening
    assert schedule.ends(Priority.HIGH, at("2026-11-30T09:00"), BERLIN) is None
    assert schedule.ends(None, at("2026-11-30T13:00"), BERLIN) == evening
    assert weekly().ends(None, noon, BERLIN) is None


def test_maintenance_goes_before_work_and_the_rest() -> None:
    """BITS B5: EnableMaintenanceLimits overrides both."""
    schedule = weekly(period("08:00", "18:00"), period("17:00", "20:00", kind=Kind.MAINTENANCE))
    hours = ("16:59", "17:00", "18:30", "20:00")
    found = [schedule.rates(at(f"2026-11-30T{hour}"), BERLIN) for hour in hours]
    assert found == [WORK, MAINTENANCE, MAINTENANCE, OTHER]


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    """From Friday evening to Saturday morning is Friday's."""
    schedule = weekly(period("22:00", "06:00", frozenset({4})))
    moments = ("12-04T05:00", "12-04T22:00", "12-05T05:59", "12-05T06:00", "12-05T23:00")
    found = [schedule.rates(at(f"2026-{moment}"), BERLIN) for moment in moments]
    assert found == [OTHER, WORK, WORK, OTHER, OTHER]


def test_a_period_that_ends_when_it_begins_is_a_whole_day() -> None:
    """From midnight to midnight: all of Sunday, and the week turns over without a seam."""
    schedule = weekly(period("00:00", "00:00", frozenset({6})))
    assert changes(schedule, at("2026-12-05T12:00"), 2) == [
        ("12-05T23:00", WORK),
        ("12-06T23:00", OTHER),
    ]


def test_times_are_those_of_the_wall_when_daylight_saving_begins_or_ends() -> None:
    """Eight o'clock stays eight o'clock."""
    schedule = weekly(period("08:00", "18:00"))
    assert changes(schedule, at("2026-03-28T12:00"), 3) == [
        ("03-28T17:00", OTHER),
        ("03-29T06:00", WORK),
        ("03-29T16:00", OTHER),
    ]


def test_a_period_whose_beginning_is_skipped_begins_when_the_clock_is_put_forward() -> None:
    """There is no 02:30 on that day: the wall goes from 02:00 to 03:00."""
    schedule = weekly(period("02:30", "05:00"))
    assert changes(schedule, at("2026-03-29T00:00"), 2) == [
        ("03-29T01:00", WORK),
        ("03-29T03:00", OTHER),
    ]


def test_an_hour_that_comes_twice_has_its_period_twice() -> None:
    """What counts is what the wall clock shows."""
    schedule = weekly(period("02:30", "03:30"))
    assert changes(schedule, at("2026-10-25T00:00"), 4) == [
        ("10-25T00:30", WORK),
        ("10-25T01:00", OTHER),
        ("10-25T01:30", WORK),
        ("10-25T02:30", OTHER),
    ]


def test_limits_without_periods_never_change() -> None:
    """Then nobody has to look again."""
    assert weekly().rates(at("2026-11-30T08:00"), BERLIN) == OTHER
    assert changes(weekly(), at("2026-11-30T08:00"), 1) == []
    assert Schedule().rates(at("2026-11-30T08:00"), BERLIN) == FREE


def test_it_opens_for_a_priority_when_that_has_bandwidth_again() -> None:
    """Not at the next change, where that leaves it as it is."""
    schedule = weekly(period("08:00", "12:00"), period("12:00", "13:00", kind=Kind.MAINTENANCE))
    now = at("2026-11-30T09:00")
    assert schedule.opens(Priority.LOW, now, BERLIN) == at("2026-11-30T13:00")
    always = Schedule(periods=schedule.periods, limits=dict.fromkeys(Kind, MAINTENANCE))
    assert always.opens(Priority.LOW, now, BERLIN) is None


_TIMES = st.builds(time, st.integers(0, 23), st.sampled_from((0, 30)))
_PERIODS = st.lists(
    st.builds(
        Period,
        kind=st.sampled_from((Kind.WORK, Kind.MAINTENANCE)),
        days=st.frozensets(st.integers(0, 6), min_size=1),
        start=_TIMES,
        end=_TIMES,
    ),
    max_size=3,
)
#: Around both shifts of a year.
_MOMENTS = st.sampled_from((datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)))


@settings(max_examples=40, deadline=None)
@given(_PERIODS, _MOMENTS, st.integers(0, 4 * 24 * 4))
def test_no_change_is_missed_and_none_is_made_up(
    periods: list[Period], begin: datetime, quarters: int
) -> None:
    """Whoever looks every quarter of an hour sees what was foretold, and nothing else."""
    schedule, step = weekly(*periods), timedelta(minutes=15)
    moment = begin + step * quarters
    foretold = dict(schedule.changes(moment, BERLIN))
    now = schedule.rates(moment, BERLIN)
    for number in range(1, 7 * 24 * 4):
        later = moment + step * number
        now = foretold.get(later, now)
        assert schedule.rates(later, BERLIN) == now
