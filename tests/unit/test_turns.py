"""Who may run is a pure choice."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transferd.model.job import JobId, Priority
from transferd.service.ports import Runnable, Wanted
from transferd.service.turns import Choice, Running, Served, Slots, wanted
from transferd.service.turns import choose as choose_served

SLOTS = Slots(foreground=3, background=2, slice=300.0)
F, H, N, L = Priority.FOREGROUND, Priority.HIGH, Priority.NORMAL, Priority.LOW


def waiting(*jobs: tuple[str, Priority]) -> dict[Priority, list[Runnable]]:
    """Queue jobs, in this order; capitals in front are their owners, others are all of one."""
    queues: dict[Priority, list[Runnable]] = {priority: [] for priority in Priority}
    for name, priority in jobs:
        job = Runnable(job_id=JobId(name), owner=owner_of(name), priority=priority)
        queues[priority].append(job)
    return queues


def running(name: str, priority: Priority, since: float = 0.0) -> Running:
    """Make a job that holds a slot."""
    return Running(job_id=JobId(name), owner=owner_of(name), priority=priority, since=since)


def owner_of(name: str) -> int:
    """Return whose a job is."""
    return ord(name[0]) if name[0].isupper() else 0


def choose(
    jobs: Sequence[Running],
    queues: Mapping[Priority, Sequence[Runnable]],
    slots: Slots,
    now: float,
    served: Served | None = None,
) -> Choice:
    """Choose where nobody was served before."""
    return choose_served(jobs, queues, slots, now, served or Served(foreground={}, background={}))


def test_foreground_jobs_run_at_once_beside_background_ones() -> None:
    """BITS P1: foreground jobs do not wait for background slots."""
    choice = choose([running("b", N)], waiting(("f1", F), ("f2", F), ("n", N)), SLOTS, 1.0)
    assert [c.job_id for c in choice.start] == ["f1", "f2", "n"]
    assert not choice.preempt


def test_foreground_jobs_are_bounded() -> None:
    """A thousand foreground jobs do not open a thousand connections."""
    choice = choose([], waiting(*[(f"f{i}", F) for i in range(9)]), SLOTS, 0.0)
    assert [c.job_id for c in choice.start] == ["f0", "f1", "f2"]


def test_a_lower_priority_gets_nothing_while_a_higher_one_is_runnable() -> None:
    """BITS P2, even when a slot is free."""
    choice = choose([], waiting(("h", H), ("n", N), ("l", L)), SLOTS, 0.0)
    assert [c.job_id for c in choice.start] == ["h"]


def test_a_higher_arrival_preempts_the_running_lower_job() -> None:
    """BITS P2: the lower job makes room at once."""
    choice = choose([running("l", L), running("l2", L)], waiting(("h", H)), SLOTS, 1.0)
    assert set(choice.preempt) == {"l", "l2"}


def test_jobs_of_one_priority_take_turns_by_time_slices() -> None:
    """BITS P3: after its slice the longest runner makes room, once somebody waits."""
    jobs = [running("a", N, 0.0), running("b", N, 100.0)]
    early = choose(jobs, waiting(("c", N)), SLOTS, 200.0)
    assert not early.preempt
    assert early.look_again == 300.0
    late = choose(jobs, waiting(("c", N)), SLOTS, 300.0)
    assert late.preempt == ("a",)


def test_a_job_keeps_its_slot_when_nobody_waits() -> None:
    """A slice that ends for nobody would only interrupt."""
    choice = choose([running("a", N, 0.0), running("b", N, 0.0)], waiting(), SLOTS, 10_000.0)
    assert not choice.preempt
    assert choice.look_again is None


@given(
    st.lists(st.sampled_from(Priority), max_size=12),
    st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 1000)), max_size=6),
    st.floats(0, 2000),
)
def test_slots_are_never_exceeded_and_no_slot_idles_for_nothing(
    queue: list[Priority], held: list[tuple[Priority, float]], now: float
) -> None:
    """Whatever runs and waits: the bounds hold, and a choice always leads on."""
    jobs = [running(f"r{i}", p, min(since, now)) for i, (p, since) in enumerate(held)]
    queues = waiting(*[(f"w{i}", p) for i, p in enumerate(queue)])
    choice = choose(jobs, queues, SLOTS, now)
    gone = set(choice.preempt)
    front = sum(job.priority is F for job in jobs) + sum(c.priority is F for c in choice.start)
    back = sum(job.priority is not F for job in jobs)
    started = [c for c in choice.start if c.priority is not F]
    assert front <= max(SLOTS.foreground, sum(job.priority is F for job in jobs))
    assert back + len(started) <= max(SLOTS.background, back)
    assert len({c.priority for c in started}) <= 1
    background_waits = any(queues[p] for p in (H, N, L))
    if background_waits and back == 0:
        assert started
    assert gone <= {job.job_id for job in jobs if job.priority is not F}


# ── several owners ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("priority", [F, N])
def test_free_slots_go_to_those_who_hold_the_fewest(priority: Priority) -> None:
    """A long queue of one owner leaves room for the short one of another."""
    slots = Slots(foreground=4, background=4, slice=300.0)
    queue = waiting(*[(f"A{i}", priority) for i in range(9)], ("B1", priority), ("B2", priority))
    assert [c.job_id for c in choose([], queue, slots, 0.0).start] == ["A0", "B1", "A1", "B2"]
    held = [running("A8", priority), running("A9", priority)]
    assert [c.job_id for c in choose(held, queue, slots, 0.0).start] == ["B1", "B2"]


@pytest.mark.parametrize("priority", [F, N])
def test_a_single_slot_goes_to_who_was_served_longest_ago(priority: Priority) -> None:
    """However old the jobs of a long queue are, others come between them."""
    slots = Slots(foreground=1, background=1, slice=300.0)
    queue = waiting(("A1", priority), ("A2", priority), ("B1", priority), ("C1", priority))
    turns = {ord("A"): 30.0, ord("B"): 10.0}
    served = Served(foreground=turns, background=turns)
    (never,) = choose([], queue, slots, 40.0, served).start
    assert never.job_id == "C1"
    turns[ord("C")] = 40.0
    (first,) = choose([], queue, slots, 40.0, served).start
    assert first.job_id == "B1"


def test_at_the_end_of_a_slice_the_owner_of_most_slots_yields() -> None:
    """Not who runs longest: he may be the only one of his owner."""
    slots = Slots(foreground=1, background=3, slice=300.0)
    jobs = [running("B1", N, 0.0), running("A1", N, 10.0), running("A2", N, 20.0)]
    choice = choose(jobs, waiting(("C1", N)), slots, 400.0)
    assert choice.preempt == ("A1",)


def test_whose_slots_are_as_many_as_those_of_the_one_who_waits_keeps_them() -> None:
    """To take from each other in turn would interrupt both and serve neither."""
    jobs = [running("A1", N, 300.0), running("B1", N, 0.0)]
    early = choose(jobs, waiting(("A2", N)), SLOTS, 400.0)
    assert (early.preempt, early.look_again) == ((), 600.0)
    assert choose(jobs, waiting(("A2", N)), SLOTS, 600.0).preempt == ("A1",)


def test_a_foreground_job_of_one_owner_makes_room_for_no_other_of_his() -> None:
    """Somebody waits for each of them: they end, as if their owner was alone."""
    jobs = [running(f"A{i}", F) for i in range(3)]
    choice = choose(jobs, waiting(("A9", F)), SLOTS, 10_000.0)
    assert not choice.preempt
    assert choice.look_again is None


def test_foreground_slots_are_shared_at_the_end_of_a_slice() -> None:
    """Until both hold about as many; then nobody is disturbed any more."""
    slots = Slots(foreground=5, background=1, slice=300.0)
    jobs = [running(f"A{i}", F, float(i)) for i in range(5)]
    queue = waiting(*[(f"B{i}", F) for i in range(9)])
    early = choose(jobs, queue, slots, 299.0)
    assert (early.preempt, early.look_again) == ((), 300.0)
    assert choose(jobs, queue, slots, 301.0).preempt == ("A0", "A1")
    assert choose(jobs, queue, slots, 900.0).preempt == ("A0", "A1")
    shared = [*jobs[:3], running("B7", F), running("B8", F)]
    settled = choose(shared, queue, slots, 9000.0)
    assert (settled.start, settled.preempt, settled.look_again) == ((), (), None)


def test_more_owners_than_foreground_slots_take_turns() -> None:
    """Who has none is never kept waiting by somebody's only one for longer than slices take."""
    slots = Slots(foreground=2, background=1, slice=300.0)
    jobs = [running("A1", F, 0.0), running("B1", F, 100.0)]
    choice = choose(jobs, waiting(("C1", F)), slots, 300.0)
    assert choice.preempt == ("A1",)


