"""Delivery of the outbox: to listeners, again until acknowledged, then by the job's command.

Listeners read the outbox by cursor, so that a slow one costs nothing but its own delay. Only
terminal notices are followed up. Who acknowledges settles a notice for everybody (BITS.md N2, M5).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from transferd.model.caller import Caller
from transferd.model.errors import (
    CallerError,
    NotAllowed,
    NotFound,
    StoreError,
    notice_not_found,
)
from transferd.model.job import Job, JobId, Seconds
from transferd.model.notices import TERMINAL, Notice, NoticeKind, Page
from transferd.model.ownership import TAKE_FIRST
from transferd.service.meter import Meter
from transferd.service.outbox import NoticeStore
from transferd.service.ports import Clock
from transferd.service.subscription import Subscription
from transferd.service.workers import WorkerGone, Workers
from transferd.wire import chores

log = logging.getLogger(__name__)

_PAGE = 100
#: Commands of one user that run at once (BITS.md N6).
_COMMANDS = 4
#: Doublings of a delay.
_DOUBLINGS = 6
_LONGEST: Seconds = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """When what is not acknowledged comes again."""

    redeliver: Seconds
    #: Deliveries to listeners before the command takes over.
    before_command: int
    #: Shortest time between two modification events of a job.
    modification: Seconds


#: What a notification command gets: environment and standard input.
Describe = Callable[[Notice], tuple[Mapping[str, str], str]]


class Notifier:
    """Everything between the outbox and those who listen."""

    def __init__(
        self,
        store: NoticeStore,
        workers: Workers,
        clock: Clock,
        delivery: Delivery,
        describe: Describe,
        view: Callable[[JobId], Awaitable[Job]],
        meter: Meter,
        owner_of: Callable[[Caller], int],
    ) -> None:
        self._meter = meter
        self._owner_of = owner_of
        self._store = store
        self._workers = workers
        self._clock = clock
        self._delivery = delivery
        self._describe = describe
        self._view = view
        self._subscriptions: set[Subscription] = set()
        #: Each notice that is followed up, and when; however many listeners were told of it.
        self._followed: dict[int, Seconds] = {}
        self._due: list[tuple[Seconds, int]] = []
        self._commanding: set[int] = set()
        self._slots: defaultdict[int, asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, _COMMANDS)
        )
        self._wake = asyncio.Event()
        #: Delivered, and not written down yet.
        self._unmarked: list[int] = []
        self._marking = asyncio.Event()
        self._marks = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether somebody listens, or a delivery is still owed to a command."""
        return bool(self._subscriptions or self._followed or self._commanding)

    def configure(self, delivery: Delivery) -> None:
        """Deliver otherwise from now on; what is due already stays due."""
        self._delivery = delivery

    # ── what happened ────────────────────────────────────────────────────────────────────

    def raised(self, notices: Sequence[Notice]) -> None:
        """Deliver notices that were just written to the outbox."""
        for notice in notices:
            for subscription in self._subscriptions:
                if subscription.wants(notice):
                    subscription.wake()
            if not notice.settled and notice.job.settings.notify_command is not None:
                heard = bool(self._listeners(notice))
                self._follow(notice.number, self._delivery.redeliver if heard else 0.0)

    def handed_over(self, notices: Sequence[Notice]) -> None:
        """Tell whoever listens already of notices that have become theirs."""
        for notice in notices:
            for subscription in self._subscriptions:
                if subscription.wants(notice):
                    subscription.again(notice)

    def modified(self, owner: int, job_id: JobId) -> None:
        """Tell listeners, soon, that a job changed."""
        for subscription in self._subscriptions:
            subscription.touch(owner, job_id)

    # ── listeners ────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def subscribe(
        self,
        caller: Caller,
        *,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        all_users: bool = False,
    ) -> AsyncIterator[AsyncIterator[Page]]:
        """Hear what happens; see NoticeUseCases.subscribe."""
        if all_users and not caller.admin:
            raise NotAllowed("not_allowed", "cannot listen to everybody's jobs: only an admin can")
        owner = self._owner_of(caller)
        subscription = Subscription(
            listener=owner,
            # Whoever names a job may see it.
            owner=None if caller.admin and (all_users or job_id is not None) else owner,
            job_id=job_id,
            kinds=kinds,
            interval=self._delivery.modification,
            clock=self._clock,
            view=self._view,
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.begin(self._store, after)
            async with aclosing(self._deliver(subscription)) as pages:
                yield pages
        finally:
            self._subscriptions.discard(subscription)

    async def _deliver(self, subscription: Subscription) -> AsyncGenerator[Page, None]:
        async with aclosing(subscription.events(self._store)) as pages:
            async for page in pages:
                yield page
                self._delivered(n for n in page if isinstance(n, Notice) and subscription.owns(n))
                page = ()  # the next one may be long in coming

    async def acknowledge(self, caller: Caller, number: int) -> Notice:
        """Settle a notice; see NoticeUseCases.acknowledge."""
        notice = await self._store.notice(number)
        if not caller.may_see(notice.owner):
            raise notice_not_found(number)
        if notice.owner != self._owner_of(caller):
            raise _not_his_to_hear(number)
        if not notice.settled:
            notice = await self._store.settle(number, notice.owner)
            self._meter.settled(self._lag(notice))
        self._unfollow([number])
        return notice

    async def acknowledge_all(
        self, caller: Caller, numbers: Sequence[int]
    ) -> Mapping[int, CallerError]:
        """Settle notices; see NoticeUseCases.acknowledge_all."""
        owner = self._owner_of(caller)
        found = {each.number: each for each in await self._store.settle_all(numbers, owner)}
        refused: dict[int, CallerError] = {}
        now = self._clock.now()
        for number in numbers:
            notice = found.get(number)
            if notice is None or not caller.may_see(notice.owner):
                refused[number] = notice_not_found(number)
            elif notice.owner != owner:
                refused[number] = _not_his_to_hear(number)
            elif notice.new:
                self._meter.settled((now - notice.created).total_seconds())
        self._unfollow([number for number in numbers if number not in refused])
        return refused

    # ── following up ─────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Deliver again and run commands until cancelled."""
        await self._remember()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mark(), name="deliveries")
            while True:
                self._wake.clear()
                while self._due and self._due[0][0] <= self._clock.steady():
                    at, number = heapq.heappop(self._due)
                    if self._followed.get(number) == at:
                        del self._followed[number]
                        await self._follow_up(number, group)
                delay = self._due[0][0] - self._clock.steady() if self._due else None
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()

    async def _remember(self) -> None:
        """After a start: the commands that are still owed."""
        after = 0
        while page := await self._store.unsettled(
            owner=None, job_id=None, kinds=TERMINAL, after=after, limit=_PAGE
        ):
            after = page[-1].number
            for notice in page:
                if notice.job.settings.notify_command is not None:
                    self._follow(notice.number, 0.0)

    def _follow(self, number: int, delay: Seconds) -> None:
        """Follow a notice up after *delay*, unless that happens earlier anyway."""
        at = self._clock.steady() + delay
        if at < self._followed.get(number, math.inf):
            self._followed[number] = at
            heapq.heappush(self._due, (at, number))
            if self._due[0] == (at, number):
                self._wake.set()

    def _unfollow(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._followed.pop(number, None)
        if not self._followed:
            self._due.clear()

    def _delivered(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice.settled:
                continue
            if not notice.deliveries:
                self._meter.told(self._lag(notice))
            self._unmarked.append(notice.number)
            self._marking.set()
            doublings = min(notice.deliveries, _DOUBLINGS)
            self._follow(notice.number, self._delivery.redeliver * 2**doublings)

    async def _mark(self) -> None:
        """Write down what was delivered until cancelled: all that was meanwhile at a time."""
        while await self._marking.wait():
            try:
                await self._mark_delivered()
            except StoreError as error:
                log.error("store.failed", extra={"fields": {"reason": str(error)}})
                await self._clock.sleep(self._delivery.redeliver)

    async def _mark_delivered(self) -> None:
        async with self._marks:
            self._marking.clear()
            numbers, self._unmarked = self._unmarked, []
            try:
                if numbers:
                    await self._store.delivered(numbers)
            except StoreError:
                self._unmarked[:0] = numbers
                self._marking.set()
                raise

    async def _follow_up(self, number: int, group: asyncio.TaskGroup) -> None:
        try:
            await self._mark_delivered()
            notice = await self._store.notice(number)
        except NotFound:
            return
        except StoreError as error:
            fields = {"notice": number, "reason": str(error)}
            log.error("store.failed", extra={"fields": fields})
            self._follow(number, self._delivery.redeliver)
            return
        if notice.settled or number in self._commanding:
            return
        listeners = self._listeners(notice)
        command = notice.job.settings.notify_command
        if command is not None and (
            not listeners or notice.deliveries >= self._delivery.before_command
        ):
            self._commanding.add(number)
            group.create_task(self._command(notice, command), name=f"notice {number} command")
        else:
            for subscription in listeners:
                subscription.again(notice)

    async def _command(self, notice: Notice, command: tuple[str, ...]) -> None:
        environment, stdin = self._describe(notice)
        try:
            async with self._slots[notice.owner]:
                ended = await self._workers.ask(
                    notice.owner,
                    lambda request: chores.RunCommand(request, command, dict(environment), stdin),
                    chores.CommandEnded,
                )
            status, detail = ended.status, ended.detail
        except WorkerGone as error:
            status, detail = None, str(error)
        finally:
            self._commanding.discard(notice.number)
        fields = {"job": notice.job_id, "notice": notice.number, "status": status}
        with suppress(NotFound, StoreError):
            if status == 0:
                await self._store.settle(notice.number, notice.owner)
                if not notice.deliveries:
                    self._meter.told(self._lag(notice))
                self._meter.settled(self._lag(notice))
                log.info("notify.exec", extra={"fields": fields})
                return
            log.warning("notify.exec_failed", extra={"fields": fields | {"detail": detail}})
            await self._store.delivered([notice.number])
        first = notice.job.settings.timers.min_retry_delay
        delay = min(first * 2 ** min(notice.deliveries, _DOUBLINGS), max(_LONGEST, first))
        self._follow(notice.number, delay)

    def _lag(self, notice: Notice) -> Seconds:
        return (self._clock.now() - notice.created).total_seconds()

    def _listeners(self, notice: Notice) -> list[Subscription]:
        return [s for s in self._subscriptions if s.wants(notice) and s.owns(notice)]


def _not_his_to_hear(number: int) -> NotAllowed:
    return NotAllowed(
        TAKE_FIRST,
        f"cannot acknowledge notice {number}: its owner has yet to hear it;"
        " take ownership of the job first",
    )
