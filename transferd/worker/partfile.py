"""The file that a transfer writes to, under its temporary name beside its destination.

Everything here blocks: the caller runs it in threads, one call at a time for one file. A path is
walked once, when its directory is opened; from then on names are looked up in that directory only,
and no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TypeAlias

from transferd.model.errors import TransferdError, TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Inode
from transferd.worker.inode import inode_of

Buffer: TypeAlias = bytes | bytearray | memoryview

_BLOCK = 1024 * 1024
_VECTORS = os.sysconf("SC_IOV_MAX")

_CODES: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.ENOENT: "local_directory_missing",
        errno.ENOTDIR: "local_directory_missing",
        errno.EACCES: "local_access_denied",
        errno.EPERM: "local_access_denied",
        errno.EROFS: "local_access_denied",
        errno.ELOOP: "local_not_regular",
        errno.EISDIR: "local_not_regular",
        errno.ENXIO: "local_not_regular",
        errno.ENODEV: "local_not_regular",
        errno.ENOTEMPTY: "local_not_regular",
        errno.EEXIST: "local_exists",
        # What the machine lacks at the moment is neither the disk's fault nor the owner's.
        errno.EMFILE: "local_busy",
        errno.ENFILE: "local_busy",
        errno.ENOMEM: "local_busy",
        errno.EAGAIN: "local_busy",
        errno.EBUSY: "local_busy",
        errno.ETXTBSY: "local_busy",
    }
)
#: File systems without locks answer one of these.
_LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
#: A directory that may not be listed, and file systems that cannot flush one.
_NOT_FLUSHABLE = frozenset({errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class DigestStopped(TransferdError):
    """The digest was not finished, because its stop event was set."""


def local_failure(error: OSError, doing: str, path: str, file: str) -> TransferFailed:
    """Return the failure that *error* means, for *file*, where "cannot *doing* *path*" happened."""
    code = _CODES.get(error.errno or 0, "local_io")
    return refused_locally(code, f"cannot {doing} {path}: {error.strerror or error}", file)


def refused_locally(code: str, message: str, file: str) -> TransferFailed:
    """Return the failure *code* of the local *file*."""
    return TransferFailed(Failure(code=code, message=message, file=file))


def open_directory(path: str) -> int:
    """Open a directory to look names up in.

    One that its owner may use but not list (mode -wx) is opened as well.

    Raises:
        OSError: it is not there, not a directory, or may not be passed through.
    """
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDONLY | flags)
    except PermissionError:
        return os.open(path, os.O_PATH | flags)


def flush_directory(directory: int) -> None:
    """Make the names in an open directory durable.

    Raises:
        OSError: the disk failed; the names may be lost.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NOT_FLUSHABLE:
            raise
        os.sync()


