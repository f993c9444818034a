"""The loop that starts, pre-empts and retries jobs; who may run is a choice of `turns`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress

from transferd.model.errors import (
    InvalidTransition,
    NotFound,
    StoreDamaged,
    StoreError,
    first_of,
)
from transferd.model.job import Job, JobId, Priority, Seconds
from transferd.model.states import JobEvent
from transferd.service.ports import Admitted, Clock, JobStore, Moved, Moves, Runnable
from transferd.service.runs import Runs
from transferd.service.stagger import Stagger
from transferd.service.turns import BACKGROUND, Running, Served, Slots, choose, wanted
from transferd.service.windows import Windows

log = logging.getLogger(__name__)

#: Due jobs that are queued again in one go.
_BATCH = 200
#: Waiting jobs whose wait is brought forward in one go.
_HASTENED = 2000
#: Before the queue file is tried again that could not be used.
_PATIENCE: Seconds = 1.0


def _log_failure(error: BaseException) -> None:
    log.error("store.failed", extra={"fields": {"reason": str(first_of(error))}})


class Scheduler:
    """Starts queued jobs, pre-empts running ones, queues those whose delay is over."""

    def __init__(
        self,
        store: JobStore,
        runs: Runs,
        slots: Slots,
        windows: Windows,
        clock: Clock,
        stagger: Stagger,
    ) -> None:
        self._store = store
        self._runs = runs
        self._slots = slots
        self._windows = windows
        self._clock = clock
        self._stagger = stagger
        self._wake = asyncio.Event()
        self._since: dict[JobId, Seconds] = {}
        #: When each owner was last given a slot.
        self._front: dict[int, Seconds] = {}
        self._back: dict[int, Seconds] = {}
        #: When the next owner gets a worker again who gets none now.
        self._unbarred: Seconds | None = None
        #: Waits that were over by then may still have to be noticed; None: none of them.
        self._missed: Seconds | None = None
        self._moves: Moves | None = None

    def report_to(self, moves: Moves) -> None:
        """Say who hears that a job has moved; before run."""
        self._moves = moves

    @property
    def slots(self) -> Slots:
        """What there is to share out."""
        return self._slots

    def configure(self, slots: Slots) -> None:
        """Share out other slots from now on; running jobs beyond them go on to their end."""
        self._slots = slots
        self.wake()

    def wake(self) -> None:
        """Say that something changed: a job was queued, a slot is free."""
        self._wake.set()

    def opened(self, priorities: Collection[Priority]) -> None:
        """Take that the clock lets jobs of these priorities go, here and on other machines.

        Those in the background start at a random moment soon.
        """
        self._hold(set(priorities) & set(BACKGROUND))

    async def retry_all(self) -> None:
        """Have what the network has held up tried again, since it is back (BITS.md Y5).

        Foreground jobs at once; others at a random moment soon, since it may be back for many.
        """
        front, back, after = self._clock.steady(), self._stagger.moment(), 0
        try:
            while (
                last := await self._store.hasten(front, back, after=after, limit=_HASTENED)
            ) is not None:
                after = last
        except StoreError as error:
            _log_failure(error)  # then their own delays bring them back
        self.wake()

    async def run(self) -> None:
        """Schedule until cancelled."""
        self._hold(BACKGROUND)
        self._missed = self._clock.steady()
        while True:
            self._wake.clear()
            try:
                look_again = await self._step()
            except* StoreDamaged:
                raise
            except* StoreError as failed:
                # Most likely a full disk. Who is waiting waits; nobody needs to start anew.
                _log_failure(failed)
                await self._clock.sleep(_PATIENCE)
                look_again = self._clock.steady()
            delay = None if look_again is None else max(0.0, look_again - self._clock.steady())
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    def _hold(self, priorities: Collection[Priority]) -> None:
        self._stagger.hold({priority: self._windows.remaining(priority) for priority in priorities})

    async def _step(self) -> Seconds | None:
        admitted = self._windows.admitted
        await self._preempt_all(
            [c.job_id for c in self._runs.running if c.cost not in admitted[c.priority]]
        )
        # As of before the queue is read: who came meanwhile is not in it, and a slot that became
        # free meanwhile is for the next step, which sees both.
        running, held = self._running(), self._stagger.held
        waiting, next_due = await self._waiting(running, admitted, held)
        now = self._clock.steady()
        served = Served(foreground=self._front, background=self._back)
        choice = choose(running, waiting, self._slots, now, served)
        await self._preempt_all(choice.preempt)
        if choice.start:
            await self._start(choice.start)
        moments = [choice.look_again, self._unbarred, next_due, *held.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    async def _start(self, claims: Sequence[Runnable]) -> None:
        now = self._clock.steady()
        for claim in claims:
            turns = self._front if claim.priority is Priority.FOREGROUND else self._back
            self._since[claim.job_id] = turns[claim.owner] = now
            self._stagger.started(claim.job_id)
        await self._runs.start(claims)

    def _running(self) -> list[Running]:
        claims = self._runs.running
        # Also of one that has done all its files: it may get others, and goes on then.
        self._since = {job: since for job, since in self._since.items() if self._runs.holds(job)}
        return [
            Running(
                job_id=c.job_id,
                owner=c.owner,
                priority=c.priority,
                since=self._since.get(c.job_id, 0.0),
            )
            for c in claims
        ]

    async def _waiting(
        self, running: Sequence[Running], admitted: Admitted, held: Collection[Priority]
    ) -> tuple[dict[Priority, Sequence[Runnable]], Seconds | None]:
        """Read as much of the queue as a choice can depend on, and when the next wait is over.

        Of priorities that are *held* back, that is what was asked for all the same. Owners who get
        no worker at the moment are left out: their jobs would only fail.
        """
        free = {p: frozenset() if p in held else costs for p, costs in admitted.items()}
        waiting, next_due = await self._queued(running, free)
        for priority, called in self._stagger.called.items():
            claims = [claim for claim in called if claim.cost in admitted[priority]]
            waiting[priority] = (*waiting.get(priority, ()), *self._startable(claims))
        return waiting, next_due

    async def _queued(
        self, running: Sequence[Running], admitted: Admitted
    ) -> tuple[dict[Priority, Sequence[Runnable]], Seconds | None]:
        now = self._clock.steady()
        front, back = wanted(running, self._slots, now, self._runs.hidden)
        agenda = await self._store.agenda(front, back, admitted)
        if agenda.next_due is not None and agenda.next_due <= now:
            # However many there are after a long absence, the first of them start at once.
            await self._requeue_due(now)
            agenda = await self._store.agenda(front, back, admitted)
        self._unbarred = None
        waiting = {p: self._startable(claims) for p, claims in agenda.waiting.items()}
        level = max(agenda.waiting, default=Priority.FOREGROUND)
        # Lower priorities get nothing, unless nobody who waits before them can start.
        while not waiting.get(level) and Priority.FOREGROUND < level < Priority.LOW:
            level = Priority(level + 1)
            found = await self._store.runnable(level, back, admitted[level])
            waiting[level] = self._startable(found)
        return waiting, agenda.next_due

    def _startable(self, claims: Sequence[Runnable]) -> Sequence[Runnable]:
        return [claim for claim in claims if self._may_start(claim)]

    def _may_start(self, claim: Runnable) -> bool:
        until = self._runs.barred_until(claim.owner)
        if until is not None:
            self._unbarred = min(until, self._unbarred or until)
        return until is None and not self._runs.holds(claim.job_id)

    async def _preempt_all(self, job_ids: Sequence[JobId]) -> None:
        async with asyncio.TaskGroup() as group:
            for job_id in job_ids:
                group.create_task(self._preempt(job_id))

    async def _preempt(self, job_id: JobId) -> None:
        with suppress(InvalidTransition, NotFound):
            self._tell(await self._store.apply(job_id, JobEvent.REQUEUE, self._clock.now()))
            await self._runs.stop(job_id)

    async def _requeue_due(self, steady: Seconds) -> None:
        """Queue jobs whose delay is over; those of before we ran then wait with the others."""
        if self._missed is not None and len(await self._requeue(self._missed)) < _BATCH:
            self._missed = None
        if self._missed is None:
            for job in await self._requeue(steady):
                self._stagger.call(job, asked=True)

    async def _requeue(self, steady: Seconds) -> list[Job]:
        queued = await self._store.retry(steady, self._clock.now(), limit=_BATCH)
        for moved in queued:
            self._tell(moved)
        return [moved.job for moved in queued]

    def _tell(self, moved: Moved) -> None:
        if self._moves is not None:
            self._moves.moved(moved)
