"""The whole service over a real queue file, with a worker that does what the test says.

The worker is the one fake: it stands at the other end of the worker link, which is a port of ours.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from transferd.assembly import Parts, Ports, assemble, own_user
from transferd.config import Config
from transferd.model.caller import Caller
from transferd.model.errors import LinkBroken
from transferd.model.failures import Failure
from transferd.model.job import File, FileSpec, Inode, Job, JobId, JobSpec, Settings, Timers
from transferd.model.notices import Event, Notice, NoticeKind, Page
from transferd.service.clock import SystemClock
from transferd.service.figures import Figures
from transferd.service.workers import Launch
from transferd.store.opening import Store, open_store
from transferd.wire import chores, codec, link
from transferd.wire.answers import Answers
from transferd.wire.channel import Channel
from transferd.wire.message import Message

ME = Caller(uid=os.getuid(), gid=os.getgid(), pid=1, admin=False)
STRANGER = Caller(uid=os.getuid() + 1, gid=1, pid=2, admin=False)

#: Waits that a test does not notice.
QUICK = msgspec.convert(
    {
        "queue": {"soon_seconds": 0.01, "min_retry_delay_seconds": 1},
        "fleet": {"start_spread_seconds": 0},
        "notices": {"redeliver_seconds": 0.05, "modification_seconds": 0.01},
    },
    Config,
)
TIMERS = Timers(min_retry_delay=0.01, no_progress_timeout=1000, max_download_time=0)
SETTINGS = Settings(name="test", timers=TIMERS)

MessageT = TypeVar("MessageT", bound=Message)


def spec(*files: str, start: bool = True, settings: Settings = SETTINGS) -> JobSpec:
    """Ask for a job with these destinations."""
    return JobSpec(
        settings=settings,
        files=tuple(FileSpec(remote=f"http://127.0.0.1{name}", local=name) for name in files),
        start=start,
    )


class ScriptedWorker:
    """The other end of a worker link. Files are *fetched* by the test's word only."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pid = 1
        self.heard: list[link.ToWorker] = []
        self._news = asyncio.Event()
        self._channel: Channel[link.ToWorker] | None = None
        self.refusals: list[chores.Refusal] = []
        #: What is wrong with destinations.
        self.invalid: list[chores.Refusal] = []
        #: What is wrong with files that somebody else had.
        self.out_of_reach: list[chores.Refusal] = []
        #: Whether it leaves that question to the test.
        self.mute = False
        #: Temporaries that a survey finds.
        self.leftovers: list[str] = []
        self.command_status: int | None = 0
        #: Whether Stop is answered.
        self.obedient = True
        #: Whether the next message is the last that it reads, as of a stopped process.
        self.deaf = False
        self.task: asyncio.Task[None] | None = None

    def kill(self) -> None:
        """Die of SIGKILL."""
        self._leave(-9)

    def terminate(self) -> None:
        """Leave of SIGTERM."""
        self._leave(0)

    async def wait(self) -> int:
        """Wait for the end of the process."""
        return await asyncio.shield(self._exit)

    async def serve(self) -> None:
        """Answer what needs no decision."""
        self._channel = await Channel.open(self._end, codec.decode_to_worker)
        try:
            await self._channel.send(link.Hello(self.pid))
            while (message := await self._channel.receive()) is not None:
                self.heard.append(message)
                await self._answer(message)
                self._news.set()
                if self.deaf:
                    await self.wait()
        except LinkBroken:
            pass  # the daemon has closed it with something unread
        finally:
            self._leave(0)
            await self._channel.close()

    async def _answer(self, message: link.ToWorker) -> None:
        match message:
            case chores.Inspect():
                await self.say(chores.Inspected(message.request, tuple(self.invalid)))
            case chores.Assume() if not self.mute:
                await self.say(chores.Inspected(message.request, tuple(self.out_of_reach)))
            case chores.Publish():
                await self.say(chores.Published(message.request, tuple(self.refusals)))
            case chores.Discard():
                await self.say(chores.Discarded(message.request))
            case chores.Survey():
                await self.say(chores.Surveyed(message.request, tuple(self.leftovers)))
            case chores.RunCommand():
                await self.say(chores.CommandEnded(message.request, self.command_status))
            case link.Stop() if self.obedient:
                await self.say(link.Stopped(message.job, message.run))
            case _:
                pass

    async def say(self, message: Message) -> None:
        """Send to the daemon."""
        assert self._channel is not None
        await self._channel.send(message)

    def say_at_once(self, *messages: Message) -> None:
        """Send several to the daemon in one go."""
        assert self._channel is not None
        for message in messages:
            self._channel.post(message)

    async def hears(self, kind: type[MessageT], count: int = 1) -> MessageT:
        """Wait for the *count*-th message of a kind and return it."""
        async with asyncio.timeout(10):
            while len(found := [m for m in self.heard if isinstance(m, kind)]) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]

    async def fetch(self, start: link.Start | link.Extend, *files: File) -> None:
        """Report files of a run as fetched, all of them by default."""
        await self.say(link.Connected(start.job, start.run))
        for file in files or start.files:
            inode = Inode(device=1, number=file.index + 1)
            await self.say(link.Opened(start.job, start.run, file.index, inode))
            size = max(10, file.bytes_transferred)
            await self.say(link.FileDone(start.job, start.run, file.index, size, inode))

    async def carry(self, start: link.Start | link.Extend) -> None:
        """Report a run as fetched to its last file."""
        await self.fetch(start)
        await self.say(link.Drained(start.job, start.run))

    async def fail(self, start: link.Start, code: str, retry_after: float | None = None) -> None:
        """Report a run as failed."""
        failure = Failure(code=code, message=f"cannot go on: {code}")
        await self.say(link.Failed(start.job, start.run, failure, retry_after))

    def _leave(self, status: int) -> None:
        if not self._exit.done():
            self._exit.set_result(status)
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()


