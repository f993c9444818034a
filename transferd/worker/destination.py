"""What may stand where a file goes: nothing, or a regular file with no other name.

Judged by the name itself: a symbolic link is no regular file, wherever it leads, and what it leads
to is never looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from transferd.worker.local_faults import refused_locally

_KINDS: Mapping[Callable[[int], bool], str] = MappingProxyType(
    {
        stat.S_ISDIR: "a directory",
        stat.S_ISLNK: "a symbolic link",
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
)


class Flaw(NamedTuple):
    """Why something is not replaced: a code, and what it is."""

    code: str
    what: str


def flaw_of(found: os.stat_result) -> Flaw | None:
    """Return why what was found under a name (not through it) must not be replaced.

    A file with a second name would part from that silently: whoever reads it there would go on
    with the old content.
    """
    for is_kind, what in _KINDS.items():
        if is_kind(found.st_mode):
            return Flaw("local_not_regular", what)
    if found.st_nlink > 1:
        return Flaw("local_hard_link", f"a file with {found.st_nlink} names (hard links)")
    return None


def find(directory: int, name: str) -> os.stat_result | None:
    """Look a name up in an open directory; no link is followed and nothing is opened.

    Raises:
        OSError: the directory may not be passed through, or the disk failed.
    """
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def check_replaceable(directory: int, name: str, local: str) -> None:
    """Make sure that a transferred file may get the name *name* in *directory*.

    Raises:
        TransferFailed: `local_not_regular`, `local_hard_link`.
        OSError: as `find`.
    """
    found = find(directory, name)
    flaw = None if found is None else flaw_of(found)
    if flaw is not None:
        message = f"cannot put a transferred file at {local}: {flaw.what} is there; move it away"
        raise refused_locally(flaw.code, message, local)
