"""One worker process, and what the daemon has asked of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from transferd.model.errors import OwnerRefused, TransferdError
from transferd.model.job import Seconds
from transferd.service.testimony import Question
from transferd.wire import link
from transferd.wire.channel import Channel
from transferd.wire.chores import Answer


class WorkerGone(TransferdError):
    """The worker died or was cut off, or could not be started."""


class WorkerRefused(WorkerGone, OwnerRefused):
    """No worker runs as that user: the machine or its configuration says so."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long workers are waited for."""

    #: One that was started has so long for its Hello.
    hello: Seconds = 30.0
    #: Longer than the slowest disk takes for a batch of files.
    answer: Seconds = 120.0
    #: One that reads nothing for so long, while something is sent to it, is cut off.
    read: Seconds = 45.0
    #: A worker that has said nothing for so long is asked for a sign of life…
    silence: Seconds = 15.0
    #: …and cut off when it does not give one so many times in a row. Kerberos libraries may keep
    #: its loop from turning for a while.
    signs: int = 3
    #: One that was told to leave gets so long…
    grace: Seconds = 4.0
    #: …or so long when the daemon itself is to leave…
    closing_grace: Seconds = 0.5
    #: …and one that was killed so long: in an uninterruptible wait it may outlive all of us.
    death: Seconds = 1.0
    #: When the daemon leaves, all of them together get so long.
    close: Seconds = 3.0


class _Asked:
    """A question, and who waits for the answer."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class Worker:
    """One living worker process."""

    def __init__(
        self,
        owner: int,
        process: Process,
        channel: Channel[link.FromWorker],
        part: Callable[[Worker, str], None],
    ) -> None:
        """Take also who is told, at once, when the worker is to be cut off, and why."""
        self.owner = owner
        self.process = process
        self.channel = channel
        self.runs: set[int] = set()
        self.born: Seconds = 0.0
        self.idle_since: Seconds = 0.0
        #: Why it was cut off, where it was.
        self.fault: str | None = None
        #: Whether it is not the owner's worker any more.
        self.parted = False
        #: Whether it was told to leave.
        self.dismissed = False
        #: The Ping that it has not answered.
        self.pinged: int | None = None
        #: Turns in which it had something to say.
        self.turns = 0
        #: Whether it is the daemon that does not read, because runs have not caught up.
        self.held_up = False
        #: What it was told last of its share.
        self.terms = link.Terms()
        self._part = part
        self._asked: dict[int, _Asked] = {}

    @property
    def busy(self) -> bool:
        """Whether somebody needs it."""
        return bool(self.runs) or any(not a.answer.done() for a in self._asked.values())

    def cut_off(self, fault: str) -> None:
        """End it at once; *fault* says what it did. Nothing that it says counts any more."""
        self._part(self, fault)

    # ── questions ────────────────────────────────────────────────────────────────────────

    def ask(self, number: int, question: Question) -> asyncio.Future[Answer]:
        """Take note of a question; the future holds its answer, or WorkerGone."""
        asked = self._asked[number] = _Asked(question)
        return asked.answer

    def asked(self, number: int) -> Question | None:
        """Return the open question of that number."""
        asked = self._asked.get(number)
        return None if asked is None else asked.question

    def answered(self, number: int, answer: Answer) -> None:
        """Hand an answer to whoever waits for it, if anybody still does."""
        future = self._asked.pop(number).answer
        if not future.done():
            future.set_result(answer)

    def leave_unanswered(self, reason: str) -> None:
        """Tell everybody who waits for an answer that there will be none."""
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(WorkerGone(reason))
                # Nobody may be waiting any more.
                asked.answer.exception()
        self._asked.clear()
