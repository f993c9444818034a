"""One run of one job: its files in order, until the daemon has no more, or somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable

from transferd.model.credentials import Scheme, Target
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import File, Inode, JobId, Priority, Seconds
from transferd.wire.link import (
    Audited,
    Connected,
    Drained,
    Failed,
    Paced,
    Reset,
    Sized,
    Start,
    Stopped,
)
from transferd.wire.message import Message
from transferd.worker.batch import Deposit
from transferd.worker.crew import Crew
from transferd.worker.errand import Errand
from transferd.worker.fetch import FLUSH_SECONDS
from transferd.worker.lanes import Equipment, Lane, Lanes
from transferd.worker.manners import Manners
from transferd.worker.shelf import Deposits

log = logging.getLogger(__name__)

#: Small files of a run that wait for the disk.
_DEPOSITS = 256
#: So long a run may keep to itself that a server has let it in: a small file is whole sooner, and
#: the daemon hears of both at once.
_MOMENT: Seconds = 0.1


class Run:
    """One dispatch of one job. Fits `fetch.Ledger`."""

    def __init__(self, start: Start, equipment: Equipment) -> None:
        self.job: JobId = start.job
        self.number = start.run
        #: Whether it was told to leave.
        self.stopping = False
        #: Whether its files are to be left as they are, for whatever reason.
        self.leaving = False
        self._start = start
        self._equipment = equipment
        self._files: deque[File] = deque(start.files)
        self._finished = False
        self._asked = False
        self._more = asyncio.Event()
        self._records: dict[int, asyncio.Future[None]] = {}
        self._connected = False
        #: What goes with the next message, or alone when the turn or the moment is over.
        self._untold: list[Message] = []
        self._telling = False
        self._moment: asyncio.TimerHandle | None = None
        self._streams = start.settings.streams
        self._crew: Crew | None = None
        self._deposits = Deposits(equipment.shelves, _DEPOSITS)
        self._manners = Manners(
            equipment.limits,
            equipment.flows,
            equipment.caps,
            equipment.randomness,
            priority=start.settings.priority,
            max_rate=start.settings.max_rate,
            tell=self._tell_paced,
        )
        self._task: asyncio.Task[None] | None = None
        self._over = False

    # ── what the daemon says ───────────────────────────────────────────────────────────────

    def extend(self, files: tuple[File, ...]) -> None:
        """Take more files."""
        self._files.extend(files)
        self._more.set()

    def finish(self) -> None:
        """Take that there are no more files."""
        self._finished = True
        self._more.set()

    def retune(self, priority: Priority, max_rate: int | None, streams: int | None) -> None:
        """Go on with another priority, another limit and other connections."""
        self._manners.retune(priority, max_rate)
        self._streams = streams
        if self._crew is not None:
            self._crew.retune(streams)

    def recorded(self, file: int) -> None:
        """Take that the partial data of a file is forgotten, or that there is room for it."""
        waiting = self._records.pop(file, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def stop(self) -> None:
        """Leave the job at once; what has arrived is saved and reported, then Stopped."""
        self._asked = True
        self.leave()

    def leave(self) -> None:
        """Do as `stop` says, but without a last word: nobody waits for one."""
        if not self.stopping:
            self.stopping = self.leaving = True
            if self._task is not None and not self._over:
                self._task.cancel()

    # ── what its files say ─────────────────────────────────────────────────────────────────

    def connected(self) -> None:
        """Tell the daemon, once, that a server answered with a file."""
        if not self._connected:
            self._connected = True
            if self._crew is not None:
                self._crew.let_in()
            self._untold.append(Connected(self.job, self.number))
            self._moment = asyncio.get_running_loop().call_later(_MOMENT, self._tell_all)

    def _tell_paced(self, held: bool) -> None:
        if not self._over:
            self.tell(Paced(self.job, self.number, held))

    def tell(self, message: Message) -> None:
        """Send a message to the daemon."""
        self._untold.append(message)
        self._tell_all()

    def _tell_soon(self, message: Message) -> None:
        """Send a message at the end of this turn of the loop: the next one may go along."""
        self._untold.append(message)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_all)

    def _tell_all(self) -> None:
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        self._telling = False
        untold, self._untold = self._untold, []
        for message in untold:
            self._equipment.post(message)

    async def deposit(self, deposit: Deposit, done: Callable[[Inode], Message]) -> None:
        """Have a small file kept, and tell the daemon what *done* makes of that when it is.

        Waits while many wait for the disk.

        Raises:
            TransferFailed: one that was given before could not be kept.
        """
        await self._deposits.put(deposit, lambda inode: self._tell_soon(done(inode)))

    async def spare(self, recall: Callable[[Lane], None]) -> Lane | None:
        """See Ledger.spare."""
        return None if self._crew is None else await self._crew.spare(recall)

    def give_back(self, lane: Lane) -> None:
        """See Ledger.give_back."""
        if self._crew is not None:
            self._crew.give_back(lane)

    async def retuned(self) -> None:
        """See Ledger.retuned."""
        if self._crew is not None:
            await self._crew.retuned()

    async def forget(self, file: int) -> None:
        """Have the partial data of a file forgotten; returns when that is recorded."""
        await self._have_recorded(file, Reset(self.job, self.number, file))

    async def size(self, file: int, total: int) -> None:
        """Name the size of a file; where bytes are limited, returns when there is room for it."""
        if self._start.bounded:
            await self._have_recorded(file, Sized(self.job, self.number, file, total))

    async def _have_recorded(self, file: int, message: Message) -> None:
        recorded = self._records[file] = asyncio.get_running_loop().create_future()
        self.tell(message)
        await recorded

    # ── its life ───────────────────────────────────────────────────────────────────────────

    async def live(self) -> None:
        """Carry the job until it is finished, stopped or failed, and say which of these.

        Nothing but a cancellation that `stop` did not make ever comes out of here.
        """
        self._task = asyncio.current_task()
        last: Message | None
        try:
            last = await self._carry()
        except TransferFailed as failed:
            last = Failed(self.job, self.number, failed.failure, failed.retry_after)
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            last = self._stopped()
        except Exception as error:  # noqa: BLE001
            # A job fails alone, even by a fault of ours.
            last = Failed(self.job, self.number, self._fault(error))
        finally:
            self._over = True
            self._tell_all()
            self._wipe()
        if last is not None:
            self.tell(last)

    async def _carry(self) -> Message | None:
        """Work off the files; returns what there is to say at the end."""
        if self.stopping:
            return self._stopped()
        errand = Errand(
            job=self.job,
            run=self.number,
            settings=self._start.settings,
            limits=self._equipment.limits,
            threads=self._equipment.threads,
            ledger=self,
        )
        lent = (self._start, self._equipment, self._manners, self._audit)
        async with Lanes(*lent) as lanes, self._kept():
            crew = self._crew = Crew(
                self._files, errand, lanes, self._manners, self._streams, self._fail
            )
            while self._files or not self._finished:
                await crew.work_off()
                await self._deposits.settled()
                self.tell(Drained(self.job, self.number))
                while not self._files and not self._finished:
                    await self._more.wait()
                    self._more.clear()
            lanes.sound = True
        return None

    def _fail(self) -> None:
        self.leaving = True

    @contextlib.asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Let what is on its way to the disk arrive, and be told, however the block ends."""
        try:
            yield
        finally:
            await self._deposits.leave(FLUSH_SECONDS)

    def _stopped(self) -> Message | None:
        return Stopped(self.job, self.number) if self._asked else None

    def _audit(
        self, accepted: bool, target: Target, scheme: Scheme, host: str, mechanism: str | None
    ) -> None:
        self.tell(Audited(self.job, self.number, accepted, target, scheme, host, mechanism))

    def _fault(self, error: Exception) -> Failure:
        kind = type(error).__name__
        # Its text may hold anything that was at hand, so it stays here.
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.error("run.fault", extra={"fields": {"job": self.job, "kind": kind, "trace": trace}})
        return Failure(
            code="worker_fault", message=f"cannot go on: the worker has a fault of its own ({kind})"
        )

    def _wipe(self) -> None:
        for credential in self._start.credentials:
            credential.password.wipe()
        for header in self._start.headers:
            header.value.wipe()
