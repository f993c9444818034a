"""Who may run now, and what is said to those who may not."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from transferd.model.admission import Admission, Link, Rules
from transferd.model.costs import NETWORK_MANAGER, UNKNOWN, LinkCost, goes_over, narrowest
from transferd.model.job import Blocker, Cost, Priority
from transferd.model.rates import Rates

NAMED = [cost for cost in Cost if cost is not Cost.DEFAULT]
BACKGROUND = [each for each in Priority if each is not Priority.FOREGROUND]
METERED = Link(cost=NETWORK_MANAGER[1])
OPENS = datetime(2026, 11, 30, 17, tzinfo=UTC)


def code(
    admission: Admission, priority: Priority = Priority.NORMAL, cost: Cost = Cost.DEFAULT
) -> str | None:
    """Why such a job may not run."""
    blocker = admission.may_run(priority, cost)
    return None if blocker is None else blocker.code


def admitted(link: LinkCost) -> list[Cost]:
    """Which jobs go over a link, by their cost."""
    return [cost for cost in NAMED if goes_over(cost, link)]


def test_each_set_of_costs_has_all_links_of_the_one_before() -> None:
    """BITS B7: whoever may go anywhere may go everywhere."""
    links = [LinkCost(bits) for bits in range(0x100)]
    for less, more in pairwise(NAMED):
        reach = [link for link in links if goes_over(less, link)]
        assert all(goes_over(more, link) for link in reach)
        assert sum(goes_over(more, link) for link in links) > len(reach)


@pytest.mark.parametrize(
    ("link", "first"),
    [
        (UNKNOWN, Cost.UNRESTRICTED),
        (LinkCost.UNRESTRICTED, Cost.UNRESTRICTED),
        (LinkCost.OVER_CAP_THROTTLED, Cost.UNRESTRICTED),
        (LinkCost.USAGE_BASED, Cost.STANDARD),
        (LinkCost.CAPPED_UNKNOWN, Cost.STANDARD),
        (LinkCost.NEAR_CAP, Cost.NO_SURCHARGE),
        (LinkCost.OVER_CAP_CHARGED, Cost.NOT_ROAMING),
        (LinkCost.ROAMING | LinkCost.BELOW_CAP, Cost.ALWAYS),
    ],
)
def test_links_are_in_the_sets_that_bits_names(link: LinkCost, first: Cost) -> None:
    """BITS B6, B7: the values of BITS_COST_STATE and BITS_COST_OPTION."""
    assert admitted(link)[0] is narrowest(link) is first


def test_a_guess_counts_as_much_as_what_was_set() -> None:
    """BITS B8: NetworkManager guesses by the phone at the other end of a tether."""
    assert NETWORK_MANAGER[1] == NETWORK_MANAGER[3]
    assert admitted(NETWORK_MANAGER[3]) == [Cost.NO_SURCHARGE, Cost.NOT_ROAMING, Cost.ALWAYS]
    for other in (0, 2, 4):
        assert admitted(NETWORK_MANAGER[other]) == NAMED


def test_background_jobs_wait_on_a_metered_link_and_foreground_jobs_do_not() -> None:
    """What a person waits for goes on; what nobody waits for costs nobody."""
    admission = Admission(link=METERED)
    assert code(admission, Priority.FOREGROUND) is None
    assert {code(admission, priority) for priority in BACKGROUND} == {"metered"}
    assert code(Admission()) is None


@pytest.mark.parametrize("priority", Priority)
def test_what_a_job_says_itself_goes_before_the_configuration(priority: Priority) -> None:
    """BITS B8: a policy sets defaults, and does not beat an explicit setting."""
    for default in NAMED:
        admission = Admission(rules=Rules(costs=dict.fromkeys(Priority, default)), link=METERED)
        assert code(admission, priority, Cost.ALWAYS) is None
        assert code(admission, priority, Cost.UNRESTRICTED) == "metered"
        assert (code(admission, priority) is None) == goes_over(default, METERED.cost)


@pytest.mark.parametrize(
    ("rules", "interfaces", "blocked"),
    [
        (Rules(blocked=("wg*", "tun*")), {"wg0"}, True),
        (Rules(blocked=("wg*", "tun*")), {"eth0", "tun1"}, True),
        (Rules(blocked=("wg*", "tun*")), {"eth0"}, False),
        (Rules(blocked=("wg*",)), set(), False),
        (Rules(allowed=("eth*",)), {"eth0"}, False),
        (Rules(allowed=("eth*",)), {"eth0", "wlan0"}, True),
        (Rules(allowed=("eth*",), blocked=("eth1",)), {"eth1"}, True),
        (Rules(allowed=("eth*",)), set(), False),
    ],
)
def test_background_jobs_stay_away_from_interfaces(
    rules: Rules, interfaces: set[str], blocked: bool
) -> None:
    """Every family of addresses must lead elsewhere, since a job may use any."""
    admission = Admission(rules=rules, link=Link(interfaces=frozenset(interfaces)))
    assert code(admission) == ("interface_blocked" if blocked else None)
    assert code(admission, Priority.FOREGROUND) is None


@pytest.mark.parametrize(
    ("rules", "text", "key"),
    [
        (
            Rules(blocked=("wg*",)),
            "background jobs wait since that is one of network.blocked_interfaces",
            "network.blocked_interfaces",
        ),
        (
            Rules(allowed=("eth*",)),
            "background jobs wait since that is none of network.allowed_interfaces",
            "network.allowed_interfaces",
        ),
    ],
)
def test_a_job_that_an_interface_holds_names_the_rule_and_what_helps(
    rules: Rules, text: str, key: str
) -> None:
    """Whoever says `--cost always` is not to try that again: it is for metered links alone."""
    admission = Admission(rules=rules, link=Link(interfaces=frozenset({"wg0"})))
    blocker = admission.may_run(Priority.LOW, Cost.ALWAYS)
    assert blocker is not None
    assert blocker.text == f"the network is reached over wg0, and {text}"
    assert blocker.remedy == (
        f"use another network, make it a foreground job, or have an admin change {key}"
    )


def test_foreground_jobs_are_held_to_the_total_alone() -> None:
    """BITS B4: foreground is exempt; but a line that nobody may use is nobody's."""
    closed = Admission(rates=Rates(by_priority=dict.fromkeys(BACKGROUND, 0)))
    assert code(closed, Priority.FOREGROUND) is None
    assert {code(closed, priority) for priority in BACKGROUND} == {"schedule_closed"}
    assert code(Admission(rates=Rates(total=0)), Priority.FOREGROUND) == "schedule_closed"
    assert code(Admission(rates=Rates(total=1, by_priority={Priority.NORMAL: 1}))) is None


