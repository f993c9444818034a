"""Start a daemon of the user's own, which outlives the program that needed it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from transferd.client.holder import Holder, holder_of, recorded_socket
from transferd.model.errors import ConfigError, NoDaemon
from transferd.model.units import Seconds
from transferd.wire.paths import state_directory

START_SECONDS: Seconds = 10.0
#: A daemon that fails is started so often in all.
ATTEMPTS = 3
LOG_NAME = "transferd.log"

_LOG_BYTES = 1024 * 1024
_QUOTED_BYTES = 2048
_FIRST_DELAY: Seconds = 0.01
_LONGEST_DELAY: Seconds = 0.25

#: Says why nobody answers at a socket; None if somebody does.
Unreachable = Callable[[Path], Awaitable[str | None]]


async def start_daemon(socket: Path, environ: Mapping[str, str], unreachable: Unreachable) -> Path:
    """Start a daemon that leaves when it has nothing to do; return the socket that answers.

    That is *socket*, or that of a daemon which holds the state directory and listens elsewhere.
    Programs that come at the same time start one between them.

    Raises:
        NoDaemon: it did not start, in its own words, or not within START_SECONDS; or another one
            holds the state directory, and cannot be reached.
    """
    with _start_files(environ) as (log, lock):
        clock = asyncio.get_running_loop().time
        deadline, delay = clock() + START_SECONDS, _FIRST_DELAY
        child: Child | None = None
        failures, mine = 0, False
        holder: Holder | None = None
        while clock() < deadline:
            if (answering := await _answering(socket, environ, unreachable)) is not None:
                return answering
            if child is not None and child.ended():
                failures += 1
                if failures == ATTEMPTS:
                    raise NoDaemon(f"cannot start a daemon: {child.last_words()}")
                child = None
            elif child is None and mine:
                holder = holder_of(log.parent)
                if holder is None:
                    child = Child(log, environ)
                elif holder.stranded:
                    raise NoDaemon(f"cannot start a daemon: {holder}")
            elif child is None:
                mine = _locked(lock)  # and look once more: whoever had it may have started one
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
    if holder is not None:
        raise NoDaemon(f"cannot start a daemon: {holder}")
    raise NoDaemon(
        f"cannot start a daemon: {socket} does not answer after {START_SECONDS:.0f} s; see {log}"
    )


async def _answering(
    socket: Path, environ: Mapping[str, str], unreachable: Unreachable
) -> Path | None:
    """Return which socket of the user's own answers, if one does."""
    for candidate in (socket, recorded_socket(environ)):
        if candidate is not None and await unreachable(candidate) is None:
            return candidate
    return None


class Child:
    """A daemon in a session of its own, with nothing of ours but its standard error."""

    def __init__(self, log: Path, environ: Mapping[str, str]) -> None:
        with _open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor:
            self._log = log
            self._offset = os.fstat(descriptor).st_size
            # -P: `-m` would otherwise import from the directory where the caller happens to be.
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "transferd", "--on-demand"],
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, descriptor, 2),
                    *((os.POSIX_SPAWN_CLOSE, other) for other in _inheritable()),
                ],
                setsid=True,
            )
        #: Exit status, once it has ended.
        self.status: int | None = None

    def ended(self) -> bool:
        """Whether it is dead."""
        if self.status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def last_words(self) -> str:
        """Return the last line that it wrote to its log."""
        with _open(self._log, os.O_RDONLY) as descriptor:
            size = os.fstat(descriptor).st_size
            begin = max(self._offset, size - _QUOTED_BYTES)
            text = os.pread(descriptor, _QUOTED_BYTES, begin).decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return f"it ended with status {self.status} and said nothing"
        return lines[-1].strip()


@contextlib.contextmanager
def _start_files(environ: Mapping[str, str]) -> Iterator[tuple[Path, int]]:
    """Make the state directory; yield the log's path and the descriptor of the starters' lock."""
    try:
        directory = state_directory(environ, system=False)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = directory / LOG_NAME
        with _open(directory / "start.lock", os.O_RDWR | os.O_CREAT) as lock:
            if log.exists() and log.stat().st_size > _LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))
            yield log, lock
    except (OSError, ConfigError) as error:
        raise NoDaemon(f"cannot start a daemon: {error}") from error


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _inheritable() -> list[int]:
    """Return what the caller would hand down: the daemon outlives it, and its locks and pipes must
    not live on with the daemon."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    found = []
    for descriptor in map(int, names):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return found


def _locked(lock: int) -> bool:
    """Take the starters' lock, which goes with its descriptor; whether we have it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
