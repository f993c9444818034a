"""Who fetches the files of a run: as many at once as it may have connections.

How many these are may change under way. Who is one too many leaves his file to the others at the
byte that is durable, or fetches it to its end where it could not be gone on with there. Those who
help with a part of somebody's file go first, and the newest of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from transferd.model.errors import first_of
from transferd.model.job import File, Priority
from transferd.worker.errand import Errand
from transferd.worker.fetch import Fetch
from transferd.worker.lanes import Lane, Lanes
from transferd.worker.manners import Manners

#: Connections of a foreground job that says nothing of them.
_STREAMS = 4


@dataclass(slots=True, eq=False)
class _Member:
    """Somebody who fetches one file after the other."""

    #: None: the run's own, who is never one too many.
    task: asyncio.Task[None] | None = None
    fetch: Fetch | None = None

    def part(self) -> bool:
        """Let go of the file that it has, if it can be gone on with; whether that is so."""
        # Who has none just now looks whether he is one too many before he takes another.
        if self.fetch is None or self.fetch.parted:
            return True
        if self.task is None or not self.fetch.part():
            return False
        self.task.cancel()
        return True


class Crew:
    """The tasks of one run that fetch its files, each over a lane of its own."""

    def __init__(
        self,
        files: deque[File],
        errand: Errand,
        lanes: Lanes,
        manners: Manners,
        streams: int | None,
        fail: Callable[[], None],
    ) -> None:
        """Take from *files*, and call *fail* when one of them fails: then all are to be left."""
        self._files = files
        self._errand = errand
        self._lanes = lanes
        self._manners = manners
        self._asked = streams
        self._fail = fail
        self._group = asyncio.TaskGroup()
        #: Who fetches files, in the order in which they came.
        self._members: list[_Member] = []
        #: Lanes for parts of files, and who is told that one is wanted back.
        self._helpers: dict[Lane, Callable[[Lane], None]] = {}
        #: Set when a server has let somebody in.
        self._way_in = asyncio.Event()
        self._retuned = asyncio.Event()

    def let_in(self) -> None:
        """Take that a server has let somebody in."""
        self._way_in.set()

    def retune(self, streams: int | None) -> None:
        """Go on over so many connections, and with the priority that the run's manners have."""
        self._asked = streams
        self._dismiss()
        if self._members and not self._errand.ledger.leaving:
            self._hire()
        self._retuned.set()
        self._retuned = asyncio.Event()

    async def retuned(self) -> None:
        """Wait until the run is told how to go on."""
        await self._retuned.wait()

    async def work_off(self) -> None:
        """Fetch every file that there is.

        Raises:
            TransferFailed: one of them cannot be had now, or at all.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                first = _Member()
                self._members.append(first)
                self._hire()
                await self._fetch_files(first)
        except BaseExceptionGroup as failed:
            raise first_of(failed) from failed
        finally:
            self._members.clear()

    async def spare(self, recall: Callable[[Lane], None]) -> Lane | None:
        """See Ledger.spare: those of foreground jobs that wait for nothing else."""
        if not self._has_spare:
            return None
        lane = await self._lanes.take()
        if not self._has_spare:
            self._lanes.give(lane)
            return None
        self._helpers[lane] = recall
        return lane

    def give_back(self, lane: Lane) -> None:
        """See Ledger.give_back."""
        del self._helpers[lane]
        self._lanes.give(lane)

    @property
    def _front(self) -> bool:
        return self._manners.priority is Priority.FOREGROUND

    @property
    def _streams(self) -> int:
        """How many connections the run may have."""
        return self._asked or (_STREAMS if self._front else 1)

    @property
    def _has_spare(self) -> bool:
        busy = len(self._members) + len(self._helpers)
        return self._front and not self._files and busy < self._streams

    @property
    def _too_many(self) -> bool:
        return len(self._members) > self._streams

    def _hire(self) -> None:
        """Let more fetch files, where there are some and they may."""
        room = self._streams - len(self._members) - len(self._helpers)
        idle = sum(member.fetch is None for member in self._members)
        for _ in range(min(room, len(self._files) - idle)):
            member = _Member()
            member.task = self._group.create_task(self._join_in(member), name="crew")
            self._members.append(member)

    def _dismiss(self) -> None:
        """Let those go who are too many."""
        room = max(0, self._streams - len(self._members)) if self._front else 0
        for lane, recall in tuple(self._helpers.items())[room:]:
            recall(lane)
        over = len(self._members) - self._streams
        for member in reversed(self._members):
            if over > 0 and member.part():
                over -= 1

    async def _join_in(self, member: _Member) -> None:
        """Help, once it is known that there is a way in: nobody tries a wrong password twice."""
        await self._way_in.wait()
        await self._fetch_files(member)

    async def _fetch_files(self, member: _Member) -> None:
        try:
            if self._files and not self._too_many:
                lane = await self._lanes.take()
                while self._files and not self._too_many:
                    await self._fetch(member, lane, self._files.popleft())
                self._lanes.give(lane)
        except Exception:
            # What others have is saved before they end.
            self._fail()
            raise
        finally:
            self._way_in.set()
            self._members.remove(member)

    async def _fetch(self, member: _Member, lane: Lane, file: File) -> None:
        """Fetch a file, or as much of it as there is time for; the others have the rest."""
        fetch = member.fetch = Fetch(file, self._errand, lane.inquiry, lane.mover)
        try:
            await fetch.carry()
        except asyncio.CancelledError:
            # The whole run may have been told to leave meanwhile.
            if not fetch.parted or member.task is None or member.task.uncancel():
                raise
            self._files.appendleft(fetch.rest)
        member.fetch = None
