"""The file that a transfer writes to, under its temporary name beside its destination.

Everything here blocks: the caller runs it in threads, one call at a time for one file.

The directory may be swapped for another one, or for a link, at any moment:

- before the file is opened: the walk leads where it leads, and the kernel says whether the owner
  may write there. From then on the directory is held open, and names are looked up in it;
- while bytes move: they go to the file that was opened, wherever it is by now;
- before it is called whole: `finish` walks the path once more. A file that is not where its path
  leads is lost, since nobody could publish it there;
- before it is published: the same, see `publication`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from transferd.model.errors import TransferdError, TransferFailed
from transferd.model.job import Inode
from transferd.transfer.ranges import NOTHING, Coverage
from transferd.worker.cursor import Cursor
from transferd.worker.destination import check_replaceable, find
from transferd.worker.directory import begin_writing, sync_file_system
from transferd.worker.folder import Folder
from transferd.worker.inode import inode_of
from transferd.worker.local_faults import refused_locally, translating

_BLOCK = 1024 * 1024

#: File systems without locks answer one of these.
_LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class DigestStopped(TransferdError):
    """The digest was not finished, because its stop event was set."""


class PartFile:
    """An open partial file, locked against every other process that would write to it.

    All methods raise TransferFailed: `disk_full`, `local_access_denied`, `local_io` and the other
    local codes; the message is a whole sentence that names the path.

    Bytes are written at cursors, of which there may be several, each used by one thread.
    """

    #: How long the file is, by what was kept, written and reserved, whatever others do to it.
    end: int

    def __init__(
        self, folder: Folder, inode: Inode, descriptor: int, names: tuple[str, str]
    ) -> None:
        self._folder = folder
        self._own_folder = False
        self._descriptor = descriptor
        self._path, self._local = names
        self._named_durably = False
        self._damaged = False
        #: Between a look at the file's size and what follows from it.
        self._sizing = threading.Lock()
        self.inode = inode
        #: What could be kept: all that was asked for, or nothing when it is lost.
        self.kept = NOTHING
        self.end = 0

    @classmethod
    def open(
        cls,
        local: str,
        temporary: str,
        there: Coverage = NOTHING,
        inode: Inode | None = None,
        *,
        wary: bool = False,
    ) -> PartFile:
        """Open the partial file of *local*, and its directory; *wary* as for `open_directory`.

        See `open_in`.
        """
        folder = Folder.open(os.path.dirname(temporary), local, wary=wary)
        with contextlib.ExitStack() as undo:
            undo.callback(folder.close)
            part = cls.open_in(folder, local, temporary, there, inode)
            part._own_folder = True
            undo.pop_all()
        return part

    @classmethod
    def open_in(
        cls,
        folder: Folder,
        local: str,
        temporary: str,
        there: Coverage = NOTHING,
        inode: Inode | None = None,
    ) -> PartFile:
        """Open the partial file of *local*, or make it, and keep the bytes that are *there*.

        What stands at *local* itself, and could not be replaced, is refused before a byte moves.
        Bytes behind the last of them are cut off: nobody knows whether they are sound. When the
        file ends before that, or *inode* says that this is another one, nothing is kept (`kept` is
        empty) and the caller must have that recorded before it writes, as after every reset.
        *folder*, which holds both, is to be open for as long as the file is.

        Raises:
            TransferFailed: `local_directory_missing`, `local_access_denied`, `local_forbidden` (a
                file system without files, a magic link), `local_not_regular` (a link, another
                owner's file), `local_hard_link` (a second name), `local_busy` (another process
                writes to it; wait), `disk_full`, `local_io`.
        """
        with contextlib.ExitStack() as undo:
            with translating("look at", local, local):
                check_replaceable(folder.descriptor, os.path.basename(local), local)
            with translating("open the partial file", temporary, local):
                descriptor, found = _open_locked(folder.descriptor, temporary, local)
                undo.callback(os.close, descriptor)
                part = cls(folder, inode_of(descriptor, found), descriptor, (temporary, local))
                known = inode is not None and inode.same(part.inode)
                check_ours(found, known, temporary, local)
                part._keep(there if known or inode is None else NOTHING, found.st_size)
            undo.pop_all()
        return part

    def _keep(self, there: Coverage, size: int) -> None:
        self.kept = NOTHING if size < there.end else there
        self.end = self.kept.end
        if size != self.end:
            os.ftruncate(self._descriptor, self.end)

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
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Whatever that says, it is closed, and what was called durable was flushed before.
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._own_folder:
            self._folder.close()

    @property
    def place(self) -> tuple[str, str]:
        """The path of its directory, and what it is to become."""
        return self._folder.path, self._local

    @property
    def size(self) -> int:
        """How many bytes there are, durable or not."""
        return os.fstat(self._descriptor).st_size

    def cursor(self, position: int) -> Cursor:
        """Return where somebody goes on to write, at *position*."""
        return Cursor(self, position)

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """Write to the descriptor that this yields, at the size that the file should have."""
        with translating("write to", self._path, self._local):
            self.check_size()
            yield self._descriptor

    def reserve(self, size: int) -> None:
        """Lengthen the file to *size* bytes, so that several cursors may stand in it."""
        with translating("lengthen", self._path, self._local), self._sizing:
            os.ftruncate(self._descriptor, size)
            self.end = size

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes."""
        with translating("truncate", self._path, self._local), self._sizing:
            os.ftruncate(self._descriptor, size)
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
        with contextlib.closing(Folder.open(self._folder.path, self._local)) as folder:
            self.confirm(folder)

    def confirm(self, folder: Folder) -> None:
        """Make sure that the file is as long as it should be, and there under its name.

        Args:
            folder: where its path leads now.

        Raises:
            TransferFailed: `local_lost`.
        """
        with translating("look at", self._path, self._local):
            found = find(folder.descriptor, os.path.basename(self._path))
            same = found is not None and self._is(found)
            moved = not same and not folder.same(self._folder)
        if found is not None and same:
            return self._check_size(found.st_size)
        if moved:
            raise self._lost("its directory was replaced by another one meanwhile")
        if found is None:
            raise self._lost("it was removed meanwhile")
        raise self._lost("another file is there in its place")

    def sync_file_system(self) -> bool:
        """Make everything durable that is on the file's file system; False: not to be had here."""
        with translating("flush the file system of", self._path, self._local):
            return sync_file_system(self._descriptor)

    def set_time(self, mtime: float) -> None:
        """Set the time of modification, in seconds since the epoch (BITS.md F14).

        A time that the file system does not take is no reason to lose a transfer: it is left.
        """
        with contextlib.suppress(OSError, OverflowError, ValueError):
            os.utime(self._descriptor, (mtime, mtime))

    def check_size(self) -> None:
        """Raise TransferFailed(`local_lost`) if somebody else has cut or lengthened the file."""
        self._check_size(None)

    def _check_size(self, size: int | None) -> None:
        with self._sizing:
            size, end = self.size if size is None else size, self.end
        if size != end:
            raise self._lost(f"it has {size} bytes, not the {end} that were written")

    def has_grown(self, end: int) -> None:
        """Take that a cursor has written as far as *end*."""
        if end > self.end:
            with self._sizing:
                self.end = max(self.end, end)

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == (self.inode.device, self.inode.number)

    def hand_to_disk(self, start: int, end: int) -> None:
        """Have the kernel begin to write these bytes to the disk; nothing is durable by that.

        A flush would find a second's worth of them otherwise, and every other one on the same disk,
        such as that of the queue, would wait for all of it. Where it is not to be had it is left.
        """
        begin_writing(self._descriptor, start, end)

    def _lost(self, what: str) -> TransferFailed:
        message = f"cannot go on with {self._path}: {what}"
        return refused_locally("local_lost", message, self._local)

    def _flush(self, flush: Callable[[int], None]) -> None:
        if self._damaged:
            message = f"cannot make {self._path} durable: an earlier flush of it failed"
            raise refused_locally("local_io", message, self._local)
        self._damaged = True
        with translating("flush", self._path, self._local):
            flush(self._descriptor)
            if not self._named_durably:
                self._folder.flush()
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
        with translating("read", self._path, self._local):
            while not stop.is_set():
                count = os.preadv(self._descriptor, [block], position)
                if count == 0:
                    return hasher.hexdigest()
                hasher.update(view[:count])
                position += count
        raise DigestStopped(f"cannot say the digest of {self._path}: it was stopped")

    def free_space(self) -> int:
        """Return how many bytes the owner may still write to this file system."""
        with translating("look at the file system of", self._path, self._local):
            found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize


