"""What is said of one file: to the daemon, and in failures."""

from __future__ import annotations

from dataclasses import replace

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import File, Inode, Seconds
from transferd.model.origins import readable
from transferd.transfer.ranges import Coverage
from transferd.wire import bounds
from transferd.wire.link import Durable, FileDone, Opened, Progress
from transferd.worker.errand import Errand


class Account:
    """Speaks of one file of a run."""

    def __init__(self, file: File, errand: Errand) -> None:
        self._index = file.index
        self._spec = file.spec
        self._errand = errand
        self._next_progress: Seconds = 0.0

    def opened(self, inode: Inode) -> None:
        """Tell that the temporary file exists."""
        self._errand.ledger.tell(Opened(self._errand.job, self._errand.run, self._index, inode))

    def durable(self, there: Coverage, file: File) -> None:
        """Tell what is durable of the version that *file* has."""
        self._errand.ledger.tell(
            Durable(
                self._errand.job,
                self._errand.run,
                self._index,
                there.offset,
                file.bytes_total,
                file.validator,
                there.parts,
            )
        )

    def moved(self, size: int, total: int | None, now: Seconds) -> None:
        """Tell how far it is, for people to look at; not too often."""
        if now >= self._next_progress:
            self._next_progress = now + self._errand.limits.progress_seconds
            self._errand.ledger.tell(
                Progress(self._errand.job, self._errand.run, self._index, size, total)
            )

    def done(self, size: int, inode: Inode, status: int | None, *, unverified: bool) -> FileDone:
        """Return what tells that the file is whole and durable."""
        return FileDone(
            self._errand.job, self._errand.run, self._index, size, inode, unverified, status
        )

    def check_size(self, total: int) -> None:
        """Raise TransferFailed(`size_limit`) if a file of that size is not wanted."""
        if total > bounds.BYTES:
            raise self.failed("size_limit", f"it has {total} bytes, more than any file may have")
        limit = self._errand.settings.max_size
        if limit is not None and total > limit:
            raise self.failed("size_limit", f"it has {total} bytes, and max_size is {limit}")

    def failed(self, code: str, what: str) -> TransferFailed:
        """Return a failure of the file."""
        message = f"cannot fetch {readable(self._spec.remote)}: {what}"
        return TransferFailed(Failure(code=code, message=message, file=self._spec.local))

    def named(self, failed: TransferFailed) -> TransferFailed:
        """Return *failed* with the name of the file that it is about."""
        file = failed.failure.file or self._spec.local
        return TransferFailed(replace(failed.failure, file=file), failed.retry_after)
