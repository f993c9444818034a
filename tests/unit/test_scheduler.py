"""Who may run is a pure choice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transferd.model.job import JobId, Priority
from transferd.service.ports import Runnable
from transferd.service.scheduler import Running, Slots, choose

SLOTS = Slots(foreground=3, background=2, slice=300.0)
F, H, N, L = Priority.FOREGROUND, Priority.HIGH, Priority.NORMAL, Priority.LOW


def waiting(*jobs: tuple[str, Priority]) -> dict[Priority, list[Runnable]]:
    """Queue jobs, in this order."""
    queues: dict[Priority, list[Runnable]] = {priority: [] for priority in Priority}
    for name, priority in jobs:
        queues[priority].append(Runnable(job_id=JobId(name), owner=1, priority=priority))
    return queues


def running(name: str, priority: Priority, since: float = 0.0) -> Running:
    """Make a job that holds a slot."""
    return Running(job_id=JobId(name), priority=priority, since=since)


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
