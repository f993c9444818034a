"""Fetches one file of a run, from its durable offset to whole and verified on disk.

The order of steps is what keeps versions apart: what the daemon has recorded as durable is thrown
away there before the first byte of another version is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from transferd.model.errors import TransferFailed
from transferd.model.job import File, Inode, Seconds
from transferd.model.paths import temporary_path
from transferd.transfer.ranges import NOTHING, Coverage, Splitting, coverage_of
from transferd.transfer.resume import (
    Append,
    Complete,
    Fresh,
    RangeRequest,
    Refused,
    Restart,
    Whole,
    condition,
    judge,
    modified_at,
    plan,
)
from transferd.wire import bounds
from transferd.wire.link import FileDone
from transferd.worker.account import Account
from transferd.worker.batch import Deposit
from transferd.worker.begun import Begun
from transferd.worker.body import Measure, Mover
from transferd.worker.errand import Errand
from transferd.worker.inquiry import Inquiry, read_response
from transferd.worker.sink import Durability, Sink
from transferd.worker.spread import Spread
from transferd.worker.stretch import Stretch

log = logging.getLogger(__name__)

#: A stopped transfer gets so long to put on disk what has arrived.
FLUSH_SECONDS: Seconds = 1.0
#: A file that is larger, or took longer, is checked for a change meanwhile…
CHANGE_BYTES = 4 * 1024 * 1024
CHANGE_SECONDS: Seconds = 1.0
#: …and a file that changes so often in a row is left alone for a while.
CHANGES = 3
#: A file that is not larger, and comes in one go, is held in memory until it is whole.
SMALL = 64 * 1024
#: When a large file is fetched in several ranges.
SPLITTING = Splitting()


class Fetch:
    """One file on its way."""

    def __init__(self, file: File, errand: Errand, inquiry: Inquiry, mover: Mover) -> None:
        self._file = file
        self._errand = errand
        self._inquiry = inquiry
        self._mover = mover
        self._loop = asyncio.get_running_loop()
        self._account = Account(file, errand)
        self._ranges = True
        self._begun: Begun | None = None
        #: Whether a body is on its way to the file.
        self._moving = False
        #: Whether the file is left to somebody else; see `part`.
        self.parted = False
        #: Whether other connections are no help.
        self._alone = False
        self._status: int | None = None
        #: What the daemon holds to be durable.
        self._recorded = coverage_of(file)
        #: The size that the daemon knows of.
        self._sized = file.bytes_total

    async def carry(self) -> None:
        """Fetch the file, and say that it is done.

        Raises:
            TransferFailed: it cannot be had now, or at all. What has arrived is durable, as far
                as the disk allows, and reported.
        """
        begun = None
        try:
            if self._file.inode is None and self._recorded == NOTHING:
                begun = await self._begin_small()
                if begun is None:
                    return
            self._begun = begun
            sink = await self._open()
            try:
                await self._carry(sink)
            except asyncio.CancelledError:
                await self._part(sink)
                raise
            finally:
                await sink.leave()
        except TransferFailed as failed:
            raise self._account.named(failed) from failed
        finally:
            if begun is not None:
                begun.answer.close()
        self._errand.ledger.tell(self._done(sink.received.size, sink.inode))

    def part(self) -> bool:
        """Let go of the file, if it can be gone on with from where it is; whether that is so.

        Then `carry` is to be cancelled, and `rest` is what is left.
        """
        known = self._file.bytes_total is not None and condition(self._file.validator) is not None
        self.parted = self._moving and known
        return self.parted

    @property
    def rest(self) -> File:
        """The file as it is to be gone on with after `part`."""
        there = self._recorded
        return replace(self._file, bytes_transferred=there.offset, parts=there.parts)

    def _done(self, size: int, inode: Inode) -> FileDone:
        unverified = self._file.length_unverified
        return self._account.done(size, inode, self._status, unverified=unverified)

    # ── small files ────────────────────────────────────────────────────────────────────────

    async def _begin_small(self) -> Begun | None:
        """Ask for a file of which there is nothing; None: it was small, and is kept.

        Else the answer, with what was read of its body, is to be gone on with.
        """
        async with self._mover.small() as small:
            begun = await self._ask(None)
            with contextlib.ExitStack() as undo:
                undo.callback(begun.answer.close)
                match judge(self._file, None, begun.response):
                    case Fresh(total=int(total)) as verdict if total <= SMALL:
                        whole = await begun.read_whole(total, CHANGE_SECONDS)
                        small.count(len(begun.data))
                        if whole and begun.matches(self._file.spec.checksum):
                            await self._keep_small(begun, verdict)
                            return None
                undo.pop_all()
        return begun

    async def _keep_small(self, begun: Begun, verdict: Fresh) -> None:
        local, data, response = self._file.spec.local, begun.data, begun.response
        self._status = response.status
        self._file = replace(self._file, bytes_total=verdict.total, validator=response.validator)
        self._account.check_size(len(data))
        await self._name_size()
        self._errand.ledger.connected()
        deposit = Deposit(
            local=local,
            temporary=temporary_path(local, self._errand.job),
            data=data,
            mtime=modified_at(response.validator),
            wary=self._errand.settings.wary,
        )
        await self._errand.ledger.deposit(deposit, partial(self._done, len(data)))

    async def _carry(self, sink: Sink) -> None:
        try:
            await self._begin(sink)
            await self._fetch_sound(sink)
            await sink.finish(modified_at(self._file.validator))
        except TransferFailed:
            with contextlib.suppress(TransferFailed):
                await sink.flush()
            raise

    # ── the partial file ───────────────────────────────────────────────────────────────────

    async def _open(self) -> Sink:
        file, limits = self._file, self._errand.limits
        local = file.spec.local
        return await Sink.open(
            self._errand.threads,
            Durability(
                seconds=limits.durable_seconds, bytes=limits.durable_bytes, reached=self._reached
            ),
            (local, temporary_path(local, self._errand.job)),
            coverage_of(file),
            file.inode,
            wary=self._errand.settings.wary,
        )

    async def _begin(self, sink: Sink) -> None:
        if sink.kept != self._recorded:
            await self._restart(sink)
        self._file = replace(self._file, inode=sink.inode)
        self._account.opened(sink.inode)

    async def _restart(self, sink: Sink) -> None:
        """Throw away what is on disk; in the queue file first, then here."""
        # A sync that ends late would report an offset that has just been forgotten.
        await sink.settle()
        # Without a version nothing is reported: Stop may come while the queue file forgets, and
        # what it flushes then is worthless.
        self._file = replace(
            self._file, bytes_transferred=0, parts=(), bytes_total=None, validator=None
        )
        if self._recorded.size:
            await self._errand.ledger.forget(self._file.index)
            self._recorded, self._sized = NOTHING, None
        await sink.restart()

    async def _part(self, sink: Sink) -> None:
        """Save what there is when it is left; a slow disk may be too slow for that."""
        if self._errand.ledger.leaving or self.parted:
            with contextlib.suppress(TimeoutError, TransferFailed):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await sink.flush()

    def _reached(self, durable: Coverage) -> None:
        """Report what is durable, if a later run can make use of it."""
        file = self._file
        if file.bytes_total is None or condition(file.validator) is None:
            return
        self._recorded = durable = durable.limited(bounds.PARTS)
        self._account.durable(durable, file)

    # ── the remote file ────────────────────────────────────────────────────────────────────

    async def _fetch_sound(self, sink: Sink) -> None:
        """Fetch until the checksum is right: once more, from zero, if it is wrong."""
        expected = self._file.spec.checksum
        if expected is None:
            return await self._fetch_settled(sink)
        found = ""
        for _ in range(2):
            await self._fetch(sink)
            found = await sink.digest(expected.algorithm)
            if found == expected.digest:
                return
            await self._restart(sink)
            # The server may be wrong about parts alone.
            self._alone = True
            log.warning("checksum.mismatch", extra={"fields": self._fields(found=found)})
        raise self._account.failed(
            "checksum_mismatch", f"its checksum is {found}, twice, not {expected}"
        )

    async def _fetch_settled(self, sink: Sink) -> None:
        """Fetch until the file did not change meanwhile; a small one hardly can in a moment.

        What was on disk before is of this version for sure: that was the condition of the rest.
        """
        for _ in range(CHANGES):
            began = self._loop.time() if self._begun is None else self._begun.at
            unasked = isinstance(plan(self._file), Whole)
            await self._fetch(sink)
            quick = self._loop.time() - began < CHANGE_SECONDS
            small = sink.received.size <= CHANGE_BYTES
            if (quick and small and not unasked) or not await self._changed(last=unasked):
                return
            log.info("file.changed", extra={"fields": self._fields()})
            await self._restart(sink)
        raise self._account.failed(
            "remote_unstable", f"it changed {CHANGES} times while it was fetched"
        )

    async def _changed(self, *, last: bool) -> bool:
        """Ask whether the file is another version by now; unknown where that cannot be asked.

        Raises:
            TransferFailed: it may be asked another time, and this is not the *last*: a server that
                is gone for good must not keep a file from its owner that is here.
        """
        try:
            return await self._inquiry.changed(self._file)
        except TransferFailed as failed:
            if failed.failure.kind.transient and not last:
                raise
            reason = failed.failure.message
            log.info("file.unchecked", extra={"fields": self._fields(reason=reason)})
            return False

    async def _fetch(self, sink: Sink) -> None:
        """Ask and append until all bytes are here."""
        self._ranges = True
        whole = False
        while not whole:
            part = plan(self._file) if self._ranges else None
            if isinstance(part, Whole):
                return
            await self._check_room(sink, self._file.bytes_total)
            begun, self._begun = self._begun, None
            if begun is None:
                begun = await self._ask(part)
            try:
                whole = await self._heed(sink, begun, part)
            finally:
                begun.answer.close()

    async def _ask(self, part: RangeRequest | None) -> Begun:
        at = self._loop.time()
        answer = await self._inquiry.ask(self._file.spec.remote, part)
        return Begun(answer, read_response(answer), at)

    async def _heed(self, sink: Sink, begun: Begun, part: RangeRequest | None) -> bool:
        """Do what an answer says; returns whether that was the last of the file."""
        answer, response = begun.answer, begun.response
        self._status = response.status
        match judge(self._file, part, response):
            case Refused(failure=failure):
                raise self._inquiry.refused(failure, answer)
            case Restart(reason=reason, drop=drop):
                log.info("file.restart", extra={"fields": self._fields(reason=reason)})
                self._ranges = False
                if not drop:
                    await answer.drain()
                return False
            case Append() as verdict:
                self._file = replace(self._file, bytes_total=verdict.total)
                await self._receive(sink, begun, verdict.start, verdict.end - verdict.start)
                return self._count(sink)
            case Fresh() as verdict:
                if sink.received.size or self._recorded.size:
                    await self._restart(sink)
                self._file = replace(
                    self._file,
                    bytes_total=verdict.total,
                    validator=response.validator,
                    length_unverified=verdict.length_unverified,
                )
                await self._receive(sink, begun, 0, verdict.total)
                return self._count(sink)
            case Complete():
                self._errand.ledger.connected()
                return True

    def _count(self, sink: Sink) -> bool:
        """Take note of what is here; returns whether that is the whole file."""
        there, total = sink.received, self._file.bytes_total
        self._file = replace(self._file, bytes_transferred=there.offset, parts=there.parts)
        return total is None or there.gap(total) is None

    async def _receive(self, sink: Sink, begun: Begun, start: int, length: int | None) -> None:
        await self._check_room(sink, self._file.bytes_total)
        await self._name_size()
        self._errand.ledger.connected()
        limits = self._errand.limits
        stretch = sink.stretch(start)
        if begun.data:
            await stretch.take(begun.data)
        measure = Measure(
            length=None if length is None else length - len(begun.data),
            max_size=self._errand.settings.max_size,
            stall_window=limits.stall_window,
            stall_bytes=limits.stall_bytes,
        )
        self._moving = True
        try:
            async with self._helped(sink, stretch, measure):
                await self._mover.move(begun.answer, stretch, measure, lambda: self._moved(sink))
        finally:
            self._moving = False
        await sink.end(stretch)

    @contextlib.asynccontextmanager
    async def _helped(self, sink: Sink, stretch: Stretch, measure: Measure) -> AsyncIterator[None]:
        """Let other connections help with a body in the block, where the job may have some."""
        file, length = self._file, measure.length or 0
        small = length < 2 * SPLITTING.smallest
        if small or self._alone or condition(file.validator) is None:
            yield
            return
        spread = Spread(file, sink, self._errand, measure, SPLITTING)
        async with spread.beside(stretch, stretch.received + length):
            yield
        self._alone = spread.in_vain

    async def _check_room(self, sink: Sink, total: int | None) -> None:
        """Raise TransferFailed if a file of that size is not wanted, or does not fit."""
        if total is None:
            return
        self._account.check_size(total)
        missing, free = total - sink.received.size, await sink.free_space()
        if missing > free:
            raise self._account.failed(
                "disk_full", f"{missing} bytes are missing, and {free} are free on its file system"
            )

    async def _name_size(self) -> None:
        """Let the daemon hear of a new size before its body is fetched."""
        total = self._file.bytes_total
        if total and total != self._sized:
            await self._errand.ledger.size(self._file.index, total)
            self._sized = total

    def _moved(self, sink: Sink) -> None:
        self._account.moved(sink.received.size, self._file.bytes_total, self._loop.time())

    def _fields(self, **more: object) -> dict[str, object]:
        return {"job": self._errand.job, "file": self._file.index, **more}
