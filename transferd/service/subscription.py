"""One listener: where it stands in the outbox, and what it has yet to hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress

from transferd.model.errors import NotFound
from transferd.model.job import Job, JobId, Seconds
from transferd.model.notices import TERMINAL, Gap, Modified, Notice, NoticeKind, Page
from transferd.service.allowance import Allowance
from transferd.service.outbox import NoticeStore
from transferd.service.ports import Clock

_PAGE = 100
#: Looks into the outbox a second in the long run, and at once: what happens meanwhile is one page.
_LOOKS, _LOOKS_BURST = 100.0, 20.0


class Subscription:
    """A cursor into the outbox, notices that come again, and jobs that changed."""

    def __init__(
        self,
        *,
        listener: int,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        interval: Seconds,
        clock: Clock,
        view: Callable[[JobId], Awaitable[Job]],
    ) -> None:
        """Take who listens, and whose jobs it is about (None: everybody's)."""
        self._listener = listener
        self._owner = owner
        self._job_id = job_id
        self._kinds = kinds
        self._interval = interval
        self._clock = clock
        self._view = view
        self._cursor = 0
        #: Lost before it began.
        self._gap: Gap | None = None
        self._again: dict[int, None] = {}
        #: Changed jobs, and when each may be told of.
        self._touched: dict[JobId, Seconds] = {}
        self._told: dict[JobId, Seconds] = {}
        self._wake = asyncio.Event()

    def wants(self, notice: Notice) -> bool:
        """Whether this listener hears such a notice."""
        if notice.handed_over and not self.owns(notice):
            return False
        return bool(notice.kind & self._kinds) and self._concerns(notice.owner, notice.job_id)

    def owns(self, notice: Notice) -> bool:
        """Whether who listens is who has to hear of it; an admin who looks on is not."""
        return notice.owner == self._listener

    def wake(self) -> None:
        """Say that the outbox has grown."""
        self._wake.set()

    def again(self, notice: Notice) -> None:
        """Deliver a notice once more."""
        self._again[notice.number] = None
        self._wake.set()

    def touch(self, owner: int, job_id: JobId) -> None:
        """Say that a job changed; merged with what is not told yet."""
        if not self._kinds & NoticeKind.MODIFICATION or not self._concerns(owner, job_id):
            return
        if job_id not in self._touched:
            told = self._told.get(job_id)
            self._touched[job_id] = told + self._interval if told is not None else 0.0
            # Once it is noted its own time wakes the listener; each look costs two queries.
            self._wake.set()

    async def begin(self, store: NoticeStore, after: int | None) -> None:
        """Take its place in the outbox; *after* as in NoticeUseCases.subscribe."""
        oldest, newest = await store.bounds(self._owner)
        self._cursor = newest if after is None else after
        if self._cursor > newest:  # a cursor of another queue file
            self._gap = Gap(after=self._cursor, oldest=oldest)
            self._cursor = newest

    async def events(self, store: NoticeStore) -> AsyncGenerator[Page, None]:
        """Yield what this listener hears, for ever, once it has begun.

        Nothing of a page is kept once the next one is asked for.
        """
        if self._gap is not None:
            yield (self._gap,)
        page: Page = ()
        async for page in self._owed(store):
            yield page
        looks = Allowance(_LOOKS, _LOOKS_BURST, self._clock.steady())
        while True:
            page = ()
            if wait := looks.spend(1, self._clock.steady()):
                await self._clock.sleep(wait)
            self._wake.clear()
            async for page in self._news(store):
                yield page
            page = ()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_told()):
                    await self._wake.wait()

    async def _owed(self, store: NoticeStore) -> AsyncIterator[Page]:
        """Yield terminal notices up to the cursor that nobody has acknowledged."""
        number = 0
        kinds = self._kinds & TERMINAL
        while kinds and (
            page := await store.unsettled(
                owner=self._owner, job_id=self._job_id, kinds=kinds, after=number, limit=_PAGE
            )
        ):
            number = page[-1].number
            if owed := [notice for notice in page if notice.number <= self._cursor]:
                yield owed
            if number > self._cursor:
                return

    async def _news(self, store: NoticeStore) -> AsyncIterator[Page]:
        look = await store.look(
            after=self._cursor,
            owner=self._owner,
            job_id=self._job_id,
            kinds=self._kinds,
            limit=_PAGE,
        )
        page, newest = look.notices, look.newest
        if self._cursor + 1 < look.oldest and self._cursor < newest:
            yield (Gap(after=self._cursor, oldest=look.oldest),)
            self._cursor = look.oldest - 1
        del look
        while page:
            self._cursor = page[-1].number
            for notice in page:
                self._again.pop(notice.number, None)
            if wanted := [notice for notice in page if self.wants(notice)]:
                yield wanted
            page = ()
            if self._cursor < newest:
                page = await store.replay(
                    after=self._cursor,
                    owner=self._owner,
                    job_id=self._job_id,
                    kinds=self._kinds,
                    limit=_PAGE,
                )
        self._cursor = max(self._cursor, newest)
        if again := [notice async for notice in self._to_repeat(store)]:
            yield again
        if changed := await self._changed():
            yield [Modified(job=job) for job in changed]

    async def _to_repeat(self, store: NoticeStore) -> AsyncIterator[Notice]:
        for number in list(self._again):
            del self._again[number]
            with suppress(NotFound):
                notice = await store.notice(number)
                if not notice.settled and self.wants(notice):
                    yield notice

    async def _changed(self) -> list[Job]:
        """Take the changed jobs whose time has come."""
        now = self._clock.steady()
        jobs = []
        for job_id in [job_id for job_id, at in self._touched.items() if at <= now]:
            del self._touched[job_id]
            with suppress(NotFound):
                job = await self._view(job_id)
                if self._concerns(job.owner, job_id):  # not taken over by somebody else meanwhile
                    jobs.append(job)
                    self._told[job_id] = now
        horizon = now - self._interval
        self._told = {job_id: at for job_id, at in self._told.items() if at > horizon}
        return jobs

    def _next_told(self) -> Seconds | None:
        if not self._touched:
            return None
        return max(0.0, min(self._touched.values()) - self._clock.steady())

    def _concerns(self, owner: int, job_id: JobId) -> bool:
        return self._owner in (None, owner) and self._job_id in (None, job_id)
