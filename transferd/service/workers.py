"""Worker processes: started on demand, one per owner; heard, asked, and gone when idle.

What a worker says of a run goes to the Listener; an answer goes to whoever asked. A worker that
dies, or that is cut off for what it did, takes its runs and open questions with it, never the
daemon, and nobody waits for its process to be gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from transferd.model.errors import LinkBroken, OwnerRefused
from transferd.model.job import Seconds
from transferd.service.burials import Burials, kill
from transferd.service.hearing import Hearing, Listener, watch
from transferd.service.meter import Meter
from transferd.service.ports import Clock
from transferd.service.restraint import Restraint
from transferd.service.startup import Startup
from transferd.service.testimony import Question
from transferd.service.worker import (
    Launch,
    Patience,
    Process,
    Worker,
    WorkerGone,
    WorkerRefused,
)
from transferd.wire import chores, link
from transferd.wire.message import Message

__all__ = [
    "Launch",
    "Listener",
    "Patience",
    "Process",
    "Worker",
    "WorkerGone",
    "WorkerRefused",
    "Workers",
]

log = logging.getLogger(__name__)

_AnswerT = TypeVar(
    "_AnswerT",
    chores.Inspected,
    chores.Published,
    chores.Discarded,
    chores.CommandEnded,
    chores.Surveyed,
)

#: An owner whose killed workers do not go gets no more than so many beside them.
_UNDEAD = 3
#: So often a worker is started in place of one that was started as it should not be any more.
_STARTS = 3


class Workers:
    """All worker processes of the daemon."""

    def __init__(
        self,
        launch: Launch,
        settings: link.WorkerSettings,
        idle: Seconds,
        clock: Clock,
        meter: Meter,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._startup = Startup(launch, patience)
        self._meter = meter
        self._settings = settings
        self._idle = idle
        self._clock = clock
        self._patience = patience
        self._listener: Listener | None = None
        self._workers: dict[int, Worker] = {}
        #: Those that are not to be given anything any more, but have not done yet.
        self._retired: set[Worker] = set()
        #: How often workers were to be started otherwise from then on.
        self._renewals = 0
        self._starts: dict[int, asyncio.Task[Worker]] = {}
        self._restraint = Restraint()
        self._lives: dict[Worker, asyncio.Task[None]] = {}
        self._burials = Burials(meter, patience)
        self._turns = asyncio.Lock()
        self._requests = itertools.count(1)
        self._released = asyncio.Event()
        self._closed = False

    def listen(self, listener: Listener) -> None:
        """Say who hears of runs; before the first worker starts."""
        self._listener = listener

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> Mapping[int, int]:
        """The process of each owner who has a worker."""
        return {owner: worker.process.pid for owner, worker in self._workers.items()}

    def configure(self, settings: link.WorkerSettings, idle: Seconds) -> None:
        """Behave otherwise from now on; runs that are under way keep what they began with."""
        self._settings = settings
        self._idle = idle
        self._released.set()
        for worker in self._workers.values():
            worker.channel.post(link.Configure(settings))

    def renew(self) -> None:
        """Have workers replaced, since the next ones are started otherwise: with other variables,
        or not at all. Each leaves when it has done what it was given.
        """
        self._renewals += 1
        for worker in list(self._workers.values()):
            del self._workers[worker.owner]
            self._retired.add(worker)
            self._mark_idle(worker)

    def barred_until(self, owner: int) -> Seconds | None:
        """Return until when the owner gets no worker, because the last ones fell; None: now."""
        return self._restraint.until(owner, self._clock.steady())

    # ── what others want of them ─────────────────────────────────────────────────────────

    async def hold(self, owner: int, run: int) -> Worker:
        """Return the owner's worker, started if need be, and keep it for *run*.

        Raises:
            WorkerGone: it could not be started.
            WorkerRefused: none runs as that user.
        """
        worker = await self._ready(owner)
        worker.runs.add(run)
        return worker

    def release(self, worker: Worker, run: int) -> None:
        """Let go of a worker that was held for *run*."""
        worker.runs.discard(run)
        self._mark_idle(worker)

    async def ask(
        self, owner: int, question: Callable[[int], chores.Chore], kind: type[_AnswerT]
    ) -> _AnswerT:
        """Ask the owner's worker and wait for the answer; one that hangs is ended.

        Raises:
            WorkerGone: it died or hung before it answered, or could not be started.
            WorkerRefused: none runs as that user.
        """
        worker = await self._ready(owner)
        patience = self._patience.answer
        if kind is chores.CommandEnded:
            patience += self._settings.command_timeout
        number = next(self._requests)
        message = question(number)
        expected = worker.ask(number, Question.of(message))
        try:
            async with asyncio.timeout(patience):
                await self.send(worker, message)
                answer = await expected
        except TimeoutError:
            worker.cut_off("it did not answer a question")
            raise WorkerGone(f"the worker of uid {owner} did not answer") from None
        finally:
            # An answer that comes later was asked for all the same.
            expected.cancel()
            self._mark_idle(worker)
        if not isinstance(answer, kind):
            raise AssertionError("the question was not one for that kind of answer")
        return answer

    async def send(self, worker: Worker, message: Message) -> None:
        """Send to a worker; one that reads nothing is ended.

        Raises:
            WorkerGone: it is not there any more.
        """
        if worker.channel.offer(message):
            return
        try:
            async with asyncio.timeout(self._patience.read):
                await worker.channel.send(message)
        except TimeoutError:
            worker.cut_off(f"it read nothing for {self._patience.read:g} s")
            raise WorkerGone(f"the worker of uid {worker.owner} reads nothing") from None
        except LinkBroken as error:
            raise WorkerGone(f"cannot reach the worker of uid {worker.owner}: {error}") from error

    # ── their lives ──────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """End workers that are idle for long enough; runs until cancelled."""
        while True:
            waits = [w.idle_since + self._idle for w in self._workers.values() if not w.busy]
            with suppress(TimeoutError):
                delay = min(waits) - self._clock.steady() if waits else None
                async with asyncio.timeout(max(delay, 0.01) if delay is not None else None):
                    await self._released.wait()
            self._released.clear()
            now = self._clock.steady()
            for worker in list(self._workers.values()):
                if not worker.busy and now - worker.idle_since >= self._idle:
                    self._dismiss(worker)

    async def close(self) -> None:
        """End all workers; they get a moment to leave by themselves, and no more than that."""
        self._closed = True
        self._burials.hurry()
        for start in self._starts.values():
            start.cancel()
        for worker in (*self._workers.values(), *self._retired):
            self._dismiss(worker)
        if self._starts:
            await asyncio.wait(self._starts.values(), timeout=self._patience.close)
        await self._burials.close()

    async def _ready(self, owner: int) -> Worker:
        worker = self._workers.get(owner)
        if worker is not None:
            return worker
        start = self._starts.get(owner)
        if start is None:
            self._check_start(owner)
            start = asyncio.create_task(self._start(owner), name=f"worker {owner} start")
            self._starts[owner] = start
            start.add_done_callback(lambda done: self._started(owner, done))
        # Whoever stops waiting leaves the start to those who wait with him.
        await asyncio.wait([start])
        worker = self._workers.get(owner)
        if worker is not None:
            return worker
        if start.cancelled():
            raise WorkerGone("the daemon is stopping")
        error = start.exception()
        if isinstance(error, OwnerRefused):
            raise WorkerRefused(str(error))
        raise WorkerGone(str(error) if error else f"the worker of uid {owner} died at once")

    def _check_start(self, owner: int) -> None:
        if self._closed:
            raise WorkerGone("the daemon is stopping")
        now = self._clock.steady()
        if self._restraint.until(owner, now) is not None:
            raise WorkerGone(self._restraint.explain(owner, now))
        if self._burials.undead(owner) >= _UNDEAD:
            raise WorkerGone(
                f"{_UNDEAD} killed workers of uid {owner} do not end: they wait in the kernel,"
                " most likely for a file server"
            )

    def _started(self, owner: int, start: asyncio.Task[Worker]) -> None:
        del self._starts[owner]
        if not start.cancelled():
            start.exception()  # nobody may be waiting for it

    async def _start(self, owner: int) -> Worker:
        try:
            async with self._startup.place():
                worker = await self._new(owner)
        except (WorkerGone, OwnerRefused):
            raise
        except Exception as error:
            log.exception("worker.unstartable", extra={"fields": {"owner": owner}})
            raise WorkerGone(f"cannot start a worker for uid {owner}: {error}") from error
        if self._closed:
            self._dismiss(worker)
            raise WorkerGone("the daemon is stopping")
        worker.idle_since = self._clock.steady()
        self._workers[owner] = worker
        self._lives[worker] = asyncio.create_task(self._live(worker), name=f"worker {owner}")
        self._meter.worker_started()
        fields = {"owner": owner, "pid": worker.process.pid}
        log.info("worker.started", extra={"fields": fields})
        return worker

    async def _new(self, owner: int) -> Worker:
        """Return a worker that was started, and configured, as is right now."""
        for _ in range(_STARTS):
            renewals = self._renewals
            worker = await self._launch(owner)
            settings = self._settings
            await self._greet(worker, settings)
            if settings is not self._settings:
                worker.channel.post(link.Configure(self._settings))
            if renewals == self._renewals:
                return worker
            self._dismiss(worker)
        raise WorkerGone(f"cannot start a worker for uid {owner}: the configuration keeps changing")

    async def _launch(self, owner: int) -> Worker:
        try:
            return await self._startup.launch(owner, self._part)
        except WorkerGone as error:
            self._restraint.fell(owner, 0.0, self._clock.steady(), str(error))
            raise

    async def _greet(self, worker: Worker, settings: link.WorkerSettings) -> None:
        worker.born = self._clock.steady()
        try:
            await self._startup.greet(worker, settings)
        except LinkBroken as error:
            worker.cut_off(str(error))
            message = f"cannot start a worker for uid {worker.owner}: {error}"
            raise WorkerGone(message) from error
        except asyncio.CancelledError:
            worker.cut_off("the daemon is stopping")
            raise

    async def _live(self, worker: Worker) -> None:
        """Hear a worker until it is gone, or ends up where it is cut off."""
        hearing = Hearing(worker, self._listener, self._turns, self._clock)
        fault: str | None = None
        try:
            async with asyncio.TaskGroup() as group:
                pulse = group.create_task(watch(worker, self._clock, self._patience))
                await hearing.listen()
                pulse.cancel()
        except* LinkBroken as broken:
            fault = str(broken.exceptions[0])
        except* Exception:
            log.exception("worker.unheard", extra={"fields": {"owner": worker.owner}})
            fault = "the daemon has a fault of its own"
        self._part(worker, fault)

    def _dismiss(self, worker: Worker) -> None:
        """Tell a worker to leave, by closing the link, and count it as gone."""
        worker.dismissed = True
        self._part(worker, None)

    def _part(self, worker: Worker, fault: str | None) -> None:
        """Count a worker as gone: at once, whatever its process does. Again is no harm."""
        if worker.parted:
            return
        worker.parted, worker.fault = True, fault
        if self._workers.get(worker.owner) is worker:
            del self._workers[worker.owner]
        self._retired.discard(worker)
        reason = f"the worker of uid {worker.owner} died"
        if fault is not None:
            reason = f"the worker of uid {worker.owner} was cut off: {fault}"
            fields = {"owner": worker.owner, "pid": worker.process.pid, "reason": fault}
            log.warning("worker.cut_off", extra={"fields": fields})
            kill(worker)
        if not worker.dismissed:
            now = self._clock.steady()
            self._restraint.fell(worker.owner, now - worker.born, now, fault or "it died")
        worker.leave_unanswered(reason)
        if self._listener is not None and worker.runs:
            self._listener.lost(worker, reason)
        worker.runs.clear()
        self._burials.bury(worker, self._lives.pop(worker, None))

    def _mark_idle(self, worker: Worker) -> None:
        if worker.busy:
            return
        if worker in self._retired:
            self._dismiss(worker)
        worker.idle_since = self._clock.steady()
        self._released.set()