@dataclass
class Service:
    """A running service and its workers, in the order in which they were started."""

    parts: Parts
    store: Store
    figures: Figures
    workers: list[ScriptedWorker] = field(default_factory=list)
    _by_owner: dict[int, ScriptedWorker] = field(default_factory=dict)
    _started: asyncio.Event = field(default_factory=asyncio.Event)

    async def worker(self, number: int = 0) -> ScriptedWorker:
        """Wait for a worker to be started."""
        async with asyncio.timeout(10):
            while len(self.workers) <= number:
                self._started.clear()
                await self._started.wait()
        return self.workers[number]

    async def create(self, wanted: JobSpec) -> Job:
        """Make one job."""
        (created,) = await self.parts.jobs.create(ME, [wanted])
        return created.job

    async def next_notice(
        self, job: Job, kinds: NoticeKind, after: int | None = 0, caller: Caller = ME
    ) -> Notice:
        """Wait for a notice about a job of the caller's; it is not acknowledged."""
        async with asyncio.timeout(10):
            listening = self.parts.notifier.subscribe(
                caller, job_id=job.id, kinds=kinds, after=after
            )
            async with one_by_one(listening) as events:
                async for event in events:
                    if isinstance(event, Notice):
                        return event
        raise AssertionError("the stream ended")

    async def until(self, job: Job, reached: Callable[[Job], bool], caller: Caller = ME) -> Job:
        """Wait until a job of the caller's is as wanted."""
        kinds = NoticeKind.MODIFICATION
        async with asyncio.timeout(10):
            listening = self.parts.notifier.subscribe(
                caller, job_id=job.id, kinds=kinds, after=None
            )
            async with one_by_one(listening) as events:
                while not reached(seen := await self.parts.jobs.get(caller, job.id)):
                    await anext(events)
        return seen

    async def worker_of(self, owner: int) -> ScriptedWorker:
        """Wait for an owner's worker to be started."""
        async with asyncio.timeout(10):
            while owner not in self._by_owner:
                self._started.clear()
                await self._started.wait()
        return self._by_owner[owner]

    def adopt(self, owner: int, worker: ScriptedWorker) -> None:
        """Take note of a worker that was just started."""
        self.workers.append(worker)
        self._by_owner[owner] = worker
        self._started.set()


@asynccontextmanager
async def one_by_one(
    listening: AbstractAsyncContextManager[AsyncIterator[Page]],
) -> AsyncIterator[AsyncIterator[Event]]:
    """Take events out of their pages."""
    async with listening as pages:
        yield (event async for page in pages for event in page)


@asynccontextmanager
async def running_service(
    directory: Path,
    config: Config = QUICK,
    owner_of: Callable[[Caller], int] = own_user,
    launch: Launch | None = None,
) -> AsyncIterator[Service]:
    """Run the service over the queue file in *directory*; *owner_of* as in `Ports`.

    Without *launch* all workers are scripted ones.
    """
    clock = SystemClock()
    names = (JobId(str(uuid.UUID(int=n))) for n in itertools.count(uuid.uuid4().int >> 1))
    async with open_store(directory, new_id=lambda: next(names)) as store:
        service: Service

        async def launch_scripted(owner: int, end: socket.socket) -> ScriptedWorker:
            worker = ScriptedWorker(end.dup())
            worker.task = asyncio.create_task(worker.serve())
            service.adopt(owner, worker)
            return worker

        figures = Figures()
        ports = Ports(
            jobs=store.jobs,
            notices=store.notices,
            launch=launch or launch_scripted,
            clock=clock,
            answers=Answers(owner_name=str, wall_time=partial(datetime.fromtimestamp, tz=UTC)),
            meter=figures,
            owner_of=owner_of,
        )
        parts = assemble(config, ports)
        service = Service(parts, store, figures)
        await store.jobs.recover(clock.steady())
        organs = parts.organs
        alive = (organs.scheduler, organs.closing, parts.notifier, organs.workers)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(organ.run()) for organ in alive]
            try:
                yield service
            finally:
                await organs.runs.close()
                for task in tasks:
                    task.cancel()
                await organs.workers.close()
                for worker in service.workers:
                    worker.kill()
                    if worker.task is not None:
                        await asyncio.wait([worker.task])
