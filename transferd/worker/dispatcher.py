"""Reads what the daemon wants and gives it to tasks: one for each run, one for each question."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from functools import partial
from time import monotonic

from transferd.auth.flow import Randomness
from transferd.model.errors import LinkBroken
from transferd.model.job import JobId
from transferd.wire.bounds import bounded
from transferd.wire.channel import Channel
from transferd.wire.chores import (
    Assume,
    Chore,
    CommandEnded,
    Discard,
    Discarded,
    Inspect,
    Inspected,
    Publish,
    Published,
    Refusal,
    RunCommand,
    Survey,
    Surveyed,
)
from transferd.wire.link import (
    Configure,
    Extend,
    Finish,
    Hello,
    Ping,
    Pong,
    Progress,
    Recorded,
    Retune,
    Start,
    Stop,
    Terms,
    ToWorker,
    WorkerSettings,
)
from transferd.wire.message import Message
from transferd.worker.body import Bodies
from transferd.worker.caps import Caps
from transferd.worker.command import run_command
from transferd.worker.deference import Flows
from transferd.worker.inspection import inspect
from transferd.worker.job import Run
from transferd.worker.lanes import Equipment, Spares
from transferd.worker.publication import discard, publish
from transferd.worker.shelf import Shelves
from transferd.worker.succession import assume
from transferd.worker.survey import survey
from transferd.worker.trust import Trust

log = logging.getLogger(__name__)


class Dispatcher:
    """The worker's end of the link."""

    def __init__(
        self,
        channel: Channel[ToWorker],
        threads: Executor,
        bodies: Bodies,
        security: Executor,
        randomness: Randomness,
    ) -> None:
        self._channel = channel
        self._threads = threads
        self._security = security
        self._randomness = randomness
        self._trust = Trust(threads)
        self._bodies = bodies
        self._shelves = Shelves(threads)
        self._spares = Spares()
        self._flows = Flows()
        self._caps = Caps()
        self._limits = WorkerSettings(user_agent="transferd")
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[JobId, tuple[Run, asyncio.Task[None]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Serve until the daemon is gone, or until `leave` was called. No task outlives this."""
        self._channel.post(Hello(os.getpid()))
        async with self._group:
            self._reader = self._group.create_task(self._read(), name="reader")
            await asyncio.wait([self._reader])
            await self._end()
        await self._spares.close()
        await self._channel.close()

    def leave(self) -> None:
        """Stop every run, report what is durable, and go."""
        for run, _ in self._runs.values():
            run.leave()
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                self._take(message)
        except LinkBroken as error:
            log.error("link.broken", extra={"fields": {"reason": str(error)}})

    async def _end(self) -> None:
        """Wait for runs that were told to leave, then end whatever else there is."""
        leaving = [task for run, task in self._runs.values() if run.stopping]
        if leaving:
            await asyncio.wait(leaving)
        for task in self._tasks:
            task.cancel()

    def _take(self, message: ToWorker) -> None:
        match message:
            case Configure():
                self._limits = message.settings
            case Start():
                self._start(message)
            case Extend() | Finish() | Stop() | Recorded() | Retune():
                self._steer(message)
            case Terms():
                self._caps.limit(message.rates, monotonic())
                self._flows.others = message.others
            case Ping():
                self.say(Pong(message.request))
            case _:
                self._spawn(self._take_question(message))

    def say(self, message: Message) -> None:
        """Send to the daemon, which takes no texts without an end.

        While it is behind nobody looks at progress.
        """
        if not (isinstance(message, Progress) and self._channel.behind):
            self._channel.post(bounded(message))

    # ── runs ───────────────────────────────────────────────────────────────────────────────

    def _start(self, start: Start) -> None:
        equipment = Equipment(
            limits=self._limits,
            threads=self._threads,
            bodies=self._bodies,
            flows=self._flows,
            caps=self._caps,
            security=self._security,
            trust=self._trust,
            shelves=self._shelves,
            spares=self._spares,
            randomness=self._randomness,
            post=self.say,
        )
        run = Run(start, equipment)
        before = self._runs.get(start.job)
        task = self._spawn(self._live(run, before), name=f"job {start.job}")
        self._runs[start.job] = (run, task)
        task.add_done_callback(partial(self._over, run))

    async def _live(self, run: Run, before: tuple[Run, asyncio.Task[None]] | None) -> None:
        if before is not None:
            # The daemon has given that run up; its file is locked until it has left.
            before[0].leave()
            await asyncio.wait([before[1]])
        await run.live()

    def _over(self, run: Run, _: asyncio.Task[None]) -> None:
        current = self._runs.get(run.job)
        if current is not None and current[0] is run:
            del self._runs[run.job]

    def _steer(self, message: Extend | Finish | Stop | Recorded | Retune) -> None:
        run, _ = self._runs.get(message.job, (None, None))
        if run is None or run.number != message.run:
            # Said to a run that was over by then.
            return
        match message:
            case Extend():
                run.extend(message.files)
            case Finish():
                run.finish()
            case Stop():
                run.stop()
            case Recorded():
                run.recorded(message.file)
            case Retune():
                run.retune(message.priority, message.max_rate, message.streams)

    # ── questions ──────────────────────────────────────────────────────────────────────────

    def _take_question(self, message: Chore) -> Coroutine[None, None, None]:
        match message:
            case RunCommand():
                return self._command(message)
            case Inspect():
                ask = partial(inspect, message.paths, frozenset(message.new))
                reply = partial(Inspected, message.request)
                return self._answer(ask, range(len(message.paths)), reply)
            case Assume():
                ask = partial(assume, message.files, message.former)
                numbers = [file.number for file in message.files]
                return self._answer(ask, numbers, partial(Inspected, message.request))
            case Publish():
                ask = partial(publish, message.files)
                numbers = [file.number for file in message.files]
                return self._answer(ask, numbers, partial(Published, message.request))
            case Discard():
                ask = partial(discard, message.leftovers)
                numbers = [leftover.number for leftover in message.leftovers]
                return self._answer(ask, numbers, partial(Discarded, message.request))
            case Survey():
                return self._survey(message)

    async def _answer(
        self,
        ask: Callable[[], tuple[Refusal, ...]],
        numbers: Iterable[int],
        reply: Callable[[tuple[Refusal, ...]], Message],
    ) -> None:
        """Ask the file system, in a thread; a fault of ours refuses everything."""
        loop = asyncio.get_running_loop()
        try:
            refusals = await loop.run_in_executor(self._threads, ask)
        except Exception as error:  # noqa: BLE001
            # Whoever asked waits for an answer, and gets one.
            kind = type(error).__name__
            log.error("question.fault", extra={"fields": {"kind": kind}})
            message = f"cannot say: the worker has a fault of its own ({kind})"
            refusals = tuple(Refusal(number, "worker_fault", message) for number in numbers)
        self.say(reply(refusals))

    async def _survey(self, message: Survey) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, survey, message.directories)
        self.say(Surveyed(message.request, found))

    async def _command(self, message: RunCommand) -> None:
        status, detail = await run_command(
            message.argv, message.environment, message.stdin, self._limits.command_timeout
        )
        self.say(CommandEnded(message.request, status, detail))

    def _spawn(
        self, work: Coroutine[None, None, None], name: str = "question"
    ) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
