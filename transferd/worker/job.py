"""One run of one job: its files in order, until the daemon has no more, or somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from transferd.auth.flow import Randomness
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import File, JobId
from transferd.wire.link import (
    Audited,
    Connected,
    Drained,
    Failed,
    Message,
    Reset,
    Sized,
    Start,
    Stopped,
    WorkerSettings,
)
from transferd.worker.authenticator import Authenticator
from transferd.worker.body import Bodies, Mover
from transferd.worker.connection import Connector
from transferd.worker.errand import Errand
from transferd.worker.exchange import Exchange
from transferd.worker.fetch import Fetch
from transferd.worker.inquiry import Inquiry
from transferd.worker.security import Steps
from transferd.worker.trust import Trust

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a worker lends to its runs."""

    limits: WorkerSettings
    #: For disk calls alone: a slow name server must not hold up a write, nor the reverse.
    threads: Executor
    #: For bodies, and nothing else.
    bodies: Bodies
    #: For security libraries alone, which may wait for a KDC.
    security: Executor
    trust: Trust
    randomness: Randomness
    #: Sends to the daemon; keeps the order of the calls.
    post: Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """One connection of a run, with the sessions that were opened on it."""

    inquiry: Inquiry
    mover: Mover


class Run:
    """One dispatch of one job. Fits `fetch.Ledger`."""

    def __init__(self, start: Start, equipment: Equipment) -> None:
        self.job: JobId = start.job
        self.number = start.run
        #: Whether it was told to leave.
        self.stopping = False
        self._start = start
        self._equipment = equipment
        self._files: deque[File] = deque(start.files)
        self._finished = False
        self._asked = False
        self._more = asyncio.Event()
        self._records: dict[int, asyncio.Future[None]] = {}
        self._connected = False
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
            self.stopping = True
            if self._task is not None and not self._over:
                self._task.cancel()

    # ── what its files say ─────────────────────────────────────────────────────────────────

    def connected(self) -> None:
        """Tell the daemon, once, that a server answered with a file."""
        if not self._connected:
            self._connected = True
            self.tell(Connected(self.job, self.number))

    def tell(self, message: Message) -> None:
        """Send a message to the daemon."""
        self._equipment.post(message)

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
        async with self._lane() as lane:
            while self._files or not self._finished:
                while self._files:
                    file = self._files.popleft()
                    await Fetch(file, errand, lane.inquiry, lane.mover).carry()
                self.tell(Drained(self.job, self.number))
                while not self._files and not self._finished:
                    await self._more.wait()
                    self._more.clear()
        return None

    @contextlib.asynccontextmanager
    async def _lane(self) -> AsyncIterator[Lane]:
        start, equipment = self._start, self._equipment
        limits, settings = equipment.limits, start.settings
        context = await equipment.trust.context(settings.cacert)
        exchange = Exchange(Connector(equipment.trust.sessions), context, limits)
        authenticator = Authenticator(
            exchange,
            (
                Credential(
                    target=held.target,
                    scheme=held.scheme,
                    username=held.username,
                    password=held.password,
                    age=held.age,
                )
                for held in start.credentials
            ),
            settings=settings,
            steps=Steps(equipment.security, limits.kerberos_timeout),
            randomness=equipment.randomness,
            audit=self._audit,
        )
        inquiry = Inquiry(
            authenticator,
            settings,
            start.headers,
            secrets=bool(start.headers) or authenticator.armed,
            max_redirects=limits.max_redirects,
        )
        try:
            yield Lane(inquiry, Mover(equipment.bodies))
        finally:
            authenticator.close()
            await exchange.close()

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