def offered(queue: Sequence[Runnable], asked: Wanted) -> list[Runnable]:
    """Offer as the store does: in turns, everybody's first at least."""
    met: Counter[int] = Counter()
    ranks = [(met[job.owner], met.update([job.owner])) for job in queue]
    order = [i for i in range(len(queue)) if ranks[i][0] < asked.each]
    order.sort(key=lambda i: ranks[i][0])
    return [queue[i] for i in order][: max(len(met), asked.limit)]


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([F, N])), max_size=40),
    st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(Priority), st.floats(0, 1000))),
    st.integers(0, 3),
    st.floats(0, 2000),
)
def test_what_is_asked_of_the_queue_is_enough_to_choose(
    queue: list[tuple[str, Priority]],
    held: list[tuple[str, Priority, float]],
    hidden: int,
    now: float,
) -> None:
    """With all of it nothing else would start, nor would anybody else make room."""
    jobs = [running(f"{who}r{i}", p, min(since, now)) for i, (who, p, since) in enumerate(held)]
    jobs = jobs[: SLOTS.foreground + SLOTS.background]
    whole = waiting(*[(f"{who}w{i:02}", p) for i, (who, p) in enumerate(queue)])
    front, back = wanted(jobs, SLOTS, now, hidden)
    part: dict[Priority, list[Runnable]] = {}
    rest: dict[Priority, list[Runnable]] = {}
    for priority, line in whole.items():
        asked = offered(line, front if priority is F else back)
        gone = asked[:hidden]
        part[priority] = asked[hidden:]
        everybody = offered(line, Wanted(limit=len(line), each=len(line)))
        rest[priority] = [job for job in everybody if job not in gone]
    assert choose(jobs, part, SLOTS, now) == choose(jobs, rest, SLOTS, now)


