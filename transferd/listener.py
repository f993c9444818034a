"""The Unix socket that the daemon listens on when no service manager has opened one.

The socket appears under its name only when it listens and has its final mode and group, and it
takes the place of nothing but a socket on which nobody listens any more. Where it is, is written
down beside the queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from transferd.model.errors import TransferdError
from transferd.wire.paths import RECORD_NAME, fallback_directory, record

log = logging.getLogger(__name__)

#: sun_path has 108 bytes and the kernel wants room for the final NUL (unix(7)).
MAX_PATH_BYTES = 107

_BACKLOG = 512
#: How often, and how far apart, the right to name a socket is asked for.
_LOCK_ATTEMPTS, _LOCK_SECONDS = 200, 0.01
_ATTEMPTS = 10
_PROBE_SECONDS = 5.0


class SocketRefused(TransferdError):
    """The daemon cannot listen there; the message says why and what to do."""


class SocketTaken(SocketRefused):
    """Another daemon listens there."""


class Listener:
    """A listening socket and the name that leads to it; also a context manager that closes both."""

    def __init__(self, listening: socket.socket, path: Path, inode: tuple[int, int]) -> None:
        self.socket = listening
        self.path = path
        self._inode = inode

    def close(self) -> None:
        """Stop listening; the name goes too, unless it leads to something else by now."""
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            if _inode(self.path) == self._inode:
                self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bind_listener(path: Path, *, mode: int, group: int | None = None) -> Listener:
    """Listen on *path* with *mode*, owned by this process and *group* (None: the process's own).

    A missing directory is made, 0700 when *mode* lets only the owner in, else 0755. One that
    exists must belong to this user or root and must not let others rename what is in it; the
    directory under /tmp that stands in for $XDG_RUNTIME_DIR must be this user's alone.

    Raises:
        SocketTaken: another daemon answers on *path*.
        SocketRefused: the path is too long, something else than a socket has that name, the
            directory is not safe, or the system refuses.
    """
    _check_length(path)
    with contextlib.ExitStack() as undo, _translating(path):
        _prepare_directory(path.parent, 0o755 if mode & 0o077 else 0o700)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as private:
            hidden = Path(private) / "s"
            _check_length(hidden)
            listening = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listening.bind(str(hidden))
            if group is not None:
                os.chown(hidden, -1, group)
            hidden.chmod(mode)
            listening.listen(_BACKLOG)
            with _alone(path.parent):
                _install(hidden, path)
            undo.pop_all()
            return Listener(listening, path, _inode(hidden))


@contextlib.contextmanager
def recorded(path: Path, state: Path) -> Iterator[None]:
    """Write down in *state* that we listen on *path*, for clients that would look elsewhere.

    Their environment may name another socket. What cannot be written keeps nobody from the one that
    they know.
    """
    place = state / RECORD_NAME
    hidden = place.with_name(f".{RECORD_NAME}")
    try:
        hidden.unlink(missing_ok=True)
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(record(str(path), os.getpid()))
        hidden.rename(place)
    except OSError as error:
        log.warning("daemon.unrecorded", extra={"fields": {"error": str(error)}})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other daemons from naming sockets in *directory* at the same time, for a while.

    Anybody who can read a shared directory can hold this lock, so it is not waited for in earnest.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_SECONDS)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _install(hidden: Path, path: Path) -> None:
    """Give a listening socket its name; never takes the name from anything that lives."""
    for _ in range(_ATTEMPTS):
        try:
            # Unlike a rename, a link never replaces: of two daemons that start at once one loses.
            path.hardlink_to(hidden)
        except FileExistsError:
            _remove_stale(path, hidden.with_name("stale"))
        else:
            return
    raise SocketRefused(f"cannot listen on {path}: others keep making it; try again")


def _remove_stale(path: Path, aside: Path) -> None:
    """Remove *path* if it is a socket on which nobody listens; *aside* is a private name."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketRefused(
                f"cannot listen on {path}: it exists and is no socket; "
                "move it away or choose another path"
            )
        if _answers(path):
            raise SocketTaken(f"cannot listen on {path}: another daemon answers on {path}")
        path.rename(aside)
        # Meanwhile another daemon may have put its living socket there: it gets its name back.
        if _answers(aside):
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(aside)
        aside.unlink()


def _answers(path: Path) -> bool:
    """Whether somebody listens on a socket; one that we may not ask counts as living."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except FileNotFoundError:
            raise
        except OSError:
            # A full queue (EAGAIN), a socket of another type (EPROTOTYPE), no permission.
            return True
    return True


def _prepare_directory(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(mode)
    except FileExistsError:
        pass
    else:
        # The umask may have taken more than it should.
        directory.chmod(mode)
    uid = os.geteuid()
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise SocketRefused(f"cannot listen in {directory}: it is no directory of its own")
    if found.st_uid not in (uid, 0):
        raise SocketRefused(
            f"cannot listen in {directory}: it belongs to user {found.st_uid}, who could put "
            "another socket in the place of ours; choose another path"
        )
    private = directory == fallback_directory(uid)
    lax = found.st_mode & (0o077 if private else 0o022)
    if lax and (private or not found.st_mode & stat.S_ISVTX):
        raise SocketRefused(
            f"cannot listen in {directory}: its mode {stat.S_IMODE(found.st_mode):04o} lets others "
            f"in; chmod {0o700 if private else 0o755:o} {directory}, or choose another path"
        )


def _check_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise SocketRefused(
            f"cannot listen on {path}: the path has {length} bytes and a socket's path may have "
            f"{MAX_PATH_BYTES}; choose a shorter one"
        )


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SocketRefused(f"cannot listen on {path}: {error}") from error
