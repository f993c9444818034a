"""Puts what workers say of runs into the queue file: all that is there at once, then who waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from transferd.model import reports
from transferd.model.errors import StoreError, TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import File, JobId, covered
from transferd.service.breakers import Breakers
from transferd.service.ports import Clock, JobStore, Kept, Moved, Report, Runnable
from transferd.service.run import Run
from transferd.service.testimony import RunMessage
from transferd.service.workers import Workers
from transferd.wire import link

log = logging.getLogger(__name__)


class Bookkeeper:
    """Keeps what does not end a run."""

    def __init__(
        self,
        store: JobStore,
        workers: Workers,
        clock: Clock,
        breakers: Breakers,
        tell: Callable[[Moved], None],
        tell_progress: Callable[[JobId], None],
    ) -> None:
        """Take also who is told of moves and of bytes."""
        self._store = store
        self._workers = workers
        self._clock = clock
        self._breakers = breakers
        self._tell = tell
        self._tell_progress = tell_progress

    async def keep(
        self, run: Run, said: Sequence[RunMessage], extend: int | None = None
    ) -> tuple[File, ...]:
        """Keep what a worker has said, in one transaction, and answer what waits for that.

        With *extend* it has nothing left to do: returns so many of the job's open files at most,
        and none when the job is finished.

        Raises:
            InvalidTransition, NotFound: its owner moved the job meanwhile; the rest is kept.
            TransferFailed: `queue_full`.
            StoreError: nothing was kept, and nothing is lost for the next try.
        """
        kept = await self._put_down(run, said, extend)
        moved_bytes = [self._follow(run, message) for message in said]
        if kept is None:
            return ()
        if kept.moved.notices or kept.moved.job.state is not kept.moved.before:
            self._tell(kept.moved)
        if any(moved_bytes):
            self._tell_progress(run.claim.job_id)
        if kept.refusal is not None:
            failure = Failure(code=kept.refusal.code, message=kept.refusal.detail)
            raise TransferFailed(failure) from kept.refusal
        await self._answer(run, said)
        if kept.overtaken is not None:
            raise kept.overtaken
        return kept.files

    async def _put_down(
        self, run: Run, said: Sequence[RunMessage], extend: int | None
    ) -> Kept | None:
        wanted = [report for message in said if (report := _report(run, message)) is not None]
        if not wanted and extend is None:
            return None
        now = self._clock.now()
        try:
            return await self._store.keep(
                run.claim.job_id, wanted, now, quota=run.quota, extend=extend
            )
        except StoreError:
            run.inbox.put_back(said)
            raise

    def _follow(self, run: Run, message: RunMessage) -> bool:
        """Let live counts and the record follow what is kept; whether bytes have moved."""
        run.chronicle.hear(message)
        match message:
            case link.Durable():
                count = covered(message.offset, message.parts)
                if count > run.progress.durable.get(message.file, 0):
                    self._move(run, message.file)
                run.progress.kept(message.file, count)
                return True
            case link.FileDone():
                self._move(run, message.file)
                run.progress.done(message.file)
                return True
            case link.Reset():
                run.progress.lost(message.file)
                return False
            case link.Audited():
                _audit(run.claim, message)
                return False
            case _:
                return False

    def _move(self, run: Run, file: int) -> None:
        run.moved_bytes = True
        self._breakers.moved(run, file)

    async def _answer(self, run: Run, said: Sequence[RunMessage]) -> None:
        for message in said:
            if isinstance(message, link.Sized | link.Reset) and run.worker is not None:
                recorded = link.Recorded(run.claim.job_id, run.number, message.file)
                await self._workers.send(run.worker, recorded)


def _report(run: Run, message: RunMessage) -> Report | None:
    """Return what a message says to the queue."""
    match message:
        case link.FileDone():
            return reports.Done(
                file=message.file,
                size=message.size,
                inode=message.inode,
                length_unverified=message.length_unverified,
            )
        case link.Durable():
            return reports.Checkpoint(
                file=message.file,
                offset=message.offset,
                total=message.total,
                validator=message.validator,
                parts=message.parts,
            )
        case link.Opened():
            return reports.Opened(file=message.file, inode=message.inode)
        case link.Connected():
            return reports.Connected()
        case link.Sized():
            return reports.Sized(file=message.file, total=message.total)
        case link.Reset():
            return reports.Reset(file=message.file)
        case _:
            return None


def _audit(claim: Runnable, message: link.Audited) -> None:
    """Record whom a job was to somebody, and whether that was believed (BITS events 203, 204)."""
    fields = {
        "job": claim.job_id,
        "owner": claim.owner,
        "host": message.host,
        "target": message.target,
        "scheme": message.scheme,
        "mechanism": message.mechanism,
    }
    event = "auth.accepted" if message.accepted else "auth.rejected"
    log.info(event, extra={"fields": fields})