def test_a_blocked_job_is_told_until_when_and_what_helps() -> None:
    """`why` names a code, a time where there is one, and a remedy that works."""
    rates = Rates(by_priority={Priority.LOW: 0})
    low = Admission(rates=rates, opens={Priority.LOW: OPENS}).may_run(Priority.LOW, Cost.ALWAYS)
    assert low == Blocker(
        code="schedule_closed",
        text="the schedule leaves no bandwidth to low jobs now",
        since=None,
        until=OPENS,
        remedy="wait, or make it a foreground job",
    )
    metered = Admission(link=METERED).may_run(Priority.NORMAL, Cost.STANDARD)
    assert metered is not None
    assert metered.text == "the connection is metered, and the job's cost is standard"
    assert metered.remedy == "connect to another network, or set its cost to no_surcharge"
    total = Admission(rates=Rates(total=0)).may_run(Priority.FOREGROUND, Cost.ALWAYS)
    assert total is not None
    assert total.remedy == "wait, or change the schedule"


def test_the_admitted_are_those_whom_nothing_blocks() -> None:
    """The queue is asked for no others."""
    admission = Admission(link=METERED, rates=Rates(by_priority={Priority.LOW: 0}))
    assert admission.admitted() == {
        Priority.FOREGROUND: frozenset(Cost) - {Cost.UNRESTRICTED, Cost.STANDARD},
        Priority.HIGH: frozenset({Cost.NO_SURCHARGE, Cost.NOT_ROAMING, Cost.ALWAYS}),
        Priority.NORMAL: frozenset({Cost.NO_SURCHARGE, Cost.NOT_ROAMING, Cost.ALWAYS}),
        Priority.LOW: frozenset(),
    }
