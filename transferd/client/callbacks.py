"""Registered callbacks: each notice runs one, and is acknowledged when it has returned.

The rules are those of BITS (BITS.md N2 to N11): delivery is at least once, a callback that raises
was not delivered and is called again, the callbacks of one job run one after the other and a file's
before its job's, and at most four run at the same time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from transferd.client.acknowledger import Acknowledger
from transferd.client.connection import Connection
from transferd.client.crew import Crew
from transferd.client.stream import Interest, Pulse, hear
from transferd.model.choices import NoticeKind
from transferd.model.errors import NotFound, TransferdError
from transferd.wire.api import NoticeAnswer

if TYPE_CHECKING:
    from transferd.client.job import Job

log = logging.getLogger(__name__)

#: A function, or a coroutine function, of the job and what happened to it. A plain function runs
#: on the event loop and must not block; what it returns is awaited if it can be.
Callback: TypeAlias = Callable[["Job", NoticeAnswer], object]

#: Callbacks that run at the same time in one Manager (BITS.md N6).
CALLBACKS_AT_ONCE = 4
#: Notices that wait for their callbacks; then the stream is not read, and the daemon keeps them.
WAITING_NOTICES = 256

_inside: ContextVar[bool] = ContextVar("inside a callback", default=False)


def inside_callback() -> bool:
    """Whether the caller was called, directly or not, by a callback."""
    return _inside.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Who is called for what."""

    on_transferred: Callback | None = None
    on_error: Callback | None = None
    on_file: Callback | None = None
    on_modification: Callback | None = None

    def of(self, kind: NoticeKind) -> Callback | None:
        """Return the callback for *kind*."""
        return self._table()[kind]

    @property
    def kinds(self) -> NoticeKind:
        """Everything that has a callback."""
        kinds = NoticeKind(0)
        for kind, callback in self._table().items():
            if callback is not None:
                kinds |= kind
        return kinds

    def _table(self) -> dict[NoticeKind, Callback | None]:
        return {
            NoticeKind.TRANSFERRED: self.on_transferred,
            NoticeKind.ERROR: self.on_error,
            NoticeKind.FILE_TRANSFERRED: self.on_file,
            NoticeKind.MODIFICATION: self.on_modification,
        }


