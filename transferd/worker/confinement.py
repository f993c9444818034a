"""What a worker makes sure of before it reads a byte of its link: whose it is, and how little."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from pathlib import Path

from transferd.capabilities import CapabilityError, drop_all
from transferd.process import hide_memory

_PR_SET_PDEATHSIG = 1


def confine(owner: int | None = None) -> None:
    """Die with the daemon, be nobody but *owner*, hold no capability, and show nobody the memory.

    To be called before there is any thread; after it there is no way back. None: the owner is who
    the process is anyway.

    Raises:
        SystemExit: the daemon is gone, or the kernel did not do what was asked of it; says what.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    hide_memory()
    try:
        drop_all()
    except CapabilityError as error:
        raise SystemExit(str(error)) from error
    check_identity(Path("/proc/self/status").read_text(errors="replace"), owner)
    if os.getppid() != parent:
        # It died before the kernel was told; its end of the link is closed as well.
        raise SystemExit("the daemon is gone")


def check_identity(status: str, owner: int | None) -> None:
    """See to it that no id leads back to whoever started the process.

    Args:
        status: the process's /proc/PID/status: real, effective, saved and file system ids.
        owner: the uid that all of them must be; None: any, as long as it is one.

    Raises:
        SystemExit: one of them is another.
    """
    for name, wanted in (("Uid", owner), ("Gid", None)):
        found = re.search(rf"(?m)^{name}:((?:\s+\d+){{4}})$", status)
        ids = set() if found is None else set(map(int, found.group(1).split()))
        if len(ids) != 1 or wanted not in (None, *ids):
            said = found.group(0) if found is not None else "nothing"
            raise SystemExit(f"cannot work as uid {owner}: the kernel says {said!r}")
