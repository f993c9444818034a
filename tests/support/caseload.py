"""Many jobs on one worker: begun at once, and begun again as the daemon would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from tests.support.worker import PLAIN, Book, Desk
from transferd.model.credentials import NegotiateOptions, Scheme, Secret, Target
from transferd.model.failures import Failure
from transferd.model.job import JobId
from transferd.wire import link
from transferd.wire.chores import Answer

_PATIENCE_SECONDS = 60.0
#: A job that fails more often than this in a row does not get on.
_MAX_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a job is."""

    #: As servers call him.
    name: str
    scheme: Scheme
    #: None: whoever the owner is already.
    username: str | None
    password: str = field(default="", repr=False)
    options: NegotiateOptions = NegotiateOptions()

    @property
    def credential(self) -> link.LinkCredential:
        """A credential with a secret of its own, since the worker wipes it."""
        return link.LinkCredential(Target.SERVER, self.scheme, self.username, Secret(self.password))


@dataclass
class Case:
    """One job."""

    number: int
    book: Book
    who: Identity
    #: Who it is to be once it was stopped; then, who it was before.
    other: Identity | None = None
    changed: bool = False
    runs: int = 0
    over: bool = False
    #: Why runs of it failed; time was to heal each.
    failures: list[Failure] = field(default_factory=list)
    audits: list[link.Audited] = field(default_factory=list)

    def content(self, file: int) -> bytes:
        """Return what a file has by now."""
        return self.book.temporary(file).read_bytes()


class Caseload:
    """The jobs, and the daemon's end of them."""

    def __init__(
        self, desk: Desk, remote: Callable[[int, int, str], str], *, again: bool = True
    ) -> None:
        """Take what tells where a file is: given the job, the file, and for whom it is meant.

        A job that failed is over, unless it is to be begun *again*.
        """
        self._desk = desk
        self._remote = remote
        self._again = again
        self.cases: dict[JobId, Case] = {}

    def add(self, number: int, directory: Path, files: int, who: Identity) -> Case:
        """Add a job, not yet begun."""
        directory.mkdir()
        remotes = [self._remote(number, file, who.name) for file in range(files)]
        book = Book.of(directory, *remotes)
        book.job = JobId(str(UUID(int=number + 1)))
        self.cases[book.job] = Case(number, book, who)
        return self.cases[book.job]

    async def carry(self, stops: asyncio.Queue[int] | None = None) -> None:
        """Begin every job and see all to their ends; stop those that come out of *stops*."""
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._stop(stops or asyncio.Queue()))
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for case in self.cases.values():
                    await self._begin(case)
                while not all(case.over for case in self.cases.values()):
                    await self._hear()
            stopping.cancel()

    @property
    def failures(self) -> Iterable[Failure]:
        """Why runs failed that were begun again."""
        return [failure for case in self.cases.values() for failure in case.failures]

    async def _begin(self, case: Case) -> None:
        case.runs += 1
        assert case.runs <= _MAX_RUNS, f"job {case.number} does not get on: {case.failures}"
        settings = replace(PLAIN, negotiate=case.who.options)
        await self._desk.channel.send(
            link.Start(case.book.job, case.runs, settings, case.book.open, (case.who.credential,))
        )

    async def _stop(self, stops: asyncio.Queue[int]) -> None:
        by_number: Mapping[int, Case] = {case.number: case for case in self.cases.values()}
        while True:
            case = by_number[await stops.get()]
            await self._desk.channel.send(link.Stop(case.book.job, case.runs))

    async def _hear(self) -> None:
        message = await self._desk.channel.receive()
        assert message is not None, "the worker is gone"
        if isinstance(message, link.Said):
            return
        assert not isinstance(message, link.Hello | link.Pong | Answer)
        case = self.cases[message.job]
        case.book.note(message)
        match message:
            case link.Reset():
                await self._desk.channel.send(link.Recorded(message.job, message.run, message.file))
            case link.Audited():
                case.audits.append(message)
            case link.Drained():
                await self._desk.channel.send(link.Finish(message.job, message.run))
                case.over = True
            case link.Failed():
                await self._failed(case, message.failure)
            case link.Stopped():
                await self._hand_over(case)
            case _:
                pass

    async def _failed(self, case: Case, failure: Failure) -> None:
        assert failure.kind.transient, failure
        case.failures.append(failure)
        if self._again:
            await self._begin(case)
        else:
            case.over = True

    async def _hand_over(self, case: Case) -> None:
        """Go on with a stopped job as somebody else."""
        assert case.other is not None
        assert not case.changed
        case.who, case.other, case.changed = case.other, case.who, True
        for file in case.book.open:
            remote = self._remote(case.number, file.index, case.who.name)
            spec = replace(file.spec, remote=remote)
            case.book.files[file.index] = replace(file, spec=spec)
        await self._begin(case)