class Listener:
    """Delivers one job's notices to its callbacks, until the job has left the queue."""

    def __init__(
        self,
        job: Job,
        connection: Connection,
        crew: Crew,
        slots: asyncio.Semaphore,
        acknowledger: Acknowledger,
    ) -> None:
        self._job = job
        self._connection = connection
        self._crew = crew
        self._slots = slots
        self._acknowledger = acknowledger
        self._callbacks = Callbacks()
        self._reader: asyncio.Task[None] | None = None
        self._deliverer: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[NoticeAnswer] = asyncio.Queue(WAITING_NOTICES)
        #: Numbers that are queued, or whose callback runs.
        self._pending: set[int] = set()
        #: Numbers whose callback has returned; only the acknowledgement may be missing.
        self._handled: set[int] = set()
        #: The newest modification that waits; its place in the queue is that of the first.
        self._modification: NoticeAnswer | None = None
        self._last: int | None = None
        self._heard: set[NoticeKind] = set()
        self._attempted: set[NoticeKind] = set()
        self._news = asyncio.Condition()
        self._idle = asyncio.Event()
        self._idle.set()

    async def use(self, callbacks: Callbacks) -> None:
        """Replace all callbacks; returns when their notices are being heard.

        A callback that runs already goes on.

        Raises:
            CallerError, NoDaemon, DaemonFault: the event stream cannot be opened.
        """
        self._callbacks = callbacks
        await self.stop_reading()
        if not callbacks.kinds:
            return
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        name = f"callbacks of job {self._job.id}"
        self._reader = self._crew.start(self._read(callbacks.kinds, opened), f"{name}: reader")
        if self._deliverer is None or self._deliverer.done():
            self._deliverer = self._crew.start(self._deliver(), name)
        await opened

    async def stop_reading(self) -> None:
        """Hear nothing any more; what was heard is still delivered."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])

    async def idle(self) -> None:
        """Wait until the callback that runs now, if any, has returned."""
        await self._idle.wait()

    def forget(self) -> None:
        """Say that the job goes on: `heard` and `attempted` wait for what comes from now on."""
        self._heard.clear()
        self._attempted.clear()

    async def heard(self, kind: NoticeKind) -> None:
        """Wait until a notice of *kind* has come, if it has a callback."""
        await self._reached(kind, self._heard)

    async def attempted(self, kind: NoticeKind) -> None:
        """Wait until the callback for *kind*, if there is one, has returned or raised."""
        await self._reached(kind, self._attempted)

    async def _reached(self, kind: NoticeKind, mark: set[NoticeKind]) -> None:
        async with self._news:
            await self._news.wait_for(lambda: kind in mark or self._callbacks.of(kind) is None)

    async def _mark(self, kind: NoticeKind, mark: set[NoticeKind]) -> None:
        async with self._news:
            mark.add(kind)
            self._news.notify_all()

    # ── hearing ──────────────────────────────────────────────────────────────────────────

    async def _read(self, kinds: NoticeKind, opened: asyncio.Future[None]) -> None:
        interest = Interest(job=self._job.id, kinds=kinds | NoticeKind.ENDED, after=self._last)
        try:
            async with aclosing(hear(self._connection, interest, patience=None)) as heard:
                async for event in heard:
                    if isinstance(event, Pulse) and not opened.done():
                        opened.set_result(None)
                    elif isinstance(event, NoticeAnswer):
                        await self._put(event)
                        if event.kind == NoticeKind.ENDED.label:
                            return
        except TransferdError as error:
            if not opened.done():
                opened.set_exception(error)
            elif not isinstance(error, NotFound):  # the job has ended while we were away
                raise
        finally:
            if not opened.done():  # replaced or closed before it began
                opened.set_result(None)

    async def _put(self, notice: NoticeAnswer) -> None:
        await self._mark(NoticeKind[notice.kind.upper()], self._heard)
        if notice.number is None:
            merged = self._modification is not None
            self._modification = notice
            if merged:
                return
        else:
            if notice.number in self._pending:
                return
            self._pending.add(notice.number)
        try:
            await self._queue.put(notice)
        except asyncio.CancelledError:
            self._withdraw(notice)
            raise
        if notice.number is not None:
            self._last = max(self._last or 0, notice.number)

    def _withdraw(self, notice: NoticeAnswer) -> None:
        if notice.number is None:
            self._modification = None
        else:
            self._pending.discard(notice.number)

    # ── delivering ───────────────────────────────────────────────────────────────────────

    async def _deliver(self) -> None:
        while (notice := await self._queue.get()).kind != NoticeKind.ENDED.label:
            self._idle.clear()
            try:
                await self._handle(self._newest(notice))
            finally:
                if notice.number is not None:
                    self._pending.discard(notice.number)
                self._idle.set()

    def _newest(self, notice: NoticeAnswer) -> NoticeAnswer:
        if notice.number is None and self._modification is not None:
            notice, self._modification = self._modification, None
        return notice

    async def _handle(self, notice: NoticeAnswer) -> None:
        handled = notice.number in self._handled or await self._run(notice)
        if handled and notice.acknowledge and notice.number is not None:
            self._handled.add(notice.number)
            await self._acknowledge(notice.number)

    async def _run(self, notice: NoticeAnswer) -> bool:
        """Call the callback; whether it has returned."""
        kind = NoticeKind[notice.kind.upper()]
        callback = self._callbacks.of(kind)
        if callback is None:  # replaced meanwhile
            return False
        self._job.learn(notice.job)
        async with self._slots:
            token = _inside.set(True)
            try:
                outcome = callback(self._job, notice)
                if inspect.isawaitable(outcome):
                    await outcome
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something inside the callback was cancelled, not we.
                self._report(notice, "was cancelled")
                return False
            except Exception as error:  # noqa: BLE001 - a stranger's code; its failure is an answer
                self._report(notice, f"raised {type(error).__name__}: {error}", error)
                return False
            finally:
                _inside.reset(token)
                await self._mark(kind, self._attempted)
        return True

    def _report(self, notice: NoticeAnswer, outcome: str, error: Exception | None = None) -> None:
        again = "it is called again later" if notice.acknowledge else "it is not called again"
        log.error(
            "the %s callback of job %s %s; %s",
            notice.kind,
            self._job.id,
            outcome,
            again,
            exc_info=error,
        )

    async def _acknowledge(self, number: int) -> None:
        try:
            await self._acknowledger.acknowledge([number])
        except NotFound:
            log.debug("notice %s is not kept any more", number)
        except TransferdError as error:
            log.warning("cannot acknowledge notice %s: %s; it is tried again", number, error)