def _open_locked(directory: int, path: str, local: str) -> tuple[int, os.stat_result]:
    """Open or make the file and lock it; it still has its name when this returns."""
    while True:
        with contextlib.ExitStack() as undo:
            descriptor = _open_any(directory, os.path.basename(path), path, local)
            undo.callback(os.close, descriptor)
            _lock(descriptor, path, local)
            found = os.fstat(descriptor)
            # Without a name: published or discarded by the process that had the lock before.
            if found.st_nlink:
                undo.pop_all()
                return descriptor, found


def _open_any(directory: int, name: str, path: str, local: str) -> int:
    common = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(name, common | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory)
        found = find(directory, name)
        if found is None:
            continue
        # To open a device is to use it, and a FIFO keeps waiting whoever opens it.
        if not stat.S_ISREG(found.st_mode):
            raise _unusable("local_not_regular", "it is not a regular file", path, local)
        with contextlib.suppress(FileNotFoundError):
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


def check_ours(found: os.stat_result, known: bool, path: str, local: str) -> None:
    """Refuse whatever is not the file that a worker of this owner has made.

    On shares that give every file one owner, and where the job had another one, it is *known* by
    its inode.
    """
    if not stat.S_ISREG(found.st_mode):
        raise _unusable("local_not_regular", "it is not a regular file", path, local)
    if found.st_nlink != 1:
        raise _unusable("local_hard_link", "it has a second name", path, local)
    if found.st_uid != os.geteuid() and not known:
        raise _unusable("local_not_regular", f"it belongs to user {found.st_uid}", path, local)


def _unusable(code: str, what: str, path: str, local: str) -> TransferFailed:
    message = f"cannot use {path} as the partial file: {what}; move it away"
    return refused_locally(code, message, local)
