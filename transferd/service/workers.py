"""Worker processes: started on demand, one per owner; heard, asked, and gone when idle.

What a worker says of a run goes to the Listener; an answer goes to whoever asked. A worker that
dies takes its runs and open questions with it, never the daemon.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from transferd.model.errors import LinkBroken, TransferdError
from transferd.model.job import Seconds
from transferd.service.ports import Clock, Meter
from transferd.wire import link
from transferd.wire.channel import Channel

log = logging.getLogger(__name__)

Answer = link.Inspected | link.Published | link.Discarded | link.CommandEnded | link.Surveyed
_AnswerT = TypeVar(
    "_AnswerT",
    link.Inspected,
    link.Published,
    link.Discarded,
    link.CommandEnded,
    link.Surveyed,
)

#: A worker that was told to leave gets this long…
_GRACE: Seconds = 4.0
#: …or this long when the daemon itself is to leave…
_CLOSING_GRACE: Seconds = 0.5
#: …and one that was killed this long: in an uninterruptible wait it may outlive all of us.
_DEATH: Seconds = 1.0
_HELLO: Seconds = 30.0
#: Longer than the slowest disk takes for a batch of files.
ANSWER_PATIENCE: Seconds = 120.0


class WorkerGone(TransferdError):
    """The worker died, or could not be started."""


class Process(Protocol):
    """A started worker process."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def terminate(self) -> None:
        """Ask it to leave."""
        ...

    async def wait(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        ...


#: Starts the worker of an owner with the given end of the socket pair.
Launch = Callable[[int, socket.socket], Awaitable[Process]]


class Listener(Protocol):
    """Who hears what workers say of runs."""

    def heard(self, owner: int, message: link.FromWorker) -> None:
        """Take a message that is not an answer. Must not wait."""
        ...

    def lost(self, owner: int) -> None:
        """The owner's worker is gone, with all of its runs."""
        ...


class Worker:
    """One living worker process."""

    def __init__(self, owner: int, process: Process, channel: Channel[link.FromWorker]) -> None:
        self.owner = owner
        self.process = process
        self.channel = channel
        self.runs: set[int] = set()
        self.answers: dict[int, asyncio.Future[Answer]] = {}
        self.idle_since: Seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether somebody needs it."""
        return bool(self.runs or self.answers)

    def kill(self) -> None:
        """End its process at once, if there still is one."""
        with suppress(ProcessLookupError):
            self.process.kill()


class Workers:
    """All worker processes of the daemon."""

    def __init__(
        self,
        launch: Launch,
        settings: link.WorkerSettings,
        idle: Seconds,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._launch = launch
        self._meter = meter
        self._settings = settings
        self._idle = idle
        self._clock = clock
        self._listener: Listener | None = None
        self._workers: dict[int, Worker] = {}
        self._starting: dict[int, asyncio.Lock] = {}
        self._readers: dict[Worker, asyncio.Task[None]] = {}
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

    async def hold(self, owner: int, run: int) -> Worker:
        """Return the owner's worker, started if need be, and keep it for *run*.

        Raises:
            WorkerGone: it could not be started.
        """
        worker = await self._ready(owner)
        worker.runs.add(run)
        return worker

    def release(self, worker: Worker, run: int) -> None:
        """Let go of a worker that was held for *run*."""
        worker.runs.discard(run)
        self._mark_idle(worker)

    async def ask(
        self, owner: int, question: Callable[[int], link.Message], kind: type[_AnswerT]
    ) -> _AnswerT:
        """Ask the owner's worker and wait for the answer; one that hangs is ended.

        Raises:
            WorkerGone: it died or hung before it answered, or could not be started.
        """
        worker = await self._ready(owner)
        patience = ANSWER_PATIENCE
        if kind is link.CommandEnded:
            patience += self._settings.command_timeout
        number = next(self._requests)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        worker.answers[number] = future
        try:
            async with asyncio.timeout(patience):
                await self.send(worker, question(number))
                answer = await future
        except TimeoutError:
            worker.kill()
            self._forget(worker)
            raise WorkerGone(f"the worker of uid {owner} did not answer") from None
        finally:
            worker.answers.pop(number, None)
            self._mark_idle(worker)
        if not isinstance(answer, kind):
            raise WorkerGone("the worker gave an answer to another question")
        return answer

    async def send(self, worker: Worker, message: link.Message) -> None:
        """Send to a worker.

        Raises:
            WorkerGone: it is not there any more.
        """
        try:
            await worker.channel.send(message)
        except (LinkBroken, OSError) as error:
            raise WorkerGone(f"cannot reach the worker of uid {worker.owner}: {error}") from error

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
                    await self._end(worker)

    async def close(self) -> None:
        """End all workers; they get a moment to leave by themselves."""
        self._closed = True
        async with asyncio.TaskGroup() as group:
            for worker in list(self._workers.values()):
                group.create_task(self._end(worker))

    async def _ready(self, owner: int) -> Worker:
        lock = self._starting.setdefault(owner, asyncio.Lock())
        async with lock:
            worker = self._workers.get(owner)
            if worker is None:
                worker = await self._start(owner)
            return worker

    async def _start(self, owner: int) -> Worker:
        if self._closed:
            raise WorkerGone("the daemon is stopping")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                process = await self._launch(owner, theirs)
        except OSError as error:
            ours.close()
            raise WorkerGone(f"cannot start a worker for uid {owner}: {error}") from error
        channel = await Channel.open(ours, link.decode_from_worker)
        worker = Worker(owner, process, channel)
        worker.idle_since = self._clock.steady()
        try:
            async with asyncio.timeout(_HELLO):
                hello = await channel.receive()
            if not isinstance(hello, link.Hello):
                raise LinkBroken("it did not say hello")
            await channel.send(link.Configure(self._settings))
        except (TimeoutError, LinkBroken, OSError) as error:
            worker.kill()
            await self._reap(worker)
            raise WorkerGone(f"cannot start a worker for uid {owner}: {error}") from error
        except asyncio.CancelledError:
            worker.kill()
            await self._reap(worker)
            raise
        self._workers[owner] = worker
        self._readers[worker] = asyncio.create_task(
            self._read(worker), name=f"worker {owner} reader"
        )
        self._meter.worker_started()
        log.info("worker.started", extra={"fields": {"owner": owner, "pid": process.pid}})
        return worker

    async def _read(self, worker: Worker) -> None:
        """Take what the worker says until it is gone."""
        try:
            while (message := await worker.channel.receive()) is not None:
                self._dispatch(worker, message)
        except (LinkBroken, OSError) as error:
            fields = {"owner": worker.owner, "reason": str(error)}
            log.warning("worker.link_broken", extra={"fields": fields})
        finally:
            self._forget(worker)
        status = await self._reap(worker)
        self._meter.worker_ended(status)
        fields = {"owner": worker.owner, "pid": worker.process.pid, "status": status}
        log.info("worker.ended", extra={"fields": fields})

    def _dispatch(self, worker: Worker, message: link.FromWorker) -> None:
        if isinstance(message, Answer):
            future = worker.answers.get(message.request)
            if future is not None and not future.done():
                future.set_result(message)
        elif self._listener is not None and not isinstance(message, link.Hello):
            self._listener.heard(worker.owner, message)

    def _forget(self, worker: Worker) -> None:
        if self._workers.get(worker.owner) is worker:
            del self._workers[worker.owner]
        for future in worker.answers.values():
            if not future.done():
                future.set_exception(WorkerGone(f"the worker of uid {worker.owner} died"))
        if self._listener is not None and worker.runs:
            self._listener.lost(worker.owner)
        worker.runs.clear()

    async def _end(self, worker: Worker) -> None:
        """Close the link, which tells the worker to leave, and wait for its end."""
        self._forget(worker)
        reader = self._readers.get(worker)
        await worker.channel.close()
        if reader is not None:
            await asyncio.wait([reader])

    async def _reap(self, worker: Worker) -> int | None:
        """Wait for the end of a worker, by force in the end; None: nothing helps."""
        self._readers.pop(worker, None)
        await worker.channel.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_GRACE if self._closed else _GRACE):
                return await worker.process.wait()
        worker.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DEATH):
                return await worker.process.wait()
        return None

    def _mark_idle(self, worker: Worker) -> None:
        if not worker.busy:
            worker.idle_since = self._clock.steady()
            self._released.set()
