"""Who may run: a pure choice (BITS.md 1.6), fair between the owners of jobs.

All foreground jobs run at once, up to a bound. Background jobs share their own slots: a lower
priority gets nothing while a higher one is runnable, and within one priority jobs take turns by
time slices.

Owners share slots alike. A free slot goes to whoever holds the fewest, among these to whoever was
served longest ago; so a queue of thousands keeps nobody else waiting for more than its turn. When
no slot is free, the owner of the most yields one whose time slice is over:

- A background slot goes to whoever holds fewer, or to the next job of the same owner.
- A foreground slot goes only to an owner who has none, or where the two come closer by it. Jobs of
  one owner never interrupt each other there: a person waits for each of them, and the bound is for
  the machine's sake. But no person waits for hours for somebody else's sixty-four.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from transferd.model.job import JobId, Priority, Seconds
from transferd.service.ports import Runnable, Wanted

BACKGROUND = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """How many jobs run at once, and for how long in one go."""

    foreground: int
    background: int
    slice: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that holds a slot."""

    job_id: JobId
    owner: int
    priority: Priority
    since: Seconds

    @property
    def front(self) -> bool:
        """Whether its slot is one for foreground jobs."""
        return self.priority is Priority.FOREGROUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A job that holds a slot, as those who wait are told of it."""

    job_id: JobId
    name: str
    owner: int
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """When each owner was last given a slot; who is not there never was."""

    foreground: Mapping[int, Seconds]
    background: Mapping[int, Seconds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to do now."""

    start: tuple[Runnable, ...]
    preempt: tuple[JobId, ...]
    #: When a time slice ends that somebody waits for.
    look_again: Seconds | None


def wanted(
    running: Sequence[Running], slots: Slots, now: Seconds, hidden: int
) -> tuple[Wanted, Wanted]:
    """Return how many foreground and background jobs of the queue a choice can depend on.

    *hidden* ones of them cannot start, whatever is chosen.
    """
    limit = slots.foreground + slots.background + len(running) + hidden
    front = [job for job in running if job.front]
    back = [job for job in running if not job.front]
    level = min((job.priority for job in back), default=None)
    kept = sum(job.priority == level for job in back)

    def each(jobs: Sequence[Running], free: int) -> int:
        over = sum(job.since <= now - slots.slice for job in jobs)
        # One more than can be chosen tells whether anybody waits.
        return max(0, free) + over + hidden + 1

    return (
        Wanted(limit=limit, each=each(front, slots.foreground - len(front))),
        Wanted(limit=limit, each=each(back, slots.background - kept)),
    )


def choose(
    running: Sequence[Running],
    waiting: Mapping[Priority, Sequence[Runnable]],
    slots: Slots,
    now: Seconds,
    served: Served,
) -> Choice:
    """Decide which waiting jobs start and which running ones make room.

    *waiting* has the jobs of each owner and priority in the order of their queue. A job that makes
    room goes to the end of it, so its successor starts at the next look.
    """
    front = _Share(
        [job for job in running if job.front],
        waiting.get(Priority.FOREGROUND, ()),
        slots.foreground,
        served.foreground,
    )
    start = front.fill()
    preempt, look_again = front.make_room(now - slots.slice, rotate=False)

    back = [job for job in running if not job.front]
    level = _level(back, waiting)
    lower = [job.job_id for job in back if level is not None and job.priority > level]
    share = _Share(
        [job for job in back if job.priority == level],
        waiting.get(level, ()) if level is not None else (),
        slots.background,
        served.background,
    )
    # A pre-empted job gives its slot back first: what starts now fits beside what still ends.
    start += share.fill()[: max(0, share.free - len(lower))]
    over, look = share.make_room(now - slots.slice, rotate=True)
    ends = [end + slots.slice for end in (look_again, look) if end is not None]
    return Choice(
        start=tuple(start),
        preempt=(*preempt, *lower, *over),
        look_again=min(ends, default=None),
    )


def _level(
    back: Sequence[Running], waiting: Mapping[Priority, Sequence[Runnable]]
) -> Priority | None:
    """Return the highest background priority that has a job."""
    for priority in BACKGROUND:
        if waiting.get(priority) or any(job.priority == priority for job in back):
            return priority
    return None


class _Share:
    """The slots of one group of jobs, and the owners who want them."""

    def __init__(
        self,
        running: Sequence[Running],
        queue: Sequence[Runnable],
        slots: int,
        served: Mapping[int, Seconds],
    ) -> None:
        self._running = running
        self._served = served
        #: How many there are for those who wait, before any is filled.
        self.free = max(0, slots - len(running))
        #: How many each owner holds, those that will be filled counted.
        self._held = Counter(job.owner for job in running)
        #: The places in line of each owner's jobs, and the jobs.
        self._lines: dict[int, deque[tuple[int, Runnable]]] = {}
        for place, job in enumerate(queue):
            self._lines.setdefault(job.owner, deque()).append((place, job))

    def fill(self) -> list[Runnable]:
        """Return who gets the free slots, in turn."""
        return list(islice(self._in_turn(), self.free))

    def make_room(
        self, ended: Seconds, *, rotate: bool
    ) -> tuple[tuple[JobId, ...], Seconds | None]:
        """Return who yields to those who still wait, of jobs that began by *ended*.

        With *rotate*, jobs of one owner take turns, too. Returns also when the next job began of
        those that are not that far yet, as long as anybody waits.
        """
        over = [job for job in self._running if job.since <= ended]
        yielding: list[JobId] = []
        while over and self._lines:
            job = max(over, key=lambda job: (self._held[job.owner], -job.since))
            over.remove(job)
            heirs = [o for o in self._lines if self._may_follow(o, job.owner, rotate=rotate)]
            if heirs:
                self._held[job.owner] -= 1
                self._take(min(heirs, key=self._turn))
                yielding.append(job.job_id)
        wanted = [
            job.since
            for job in self._running
            if job.since > ended and (self._lines if rotate else self._lines.keys() - {job.owner})
        ]
        return tuple(yielding), min(wanted, default=None)

    def _may_follow(self, owner: int, holder: int, *, rotate: bool) -> bool:
        if owner == holder:
            return rotate
        mine, theirs = self._held[owner], self._held[holder]
        return mine < theirs and (rotate or mine == 0 or mine + 1 < theirs)

    def _in_turn(self) -> Iterator[Runnable]:
        """Yield waiting jobs, each to be given a slot before the next is asked for."""
        line = [(self._turn(owner), owner) for owner in self._lines]
        heapq.heapify(line)
        while line:
            _, owner = heapq.heappop(line)
            yield self._take(owner)
            if owner in self._lines:
                heapq.heappush(line, (self._turn(owner), owner))

    def _turn(self, owner: int) -> tuple[int, Seconds, int]:
        """Return what is lowest for the owner whose turn it is."""
        place, _ = self._lines[owner][0]
        return self._held[owner], self._served.get(owner, _NEVER), place

    def _take(self, owner: int) -> Runnable:
        """Give a slot to an owner's next job."""
        _, job = self._lines[owner].popleft()
        if not self._lines[owner]:
            del self._lines[owner]
        self._held[owner] += 1
        return job
