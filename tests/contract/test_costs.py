"""Which queued jobs the service is told of when some of them may not go over the link."""

from __future__ import annotations

from dataclasses import replace

from tests.support.store import BOB, EVERY_COST, EVERYBODY, NOW, Queue, spec
from transferd.model.job import Cost, JobId, JobSpec, Priority
from transferd.model.queue import Admitted, Wanted

_NOT_ROAMING = frozenset({Cost.NOT_ROAMING, Cost.ALWAYS})


def _at(cost: Cost, priority: Priority = Priority.NORMAL) -> JobSpec:
    return replace(spec(), settings=replace(spec().settings, cost=cost, priority=priority))


async def test_jobs_that_are_not_admitted_are_as_good_as_not_there(queue: Queue) -> None:
    """A queue that waits for another link is not in the way of those who need not."""
    waiting = [(await queue.make()).id for _ in range(3)]
    always = (await queue.make(_at(Cost.ALWAYS))).id
    bobs = (await queue.make(_at(Cost.NOT_ROAMING), owner=BOB)).id
    later = (await queue.make(_at(Cost.NOT_ROAMING))).id
    await queue.make(owner=BOB + 1)
    normal = Priority.NORMAL
    assert await queue.runnable(normal, 9, costs=_NOT_ROAMING) == [always, bobs, later]
    assert await queue.runnable(normal, 9, 1, costs=_NOT_ROAMING) == [always, bobs]
    assert await queue.runnable(normal, 9, costs=frozenset()) == []
    own = [each for each in await queue.runnable(normal, 9) if each in {*waiting, always, later}]
    assert own == [*waiting, always, later]


async def test_a_lower_priority_is_looked_at_when_the_higher_ones_may_not_run(
    queue: Queue,
) -> None:
    """Somebody who may not run keeps nobody from running."""
    high = (await queue.make(_at(Cost.UNRESTRICTED, Priority.HIGH))).id
    low = (await queue.make(_at(Cost.ALWAYS, Priority.LOW))).id
    many = Wanted(limit=9, each=9)

    async def agenda(admitted: Admitted) -> dict[Priority, list[JobId]]:
        found = (await queue.jobs.agenda(many, many, admitted)).waiting
        return {level: [claim.job_id for claim in claims] for level, claims in found.items()}

    assert await agenda(EVERYBODY) == {Priority.HIGH: [high]}
    assert await agenda(dict.fromkeys(Priority, _NOT_ROAMING)) == {Priority.LOW: [low]}
    assert await agenda({Priority.HIGH: EVERY_COST}) == {Priority.HIGH: [high]}
    assert await agenda({}) == {}


async def test_a_job_whose_cost_is_changed_is_found_by_the_new_one(queue: Queue) -> None:
    """BITS B8: it counts at once, for the claim as well."""
    job = await queue.make()
    await queue.jobs.change_settings(job.id, lambda was: replace(was, cost=Cost.ALWAYS), NOW)
    wanted = Wanted(limit=9, each=9)
    (claim,) = await queue.jobs.runnable(Priority.NORMAL, wanted, _NOT_ROAMING)
    assert (claim.job_id, claim.cost) == (job.id, Cost.ALWAYS)
    assert (await queue.jobs.job(job.id)).settings.cost is Cost.ALWAYS
