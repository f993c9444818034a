"""Several ranges of one large file at once, where one connection is the bottleneck.

Beside the first body, which runs from where the file begins to be missing to its end, others are
begun in the middle of the largest part that is left. Each must bring a gain that can be measured,
or it is given up again. A range that breaks off leaves a hole, which the first lane fetches in the
end as it fetches any hole: with the same condition on the version, and the same checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from transferd.model.errors import TransferFailed
from transferd.model.job import File, Part
from transferd.transfer.ranges import Splitting, halve
from transferd.transfer.resume import Append, ask_for, judge
from transferd.worker.answer import Answer
from transferd.worker.body import Measure
from transferd.worker.errand import Errand
from transferd.worker.inquiry import read_response
from transferd.worker.lanes import Lane
from transferd.worker.sink import Sink
from transferd.worker.stretch import Stretch

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Share:
    """A part of the file that one connection fetches."""

    stretch: Stretch
    #: Where it ends, or the next one begins.
    limit: int

    @property
    def left(self) -> Part:
        """What is missing of it."""
        return Part(start=min(self.stretch.received, self.limit), end=self.limit)


class Spread:
    """One file on its way over several connections."""

    def __init__(
        self, file: File, sink: Sink, errand: Errand, measure: Measure, splitting: Splitting
    ) -> None:
        """Take a *file* whose size and version are known, and the *measure* of its first body."""
        self._file = file
        self._sink = sink
        self._errand = errand
        self._measure = measure
        self._splitting = splitting
        self._loop = asyncio.get_running_loop()
        #: Whether another connection would be no use.
        self.in_vain = False
        self._shares: list[Share] = []
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        #: Lanes that are wanted back, of those that are asked on or carry.
        self._recalled: set[Lane] = set()

    @contextlib.asynccontextmanager
    async def beside(self, stretch: Stretch, limit: int) -> AsyncIterator[None]:
        """Let others help while the block moves the body that *stretch* takes, as far as *limit*.

        It ends when they have done what they took over; at once, when the block fails.
        """
        first = Share(stretch, limit)
        self._shares.append(first)
        conductor = asyncio.create_task(self._conduct(), name="spread")
        try:
            yield
            self._shares.remove(first)
            while self._tasks:
                await asyncio.wait(self._tasks.values())
        finally:
            ending = {conductor, *self._tasks.values()}
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)

    async def _conduct(self) -> None:
        """Begin as many shares as pay; again, when the job may have other connections."""
        while not self.in_vain:
            await self._share_out()
            await self._errand.ledger.retuned()

    async def _share_out(self) -> None:
        """Begin one share after the other, as long as each pays."""
        before = await self._rate()
        while self._splitting.pays(sum(map(_left, self._shares)), before):
            begun = await self._begin()
            if begun is None:
                return
            after = await self._rate()
            if not begun.done() and not self._splitting.paid(before, after):
                begun.cancel()
                self.in_vain = True
                return
            before = after

    async def _rate(self) -> float:
        """Measure how many bytes come in a second."""
        began, there = self._loop.time(), self._sink.received.size
        await asyncio.sleep(self._splitting.period)
        return (self._sink.received.size - there) / (self._loop.time() - began)

    async def _begin(self) -> asyncio.Task[None] | None:
        """Begin in the middle of the largest share; None: there is nothing more to be had."""
        shares = [share for share in self._shares if share.stretch.pump is not None]
        choice = halve([share.left for share in shares], self._splitting.smallest)
        lane = None if choice is None else await self._errand.ledger.spare(self._recall)
        if choice is None or lane is None:
            return None
        donor, middle = shares[choice[0]], choice[1]
        with contextlib.ExitStack() as undo:
            # Also when the file is whole before there is an answer: the next one may need it.
            undo.callback(self._give_back, lane)
            try:
                answer = await self._ask(lane, middle, donor.limit)
            except TransferFailed as failed:
                self._say(failed.failure.message)
                return None
            if answer is None:
                return None
            undo.pop_all()
        return self._take_over(lane, answer, donor, middle)

    async def _ask(self, lane: Lane, start: int, end: int) -> Answer | None:
        """Ask for a part; None: the server does not give it so that it can be used."""
        request = ask_for(self._file, Part(start=start, end=end))
        if request is None:
            return None
        answer = await lane.inquiry.ask(self._file.spec.remote, request)
        with contextlib.ExitStack() as undo:
            undo.callback(answer.close)
            verdict = judge(self._file, request, read_response(answer))
            if not isinstance(verdict, Append) or verdict.end != end:
                self._say(f"the server answered {answer.status}")
                self.in_vain = True
                return None
            await self._sink.reserve(verdict.total)
            undo.pop_all()
        return answer

    def _take_over(
        self, lane: Lane, answer: Answer, donor: Share, middle: int
    ) -> asyncio.Task[None] | None:
        """Fetch what is behind *middle* of a share; None: that has come so far meanwhile.

        Nor is it when the lane has been recalled.
        """
        pump = donor.stretch.pump
        if pump is None or donor.stretch.received >= middle or lane in self._recalled:
            answer.close()
            self._give_back(lane)
            return None
        share = Share(self._sink.stretch(middle), donor.limit)
        # It may write a little behind the middle all the same: the same bytes of the same version.
        pump.limit = donor.limit = middle
        self._shares.append(share)
        task = asyncio.create_task(self._carry(lane, answer, share), name="range")
        self._tasks[lane] = task
        # Also of one that is cancelled before it begins.
        task.add_done_callback(lambda _: self._carried(lane, answer, share))
        return task

    async def _carry(self, lane: Lane, answer: Answer, share: Share) -> None:
        measure = replace(self._measure, length=share.limit - share.stretch.start)
        try:
            await lane.mover.move(answer, share.stretch, measure, lambda: None)
        except TransferFailed as failed:
            self._say(failed.failure.message)

    def _carried(self, lane: Lane, answer: Answer, share: Share) -> None:
        del self._tasks[lane]
        answer.close()
        self._shares.remove(share)
        self._give_back(lane)

    def _recall(self, lane: Lane) -> None:
        """Give a lane back soon; what it did not fetch is a hole."""
        self._recalled.add(lane)
        if lane in self._tasks:
            self._tasks[lane].cancel()

    def _give_back(self, lane: Lane) -> None:
        self._recalled.discard(lane)
        self._errand.ledger.give_back(lane)

    def _say(self, reason: str) -> None:
        fields = {"job": self._errand.job, "file": self._file.index, "reason": reason}
        log.info("range.given_up", extra={"fields": fields})


def _left(share: Share) -> int:
    return share.left.end - share.left.start