class PartFile:
    """An open partial file, locked against every other process that would write to it.

    All methods raise TransferFailed: `disk_full`, `local_access_denied`, `local_io` and the other
    local codes; the message is a whole sentence that names the path.
    """

    #: How many bytes are kept and written, whatever others do to the file.
    end: int

    def __init__(self, directory: int, descriptor: int, path: str, local: str) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._path = path
        self._local = local
        self._named_durably = False
        self._damaged = False
        self.inode = inode_of(descriptor)
        #: How many bytes could be kept: the offset that was asked for, or 0 when they are lost.
        self.kept = self.end = 0

    @classmethod
    def open(cls, local: str, temporary: str, offset: int, inode: Inode | None = None) -> PartFile:
        """Open the partial file of *local*, or make it, and keep its first *offset* bytes.

        Bytes behind the offset are cut off: nobody knows whether they are sound. When there are
        fewer than *offset*, or *inode* says that this is another file, none are kept (`kept` is 0)
        and the caller must have that recorded before it writes, as after every reset.

        Raises:
            TransferFailed: `local_directory_missing`, `local_access_denied`, `local_not_regular`
                (a link, a second name, another owner's file), `local_busy` (another process
                writes to it; wait), `disk_full`, `local_io`.
        """
        path, name = os.path.split(temporary)
        with contextlib.ExitStack() as undo:
            with _translating("open the directory", path, local):
                directory = open_directory(path)
            undo.callback(os.close, directory)
            with _translating("open the partial file", temporary, local):
                descriptor = _open_locked(directory, name, temporary, local)
                undo.callback(os.close, descriptor)
                part = cls(directory, descriptor, temporary, local)
                known = inode is not None and inode.same(part.inode)
                _check_ours(os.fstat(descriptor), known, temporary, local)
                part._keep(offset if known or inode is None else 0)
            undo.pop_all()
        return part

    def _keep(self, offset: int) -> None:
        self.kept = self.end = 0 if self.size < offset else offset
        if self.size != self.kept:
            os.ftruncate(self._descriptor, self.kept)
        os.lseek(self._descriptor, self.kept, os.SEEK_SET)

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let go of its lock; doing it again is nothing."""
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._directory = -1

    def fileno(self) -> int:
        """The open descriptor, its position at the end of what is written: for splicing."""
        return self._descriptor

    @property
    def size(self) -> int:
        """How many bytes there are, durable or not."""
        return os.fstat(self._descriptor).st_size

    def write(self, *chunks: Buffer) -> None:
        """Write all chunks at the end.

        When it fails, a part of them may have been written: `end` tells how much. It fails with
        `local_lost` when somebody else has cut or lengthened the file: there would be a hole.
        """
        views = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
        with _translating("write to", self._path, self._local):
            self._check_size()
            while views:
                written = os.writev(self._descriptor, views[:_VECTORS])
                self.end += written
                views = _after(views, written)

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes and go on from there."""
        with _translating("truncate", self._path, self._local):
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        self.end = size
        if size == 0:
            self._damaged = False

    def sync(self) -> None:
        """Make everything that was written durable, and the temporary name with it.

        A flush that failed once has lost data that no later flush brings back: from then on it
        fails until the file is truncated to zero, and no byte after the last good flush counts.
        """
        self._flush(os.fdatasync)

    def finish(self, mtime: float | None) -> None:
        """Set the time of the whole file and make it durable, as `sync` does.

        Raises:
            TransferFailed: also `local_lost`, when it is not there any more under its name.
        """
        if mtime is not None:
            self.set_time(mtime)
        self._flush(os.fsync)
        with _translating("look at", self._path, self._local):
            self._check_size()
            self._check_name()

    def set_time(self, mtime: float) -> None:
        """Set the time of modification, in seconds since the epoch (BITS.md F14).

        A time that the file system does not take is no reason to lose a transfer: it is left.
        """
        with contextlib.suppress(OSError, OverflowError, ValueError):
            os.utime(self._descriptor, (mtime, mtime))

    def _check_size(self) -> None:
        if self.size != self.end:
            raise self._lost(f"it has {self.size} bytes, not the {self.end} that were written")

    def _check_name(self) -> None:
        name = os.path.basename(self._path)
        try:
            found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            raise self._lost("it was removed meanwhile") from None
        if found.st_ino != self.inode.number:
            raise self._lost("another file is there in its place")

    def _lost(self, what: str) -> TransferFailed:
        message = f"cannot go on with {self._path}: {what}"
        return refused_locally("local_lost", message, self._local)

    def _flush(self, flush: Callable[[int], None]) -> None:
        if self._damaged:
            message = f"cannot make {self._path} durable: an earlier flush of it failed"
            raise refused_locally("local_io", message, self._local)
        self._damaged = True
        with _translating("flush", self._path, self._local):
            flush(self._descriptor)
            if not self._named_durably:
                flush_directory(self._directory)
        self._named_durably = True
        self._damaged = False

    def digest(self, algorithm: str, stop: threading.Event) -> str:
        """Return the digest of the whole file as it is on disk, in hexadecimal.

        Args:
            algorithm: a key of CHECKSUM_ALGORITHMS.
            stop: set by another thread to end it early.

        Raises:
            DigestStopped: *stop* was set.
            TransferFailed: `local_io`.
        """
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        block = bytearray(_BLOCK)
        view = memoryview(block)
        position = 0
        with _translating("read", self._path, self._local):
            while not stop.is_set():
                count = os.preadv(self._descriptor, [block], position)
                if count == 0:
                    return hasher.hexdigest()
                hasher.update(view[:count])
                position += count
        raise DigestStopped(f"cannot say the digest of {self._path}: it was stopped")

    def free_space(self) -> int:
        """Return how many bytes the owner may still write to this file system."""
        with _translating("look at the file system of", self._path, self._local):
            found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def _translating(doing: str, path: str, local: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_failure(error, doing, path, local) from error


def _open_locked(directory: int, name: str, path: str, local: str) -> int:
    """Open or make the file and lock it; it still has its name when this returns."""
    while True:
        with contextlib.ExitStack() as undo:
            descriptor = _open_any(directory, name)
            undo.callback(os.close, descriptor)
            _lock(descriptor, path, local)
            # Without a name: published or discarded by the process that had the lock before.
            if os.fstat(descriptor).st_nlink:
                undo.pop_all()
                return descriptor


def _open_any(directory: int, name: str) -> int:
    common = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(name, common | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory)
        with contextlib.suppress(FileNotFoundError):
            # Not to be kept waiting by a FIFO or a device that somebody has put there.
            return os.open(name, common | os.O_NONBLOCK, dir_fd=directory)


def _lock(descriptor: int, path: str, local: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"cannot write to {path}: another process is writing to it"
        raise refused_locally("local_busy", message, local) from None
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise


def _check_ours(found: os.stat_result, known: bool, path: str, local: str) -> None:
    """Refuse whatever is not the file that a worker of this owner has made.

    On shares that give every file one owner it is *known* by its inode.
    """
    if not stat.S_ISREG(found.st_mode):
        what = "it is not a regular file"
    elif found.st_nlink != 1:
        what = "it has a second name"
    elif found.st_uid != os.geteuid() and not known:
        what = f"it belongs to user {found.st_uid}"
    else:
        return
    message = f"cannot use {path} as the partial file: {what}; move it away"
    raise refused_locally("local_not_regular", message, local)


def _after(views: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of *views* after *written* bytes."""
    for index, view in enumerate(views):
        if written < len(view):
            return [view[written:], *views[index + 1 :]]
        written -= len(view)
    return []