@dataclass
class Machine:
    """A scheduler at work: slots, queues, and jobs that never end by themselves."""

    slots: Slots
    now: float = 0.0
    queues: dict[Priority, list[Runnable]] = field(default_factory=waiting)
    jobs: list[Running] = field(default_factory=list)
    front: dict[int, float] = field(default_factory=dict)
    back: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Do what is chosen, and what is chosen then, until nothing is."""
        for _ in range(100):
            choice = choose_served(
                self.jobs,
                self._offered(),
                self.slots,
                self.now,
                Served(foreground=self.front, background=self.back),
            )
            if not choice.start and not choice.preempt:
                return
            self._obey(choice)
        raise AssertionError("there is no end of it")

    def _offered(self) -> dict[Priority, list[Runnable]]:
        """Offer what is asked for."""
        front, back = wanted(self.jobs, self.slots, self.now, 0)
        return {
            priority: offered(queue, front if priority is F else back)
            for priority, queue in self.queues.items()
        }

    def _obey(self, choice: Choice) -> None:
        for job in [job for job in self.jobs if job.job_id in choice.preempt]:
            self.jobs.remove(job)
            self.queues[job.priority].append(
                Runnable(job_id=job.job_id, owner=job.owner, priority=job.priority)
            )
        for claim in choice.start:
            self.queues[claim.priority].remove(claim)
            turns = self.front if claim.priority is F else self.back
            turns[claim.owner] = self.now
            self.jobs.append(running(claim.job_id, claim.priority, self.now))


OWNERS = "ABCDEFG"


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=len(OWNERS)),
    st.integers(1, 5),
    st.sampled_from([F, N]),
    st.integers(0, 6),
)
@example([30, 1], 1, N, 0)
@example([30, 1, 1, 1, 1, 1, 1], 2, F, 0)
def test_no_owner_waits_for_longer_than_the_slices_of_the_others(
    queued: list[int], slots: int, priority: Priority, ahead: int
) -> None:
    """Whatever the others have queued before: everybody gets a slot, and his fair part of them."""
    machine = Machine(Slots(foreground=slots, background=slots, slice=10.0))
    owners = list(zip(OWNERS, queued, strict=False))
    rounds = len(owners) * 4
    _queue(machine, owners[:ahead], priority)
    _held_in_turns(machine, rounds)
    _queue(machine, owners[ahead:], priority)
    held = _held_in_turns(machine, rounds)
    assert set(held) == {ord(owner) for owner, _ in owners}
    # With a slot for everybody, everybody holds one; else, they take turns in it.
    fair = rounds * min(1.0, slots / len(owners))
    assert min(held.values()) >= fair * 0.5


def _queue(machine: Machine, owners: list[tuple[str, int]], priority: Priority) -> None:
    for owner, count in owners:
        names = [(f"{owner}{number}", priority) for number in range(count)]
        machine.queues[priority] += waiting(*names)[priority]


def _held_in_turns(machine: Machine, rounds: int) -> Counter[int]:
    """Let slices pass; return in how many of them each owner held a slot."""
    held: Counter[int] = Counter()
    for _ in range(rounds):
        machine.look()
        waits = sum(map(len, machine.queues.values()))
        slots = machine.slots.foreground
        assert len(machine.jobs) == slots or (len(machine.jobs) < slots and not waits)
        held.update({job.owner for job in machine.jobs})
        machine.now += machine.slots.slice
    return held


@given(st.integers(1, 4), st.integers(0, 4), st.integers(1, 30))
def test_background_jobs_of_one_owner_take_turns_in_the_order_of_their_queue(
    slots: int, more: int, rounds: int
) -> None:
    """BITS P3, as if there were no owners: the next in line follow at each end of a slice."""
    machine = Machine(Slots(foreground=1, background=slots, slice=10.0))
    names = [f"a{number}" for number in range(2 * slots + more)]
    machine.queues[N] += waiting(*[(name, N) for name in names])[N]
    for turn in range(rounds):
        machine.look()
        expected = itertools.islice(itertools.cycle(names), turn * slots, (turn + 1) * slots)
        assert [job.job_id for job in machine.jobs] == list(expected)
        machine.now += 10.0
