"""How a worker process comes to life: launched, heard until it says Hello, configured."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from transferd.model.errors import LinkBroken
from transferd.model.job import Seconds
from transferd.service.testimony import legible
from transferd.service.worker import Launch, Patience, Worker, WorkerGone
from transferd.wire import bounds, codec, link
from transferd.wire.ancillary import refuse_descriptors
from transferd.wire.channel import Channel

log = logging.getLogger(__name__)

#: Interpreters that start at once, on a machine of a few cores; more would only be slower…
_AT_ONCE = 8
#: …but one that takes longer than this keeps nobody else waiting.
_TURN: Seconds = 3.0
#: What is kept of the text that a worker writes in place of Hello…
_LINES, _LINE = 6, 200
#: …and how much of it is read.
_TEXT = 64 * 1024


class Complaint:
    """The last lines of what a worker wrote before it said Hello, or instead."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._size = 0

    def add(self, line: bytes) -> None:
        """Take a line.

        Raises:
            LinkBroken: there was too much.
        """
        self._size += len(line) + 1
        text = legible(line.decode("utf-8", "replace").expandtabs(1)).strip()
        if text:
            self._lines.append(bounds.cut(text, _LINE))
        if self._size > _TEXT:
            raise LinkBroken(f"it wrote more than {_TEXT} bytes before it said Hello")

    def __str__(self) -> str:
        return " / ".join(self._lines)


class Startup:
    """Starts workers, a few at a time."""

    def __init__(self, launch: Launch, patience: Patience) -> None:
        self._launch = launch
        self._patience = patience
        self._places = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until it is somebody's turn to start; not for long, whoever is slow."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        turn = loop.call_later(_TURN, self._places.release)
        try:
            yield
        finally:
            if turn.when() > loop.time():
                turn.cancel()
                self._places.release()

    async def launch(self, owner: int, part: Callable[[Worker, str], None]) -> Worker:
        """Return a new process of *owner*'s that has not said anything yet.

        Raises:
            WorkerGone: there is none.
            OwnerRefused: none runs as that user.
        """
        with ExitStack() as ends:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours = refuse_descriptors(ours)
            ends.callback(ours.close)
            try:
                async with asyncio.timeout(self._patience.hello):
                    with theirs:
                        process = await self._launch(owner, theirs)
            except OSError as error:  # a TimeoutError is one
                why = str(error) or f"it took longer than {self._patience.hello:g} s"
                raise WorkerGone(f"cannot start a worker for uid {owner}: {why}") from error
            ends.pop_all()
        channel = await Channel.open(ours, codec.decode_from_worker, max_line=bounds.LINE)
        return Worker(owner, process, channel, part)

    async def greet(self, worker: Worker, settings: link.WorkerSettings) -> None:
        """Wait for Hello, and say how to behave.

        Raises:
            LinkBroken: it did not come; the reason ends with what the worker wrote instead.
        """
        complaint = Complaint()
        try:
            async with asyncio.timeout(self._patience.hello):
                await self._hear_hello(worker.channel, complaint)
                await worker.channel.send(link.Configure(settings))
        except (TimeoutError, LinkBroken) as error:
            why = str(error) or f"it did not say Hello within {self._patience.hello:g} s"
            wrote = str(complaint)
            raise LinkBroken(f"{why}; it wrote: {wrote}" if wrote else why) from error
        if wrote := str(complaint):
            fields = {"owner": worker.owner, "pid": worker.process.pid, "detail": wrote}
            log.warning("worker.complained", extra={"fields": fields})

    async def _hear_hello(self, channel: Channel[link.FromWorker], complaint: Complaint) -> None:
        while await channel.arrived():
            line = channel.take_line() or b""
            try:
                message = channel.read(line)
            except LinkBroken:
                complaint.add(line)
                continue
            if isinstance(message, link.Hello):
                return
            raise LinkBroken("it said something else than Hello")
        complaint.add(channel.rest)
        raise LinkBroken("it ended before it said Hello")
