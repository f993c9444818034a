"""The daemon's end of a worker link, for tests: starts runs and keeps the books of the queue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.job import Checksum, File, FileSpec, JobId, Settings, Timers
from transferd.model.paths import temporary_path
from transferd.wire import codec, link
from transferd.wire.channel import Channel
from transferd.wire.message import Message
from transferd.worker.body import Bodies
from transferd.worker.dispatcher import Dispatcher
from transferd.worker.security import open_security_threads

USER, PASSWORD = "alice", "open sesame: ü"
JOB = JobId("00000000-0000-4000-8000-000000000001")
End: TypeAlias = link.Drained | link.Failed | link.Stopped
_MessageT = TypeVar("_MessageT", bound=Message)

#: Quick enough for tests, but nothing that hurries on its own.
LIMITS = link.WorkerSettings(
    user_agent="transferd/test",
    connect_timeout=5.0,
    stall_window=20.0,
    durable_seconds=0.05,
    progress_seconds=0.0,
)


#: A job without a proxy and without wishes.
PLAIN = Settings(
    name="test",
    timers=Timers(min_retry_delay=1, no_progress_timeout=100, max_download_time=100),
    proxy="direct",
)


def credential(
    scheme: Scheme,
    username: str = USER,
    password: str = PASSWORD,
    target: Target = Target.SERVER,
) -> link.LinkCredential:
    """A credential with a secret of its own, since the worker wipes it."""
    return link.LinkCredential(target, scheme, username, Secret(password))


def header(name: str, value: str) -> link.LinkHeader:
    """A secret header."""
    return link.LinkHeader(name, Secret(value))


@dataclass
class Book:
    """What the queue knows of the files of one job."""

    files: dict[int, File] = field(default_factory=dict)
    job: JobId = JOB

    @classmethod
    def of(cls, directory: Path, *remotes: str, checksum: Checksum | None = None) -> Book:
        """A job with files named after the last part of their paths."""
        book = cls()
        for index, remote in enumerate(remotes):
            name = remote.partition("?")[0].rpartition("/")[2] or "index"
            local = str(directory / f"{index}-{name}")
            spec = FileSpec(remote=remote, local=local, checksum=checksum)
            book.files[index] = File(index=index, spec=spec)
        return book

    @property
    def open(self) -> tuple[File, ...]:
        """Files that are not completed."""
        return tuple(file for file in self.files.values() if not file.completed)

    def temporary(self, index: int = 0) -> Path:
        """Where the bytes of a file are."""
        return Path(temporary_path(self.files[index].spec.local, self.job))

    def note(self, message: link.FromWorker) -> None:
        """Keep what a message says."""
        match message:
            case link.Opened() | link.Durable() | link.Reset() | link.FileDone():
                self.files[message.file] = self._changed(self.files[message.file], message)
            case _:
                pass

    def _changed(
        self, file: File, message: link.Opened | link.Durable | link.Reset | link.FileDone
    ) -> File:
        match message:
            case link.Opened():
                return replace(file, inode=message.inode)
            case link.Durable():
                # The worker's promise: so many bytes are there at this moment.
                assert self.temporary(file.index).stat().st_size >= message.offset
                return replace(
                    file,
                    bytes_transferred=message.offset,
                    parts=message.parts,
                    bytes_total=message.total,
                    validator=message.validator,
                )
            case link.Reset():
                return replace(
                    file, bytes_transferred=0, parts=(), bytes_total=None, validator=None
                )
            case link.FileDone():
                return replace(
                    file,
                    bytes_transferred=message.size,
                    parts=(),
                    bytes_total=message.size,
                    inode=message.inode,
                    completed=True,
                    length_unverified=message.length_unverified,
                )


class Desk:
    """Talks to one worker."""

    def __init__(self, channel: Channel[link.FromWorker], pid: int) -> None:
        self.channel = channel
        self.pid = pid
        self.heard: list[link.FromWorker] = []
        #: Answer each Reset and Sized at once; off, to look at the time before.
        self.records = True
        self._run = 0

    @property
    def run(self) -> int:
        """Number of the latest run."""
        return self._run

    async def start(
        self,
        book: Book,
        *,
        credentials: Iterable[link.LinkCredential] = (),
        headers: Iterable[link.LinkHeader] = (),
        settings: Settings = PLAIN,
        bounded: bool = False,
    ) -> None:
        """Begin a run of everything that is open."""
        self._run += 1
        await self.channel.send(
            link.Start(
                book.job,
                self._run,
                settings,
                book.open,
                tuple(credentials),
                tuple(headers),
                bounded,
            )
        )

    async def next(self, book: Book) -> link.FromWorker:
        """Take the next message and keep it in the books."""
        async with asyncio.timeout(30):
            message = await self.channel.receive()
        assert message is not None, f"the worker is gone; it said {self.heard[-5:]}"
        self.heard.append(message)
        book.note(message)
        if isinstance(message, link.Reset | link.Sized) and self.records:
            await self.channel.send(link.Recorded(message.job, message.run, message.file))
        return message

    async def until(
        self,
        book: Book,
        kind: type[_MessageT],
        test: Callable[[_MessageT], bool] = lambda _: True,
    ) -> _MessageT:
        """Take messages until one of that kind passes the test."""
        while True:
            message = await self.next(book)
            if isinstance(message, kind) and test(message):
                return message
            assert not isinstance(message, End), f"the run ended early: {message}"

    async def end(self, book: Book) -> End:
        """Take messages until the run ends; a drained one is finished."""
        while not isinstance(message := await self.next(book), End):
            pass
        if isinstance(message, link.Drained):
            await self.channel.send(link.Finish(book.job, self._run))
        return message

    async def carry(
        self,
        book: Book,
        *,
        credentials: Iterable[link.LinkCredential] = (),
        headers: Iterable[link.LinkHeader] = (),
        settings: Settings = PLAIN,
    ) -> End:
        """Begin a run and see it to its end."""
        await self.start(book, credentials=credentials, headers=headers, settings=settings)
        return await self.end(book)

    async def stop(self, book: Book) -> None:
        """Stop the run and wait for its last word."""
        await self.channel.send(link.Stop(book.job, self._run))
        await self.until_stopped(book)

    async def until_stopped(self, book: Book) -> None:
        """Take messages until the run has stopped."""
        while not isinstance(await self.next(book), link.Stopped):
            pass

    def of(self, kind: type[_MessageT]) -> list[_MessageT]:
        """Everything of one kind that was heard."""
        return [message for message in self.heard if isinstance(message, kind)]


async def _greet(ours: socket.socket, limits: link.WorkerSettings) -> Desk:
    channel = await Channel.open(ours, codec.decode_from_worker)
    hello = await channel.receive()
    assert isinstance(hello, link.Hello)
    await channel.send(link.Configure(limits))
    return Desk(channel, hello.pid)


@contextlib.asynccontextmanager
async def worker_task(
    limits: link.WorkerSettings = LIMITS, *, bodies: int = 8
) -> AsyncIterator[Desk]:
    """A worker in this very loop, with threads for so many bodies."""
    ours, theirs = socket.socketpair()
    channel = await Channel.open(theirs, codec.decode_to_worker)
    security = open_security_threads()
    with ThreadPoolExecutor(8) as threads, ThreadPoolExecutor(8) as moving:
        dispatcher = Dispatcher(
            channel, threads, Bodies(moving, bodies), security, secrets.token_bytes
        )
        serving = asyncio.create_task(dispatcher.serve())
        desk = await _greet(ours, limits)
        try:
            yield desk
        finally:
            await desk.channel.close()
            async with asyncio.timeout(10):
                await serving
            security.shutdown(wait=False)


@contextlib.asynccontextmanager
async def worker_process(limits: link.WorkerSettings = LIMITS) -> AsyncIterator[Desk]:
    """A worker as the daemon starts it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "transferd.worker", "--fd", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    desk = await _greet(ours, limits)
    try:
        yield desk
    finally:
        await desk.channel.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
