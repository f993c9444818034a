"""One daemon per state directory: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

from transferd.model.errors import StoreError, StoreLocked

_NAME = "lock"


class StateLock:
    """An advisory lock (flock) on a state directory; the file holds the pid, for people.

    The file stays when the lock is released: whoever removed it could let two daemons in.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> StateLock:
        """Take the lock at once or not at all.

        Raises:
            StoreLocked: another process holds it.
            StoreError: the file cannot be made or locked.
        """
        path = directory / _NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot open {path}: {error.strerror}; make the directory writable for this user"
            ) from error
        try:
            _lock(descriptor, directory)
        except StoreError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let others in; doing it again is success.

        The pid goes first: somebody else may get the number, and be ended for a daemon.
        """
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> StateLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StoreLocked(
            f"cannot use {directory}: another daemon (pid {holder}) holds it;"
            " stop that one or choose another state directory"
        ) from None
    except OSError as error:
        raise StoreError(
            f"cannot lock {directory}: {error.strerror};"
            " keep the state directory on a local disk with free space"
        ) from error
