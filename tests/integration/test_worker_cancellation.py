"""A run is stopped at every single await, and whatever it leaves behind must hold."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.support.acceptors import Digest, guarded
from tests.support.origin import Document, Fault, Page, Version, redirect
from tests.support.ways import Way
from tests.support.worker import LIMITS, PASSWORD, USER, Book, credential
from transferd.model.credentials import Scheme
from transferd.model.job import Checksum
from transferd.transfer.ranges import coverage_of
from transferd.wire import link
from transferd.wire.message import Message
from transferd.worker.body import Bodies
from transferd.worker.caps import Caps
from transferd.worker.deference import Flows
from transferd.worker.job import Run
from transferd.worker.lanes import Equipment, Spares
from transferd.worker.partfile import PartFile
from transferd.worker.shelf import Shelves
from transferd.worker.trust import Trust

BODY = random.Random(11).randbytes(1_300_000)  # noqa: S311
CHECKSUM = Checksum(algorithm="sha256", digest=hashlib.sha256(BODY).hexdigest())


class Counted:
    """Awaits a coroutine, and acts as soon as it has begun its n-th wait."""

    def __init__(
        self, work: Coroutine[object, object, None], at: int, act: Callable[[], None]
    ) -> None:
        self._work = work
        self._at = at
        self._act = act
        self.waits = 0

    def __await__(self) -> Generator[object, object, None]:
        error: BaseException | None = None
        value: object = None
        while True:
            try:
                waited = self._work.throw(error) if error is not None else self._work.send(value)
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._at:
                asyncio.get_running_loop().call_soon(self._act)
            try:
                value, error = (yield waited), None
            except BaseException as thrown:  # noqa: BLE001
                error = thrown


class Stage:
    """Runs of one job without a link between."""

    def __init__(self, book: Book, threads: Executor, way: Way) -> None:
        self._book = book
        self._way = way
        self._threads = threads
        self._run: Run | None = None
        self.said: list[Message] = []

    async def live(self, stop_at: int) -> int:
        """Carry the job, stop it at that wait, and return how many waits there were."""
        equipment = Equipment(
            limits=msgspec.structs.replace(LIMITS, durable_seconds=0.0),
            threads=self._threads,
            bodies=Bodies(self._threads, self._way.bodies),
            flows=Flows(),
            caps=Caps(),
            security=self._threads,
            trust=Trust(self._threads),
            shelves=Shelves(self._threads),
            spares=Spares(),
            randomness=secrets.token_bytes,
            post=self._hear,
        )
        held = (credential(Scheme.DIGEST),)
        run = self._run = Run(
            link.Start(self._book.job, 1, self._way.settings, self._book.open, held), equipment
        )
        run.finish()
        counted = Counted(run.live(), stop_at, run.stop)

        async def carry() -> None:
            await counted

        async with asyncio.timeout(20):
            await asyncio.create_task(carry())
        return counted.waits

    def _hear(self, message: Message) -> None:
        self.said.append(message)
        if isinstance(message, link.Opened | link.Durable | link.Reset | link.FileDone):
            self._book.note(message)
        if isinstance(message, link.Reset) and self._run is not None:
            asyncio.get_running_loop().call_soon(self._run.recorded, message.file)


def fresh_page() -> Page:
    """A file that wants to be asked twice."""
    return guarded(Document(version=Version(body=BODY)), Digest(USER, PASSWORD))


@pytest.mark.parametrize("begun", [False, True])
async def test_a_run_can_be_stopped_at_every_await(way: Way, tmp_path: Path, begun: bool) -> None:
    """Wherever Stop finds it: an answer, a free file, books that hold, and a run that goes on.

    The second round begins with bytes of another version, so that there is a Reset on the way.
    """
    at, origin = 0, way.origin
    with ThreadPoolExecutor(4) as threads:
        origin.pages["/from"] = redirect("/f")
        waits = at
        # As many waits as there are, and one more that is not reached.
        while waits >= at:
            at += 1
            origin.pages["/f"] = fresh_page()
            book = Book.of(tmp_path, origin.url("/from"), checksum=CHECKSUM)
            if begun:
                await _begin(way, book, threads)
            waits = await _stopped_and_carried_on(way, book, threads, at)
            assert book.temporary().read_bytes() == BODY
            book.temporary().unlink()
    assert at > 10


async def _begin(way: Way, book: Book, threads: Executor) -> None:
    old = Document(
        version=Version(body=BODY[::-1], etag='"v0"'), faults=deque([Fault(cut=600_000)])
    )
    pages = way.origin.pages
    page, pages["/f"] = pages["/f"], old
    await Stage(book, threads, way).live(0)
    assert book.files[0].bytes_transferred == 600_000
    pages["/f"] = page


async def _stopped_and_carried_on(way: Way, book: Book, threads: Executor, at: int) -> int:
    stage = Stage(book, threads, way)
    waits = await stage.live(at)
    kept = coverage_of(book.files[0])
    local, temporary = book.files[0].spec.local, book.temporary()
    if not book.files[0].completed:
        assert isinstance(stage.said[-1], link.Stopped)
        # Nobody holds its lock, and what was called durable is there.
        PartFile.open(local, str(temporary), kept).close()
        await stage.live(0)
    assert isinstance(stage.said[-1], link.Drained | link.Stopped)
    assert book.files[0].completed
    return waits
