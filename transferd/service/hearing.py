"""Hears one worker: in turns, at a bounded pace, and not for longer than it tells the truth.

All workers share the daemon's loop with the API and the scheduler. Whoever has something to say
gets a short turn, then everybody else does; between two turns the loop sees to the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Protocol

from transferd.model.errors import LinkBroken
from transferd.model.job import Seconds
from transferd.service.allowance import Allowance
from transferd.service.ports import Clock
from transferd.service.testimony import (
    Heed,
    RunMessage,
    examine_answer,
    examine_line,
    examine_run,
)
from transferd.service.worker import Patience, Worker
from transferd.wire import chores, link

log = logging.getLogger(__name__)

#: Messages and bytes of one turn: a few thousandths of a second at most, and mostly much less.
TURN_MESSAGES, TURN_BYTES = 16, 64 * 1024
#: What a worker may say before it is heard more slowly, in messages and a second; a long message
#: counts for each KiB of it. Five thousand small files a second stay below.
_PACE, _PACE_BURST = 20_000.0, 40_000.0
#: Of it, what says little or nothing new and could be said for ever: twice as much as for five
#: thousand small files a second. An honest worker leaves it out when the link is behind, so that
#: more of it is not an accident.
_TALK, _TALK_BURST = 10_000.0, 100_000.0
#: Lines for the log; more are left out. An honest worker keeps to less by itself. A long one counts
#: as a long message does: to look for secrets in it takes the loop's time.
_LINES, _LINES_BURST = 30.0, 400.0
#: Credentials that were accepted or rejected, which go to the log as well: for each connection one
#: or two.
_AUDITS, _AUDITS_BURST = 100.0, 2000.0

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Listener(Protocol):
    """Who hears what workers say of runs."""

    def heard(self, worker: Worker, message: RunMessage) -> Heed:
        """Take a message; it is sound by itself. Must not wait.

        Raises:
            LinkBroken: it cannot be true.
        """
        ...

    async def caught_up(self, worker: Worker) -> None:
        """Wait until the worker's runs have taken what it said of them."""
        ...

    def lost(self, worker: Worker, reason: str) -> None:
        """The worker is gone, with all of its runs."""
        ...


class Hearing:
    """Hears one worker until it is gone."""

    def __init__(
        self, worker: Worker, listener: Listener | None, turns: asyncio.Lock, clock: Clock
    ) -> None:
        """Take also the lock that all hearings share: it is handed on in turn."""
        self._worker = worker
        self._listener = listener
        self._turns = turns
        self._clock = clock
        now = clock.steady()
        self._pace = Allowance(_PACE, _PACE_BURST, now)
        self._talk = Allowance(_TALK, _TALK_BURST, now)
        self._lines = Allowance(_LINES, _LINES_BURST, now)
        self._audits = Allowance(_AUDITS, _AUDITS_BURST, now)
        self._left_out = 0
        #: Of the message that is looked at: as many as it counts for.
        self._weight = 1.0

    async def listen(self) -> None:
        """Hear the worker until the other end of the link is closed.

        Raises:
            LinkBroken: it spoke nonsense, lied or talked too much.
        """
        while await self._worker.channel.arrived():
            self._worker.turns += 1
            async with self._turns:
                if self._worker.parted:
                    return
                wait = self._take_turn()
                # The turn lasts until the loop has come round.
                await asyncio.sleep(0)
            if self._listener is not None:
                self._worker.held_up = True
                await self._listener.caught_up(self._worker)
                self._worker.held_up = False
            if wait:
                await self._clock.sleep(wait)

    def _take_turn(self) -> Seconds:
        """Take what is here, up to a bound; returns how long not to listen after that."""
        channel, before = self._worker.channel, self._worker.channel.taken
        count = spent = 0
        while count < TURN_MESSAGES and spent < TURN_BYTES:
            message = channel.take()
            if message is None:
                break
            self._weight = 1 + (channel.taken - before - spent) / 1024
            count, spent = count + 1, channel.taken - before
            self._take(message)
        return self._pace.spend(count + spent / 1024, self._clock.steady())

    def _take(self, message: link.FromWorker) -> None:
        match message:
            case link.Hello():
                raise LinkBroken("it says Hello again")
            case link.Pong():
                self._take_sign(message)
            case link.Said():
                self._write_down(examine_line(message))
            case (
                chores.Inspected()
                | chores.Published()
                | chores.Discarded()
                | chores.CommandEnded()
                | chores.Surveyed()
            ):
                self._take_answer(message)
            case _:
                self._take_report(examine_run(message))

    def _take_sign(self, pong: link.Pong) -> None:
        if pong.request != self._worker.pinged:
            raise LinkBroken("it gives a sign of life that nobody asked for")
        self._worker.pinged = None

    def _take_answer(self, answer: chores.Answer) -> None:
        question = self._worker.asked(answer.request)
        self._worker.answered(answer.request, examine_answer(question, answer))

    def _take_report(self, message: RunMessage) -> None:
        if isinstance(message, link.Audited) and not self._affords(self._audits):
            return
        if self._listener is not None:
            heed = self._listener.heard(self._worker, message)
            if heed is not Heed.NEWS:
                self._count_talk()

    def _affords(self, lines: Allowance) -> bool:
        """Whether the log has room for a line; one that is left out is counted."""
        if lines.afford(self._weight, self._clock.steady()):
            return True
        self._left_out += 1
        self._count_talk()
        return False

    def _count_talk(self) -> None:
        if not self._talk.afford(self._weight, self._clock.steady()):
            raise LinkBroken("it talks without an end")

    def _write_down(self, said: link.Said) -> None:
        """Put a line into the log: it says whose it is, and passes for none of the daemon's."""
        if not self._affords(self._lines):
            return
        left_out, self._left_out = self._left_out, 0
        fields = {
            "owner": self._worker.owner,
            "pid": self._worker.process.pid,
            "said": said.event,
            "detail": " ".join(f"{name}={json.dumps(v)}" for name, v in said.fields.items()),
            "left_out": left_out or None,
        }
        log.log(_LEVELS[said.level], "worker.said", extra={"fields": fields})


async def watch(worker: Worker, clock: Clock, patience: Patience) -> None:
    """Ask a silent worker for signs of life until it gives none.

    Intervals are counted, not seconds: while the machine sleeps nobody can answer.

    Raises:
        LinkBroken: it gave none.
    """
    misses = number = 0
    while misses < patience.signs:
        turns = worker.turns
        await clock.sleep(patience.silence)
        if worker.turns != turns or worker.held_up:
            misses = 0
            continue
        if worker.pinged is not None:
            misses += 1
            continue
        number += 1
        worker.pinged = number
        worker.channel.post(link.Ping(number))
    raise LinkBroken(f"it gave no sign of life for {patience.silence * patience.signs:g} s")
