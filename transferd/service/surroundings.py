"""What the daemon stands on: its files, its disk, its clock, its limits. Looks, and mends nothing.

The queue file is never opened here: closing it would give up the locks that SQLite holds on it.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from transferd.model.job import Seconds
from transferd.model.upkeep import Finding, Severity

#: Below the first, changes of the queue are about to fail; below the second, soon.
_SPACE_ERROR, _SPACE_WARNING = 16 * 1024**2, 256 * 1024**2
_FEWEST_DESCRIPTORS = 1024
#: No certificate that is valid today was valid then.
_OLDEST = datetime(2025, 1, 1, tzinfo=UTC)
_STEP: Seconds = 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the daemon lives."""

    #: Whether it serves every user of the machine.
    system: bool
    socket: Path
    state: Path
    queue: Path

    @property
    def queue_files(self) -> tuple[Path, ...]:
        """The queue file, and what SQLite keeps beside it."""
        return (
            self.queue,
            self.queue.with_name(f"{self.queue.name}-wal"),
            self.queue.with_name(f"{self.queue.name}-shm"),
        )


def size_of(files: tuple[Path, ...]) -> int:
    """Return the bytes of *files* together; one that is not there has none."""
    found = (_status(file) for file in files)
    return sum(status.st_size for status in found if status is not None)


def resident_memory(pid: int) -> int | None:
    """Return a process's resident memory in bytes; None: it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * _PAGE


def look_at_files(places: Places, configuration: Path | None, uid: int) -> tuple[Finding, ...]:
    """Look at owners and modes; *uid* is the daemon's own."""
    return (
        *_of_state(places, uid),
        *(found for file in places.queue_files for found in _of_queue(file, uid)),
        *_of_socket(places),
        *(_of_configuration(configuration, uid) if configuration is not None else ()),
    )


def look_at_space(state: Path) -> tuple[Finding, ...]:
    """Look how much room the queue has to grow."""
    volume = os.statvfs(state)
    free = volume.f_bavail * volume.f_frsize
    if free >= _SPACE_WARNING:
        return ()
    severity = Severity.ERROR if free < _SPACE_ERROR else Severity.WARNING
    text = f"{free // 1024**2} MiB are free on the volume of {state}"
    remedy = "free some space there, before changes of the queue fail"
    return (Finding(code="space_low", severity=severity, text=text, remedy=remedy),)


def look_at_clock(now: datetime, steady: Seconds) -> tuple[Finding, ...]:
    """Look whether the time of day can be true; *steady* is the same without any step since."""
    if now < _OLDEST:
        return (
            Finding(
                code="clock_wrong",
                severity=Severity.ERROR,
                text=f"the clock says {now:%Y-%m-%d}: no server's certificate is valid then",
                remedy="set the clock, or start its synchronisation",
            ),
        )
    step = now.timestamp() - steady
    if abs(step) < _STEP:
        return ()
    return (
        Finding(
            code="clock_stepped",
            severity=Severity.WARNING,
            text=f"the clock was set by {step:+.0f} s since the daemon was started",
            remedy="see that it is right now; what jobs wait for is not affected",
        ),
    )


def look_at_limits() -> tuple[Finding, ...]:
    """Look at what the kernel lets this process have."""
    return tuple(_of_limits())


def _of_limits() -> Iterator[Finding]:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors < _FEWEST_DESCRIPTORS:
        yield Finding(
            code="descriptors_few",
            severity=Severity.WARNING,
            text=f"the daemon may open {descriptors} descriptors; every caller takes one",
            remedy="raise LimitNOFILE= of the unit, or ulimit -n",
        )
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if largest != resource.RLIM_INFINITY:
        yield Finding(
            code="file_size_limited",
            severity=Severity.WARNING,
            text=f"the daemon may not write files of more than {largest} bytes",
            remedy="raise LimitFSIZE= of the unit, or ulimit -f, before the queue is that large",
        )


def _of_state(places: Places, uid: int) -> Iterator[Finding]:
    status = _status(places.state)
    if status is None:
        return
    if _foreign(status, uid):
        yield _exposed("state", places.state, status, "run chmod 700 on it as its owner")
    elif _mode(status) & _OTHERS:
        yield Finding(
            code="state_readable",
            severity=Severity.WARNING,
            text=f"others can look into {places.state} (mode {_mode(status):04o})",
            remedy=f"run chmod 700 {places.state}",
        )


def _of_queue(file: Path, uid: int) -> Iterator[Finding]:
    status = _status(file)
    if status is not None and (_mode(status) & _OTHERS or status.st_uid not in (0, uid)):
        yield _exposed("queue", file, status, f"run chmod 600 {file} as its owner")


def _of_socket(places: Places) -> Iterator[Finding]:
    path = places.socket
    status, directory = _status(path), _status(path.parent)
    if status is None or not stat.S_ISSOCK(status.st_mode):
        yield Finding(
            code="socket_missing",
            severity=Severity.ERROR,
            text=f"there is no socket at {path} any more: nobody new can connect",
            remedy="restart the service; its jobs go on",
        )
    elif not places.system and _mode(status) & _OTHERS:
        yield Finding(
            code="socket_open",
            severity=Severity.WARNING,
            text=f"others can connect to {path}, where they are refused",
            remedy=f"run chmod 600 {path}",
        )
    if directory is not None and _mode(directory) & _OTHERS_WRITE:
        yield _exposed("socket", path.parent, directory, f"run chmod 755 {path.parent}")


def _of_configuration(path: Path, uid: int) -> Iterator[Finding]:
    for place in (path, path.parent):
        status = _status(place)
        if status is not None and _foreign(status, uid):
            yield _exposed("configuration", place, status, f"run chmod go-w {place} as its owner")


def _exposed(what: str, path: Path, status: os.stat_result, remedy: str) -> Finding:
    text = f"others can change {path} (uid {status.st_uid}, mode {_mode(status):04o})"
    if what == "queue":
        text = f"others can reach {path} (uid {status.st_uid}, mode {_mode(status):04o})"
    return Finding(code=f"{what}_exposed", severity=Severity.ERROR, text=text, remedy=remedy)


def _foreign(status: os.stat_result, uid: int) -> bool:
    """Tell whether somebody else than root and the daemon can change it."""
    return bool(status.st_uid not in (0, uid) or _mode(status) & _OTHERS_WRITE)


def _mode(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
