"""Who holds a state directory, and where that daemon listens, as its files tell."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transferd.model.errors import ConfigError
from transferd.wire.paths import RECORD_NAME, read_record, state_directory

_LOCK_NAME = "lock"
_MOST_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Holder:
    """A living daemon that holds a state directory."""

    state: Path
    #: Process id; None where the lock does not tell.
    pid: int | None
    #: Where it listens; None as long as it does not.
    socket: Path | None

    @property
    def stranded(self) -> bool:
        """Whether nobody can reach it any more: its socket has no name."""
        return self.socket is not None and not os.path.lexists(self.socket)

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid is not None else "its pid is unknown"
        end = f"kill {self.pid}" if self.pid is not None else "systemctl --user stop transferd"
        place = f", whose socket was {self.socket}" if self.socket is not None else ""
        gone = " and is gone" if self.stranded else ""
        return (
            f"another one ({who}) holds {self.state}{place}{gone}; "
            f"end it with `{end}` and try again, nothing is lost"
        )


def recorded_socket(environ: Mapping[str, str]) -> Path | None:
    """Return where the user's own daemon says that it listens; None if it says nothing.

    What others could have written is not believed.
    """
    with contextlib.suppress(ConfigError):
        found = _record(state_directory(environ, system=False))
        return None if found is None else found[0]
    return None


def holder_of(state: Path) -> Holder | None:
    """Return who holds a state directory; None if nobody does."""
    try:
        descriptor = os.open(state / _LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Let go at once. A daemon that comes in this very moment is told that it is held, and
        # whoever started it tries again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, _MOST_BYTES, 0).strip()
    else:
        return None
    finally:
        os.close(descriptor)
    pid = int(text) if text.isdigit() else None
    written = _record(state)
    # What a daemon that was killed has left behind says nothing of the next one.
    return Holder(state, pid, written[0] if written is not None and written[1] == pid else None)


def _record(state: Path) -> tuple[Path, int] | None:
    uid = os.geteuid()
    try:
        directory = state.stat()
        descriptor = os.open(state / RECORD_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        file = os.fstat(descriptor)
        if any(each.st_uid != uid or each.st_mode & 0o022 for each in (directory, file)):
            return None
        return read_record(os.fsdecode(os.pread(descriptor, _MOST_BYTES, 0)))
    except OSError:
        return None
    finally:
        os.close(descriptor)
