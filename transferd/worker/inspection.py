"""Whether files can be written under given names, before a job is accepted. Touches nothing.

The worker is the owner, so what the kernel says to it is the owner's answer. It can change before
the transfer; whoever writes asks again by doing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from transferd.wire.link import Refusal


class _Finding(NamedTuple):
    """Why a path is refused."""

    code: str
    message: str


def inspect(paths: Sequence[str]) -> tuple[Refusal, ...]:
    """Return what is wrong with destinations, by their positions.

    A missing destination and a regular file are right, and so is a symbolic link to one of these;
    whether a file that exists may be replaced is decided when the job is completed.

    Returns: refusals with `directory_missing`, `directory_not_writable`,
        `destination_is_directory`, `destination_not_regular` or `path_too_long`.
    """
    directories: dict[str, _Finding | None] = {}
    refusals: list[Refusal] = []
    for position, path in enumerate(paths):
        directory = os.path.dirname(path)
        if directory not in directories:
            directories[directory] = _inspect_directory(directory)
        finding = directories[directory] or _inspect_destination(path)
        if finding is not None:
            refusals.append(Refusal(position, finding.code, finding.message))
    return tuple(refusals)


def _inspect_directory(path: str) -> _Finding | None:
    try:
        found = os.stat(path)
    except OSError as error:
        return _unreachable_directory(path, error)
    if not stat.S_ISDIR(found.st_mode):
        return _Finding(
            "directory_missing",
            f"cannot write into {path}: it is not a directory; name another one",
        )
    # Asks the kernel with the effective identity, which knows of ACLs and read-only mounts.
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        return _Finding(
            "directory_not_writable",
            f"cannot write into {path}: user {os.geteuid()} may not make files there; "
            "change its permissions or name another directory",
        )
    return None


def _unreachable_directory(path: str, error: OSError) -> _Finding:
    if error.errno == errno.ENAMETOOLONG:
        return _too_long(path)
    if isinstance(error, PermissionError):
        return _Finding(
            "directory_not_writable",
            f"cannot reach {path}: user {os.geteuid()} may not pass through a directory above it; "
            "change its permissions or name another directory",
        )
    return _Finding(
        "directory_missing",
        f"cannot write into {path}: {error.strerror}; make the directory first",
    )


def _inspect_destination(path: str) -> _Finding | None:
    try:
        found = os.stat(path)
    except OSError as error:
        # Nothing there, or a link that leads nowhere: it would be replaced.
        return _too_long(path) if error.errno == errno.ENAMETOOLONG else None
    if stat.S_ISDIR(found.st_mode):
        return _Finding(
            "destination_is_directory",
            f"cannot write to {path}: it is a directory; name a file in it",
        )
    if not stat.S_ISREG(found.st_mode):
        return _Finding(
            "destination_not_regular",
            f"cannot write to {path}: it is not a regular file; name another one",
        )
    return None


def _too_long(path: str) -> _Finding:
    return _Finding(
        "path_too_long",
        f"cannot write to {path[:60]}…: the path or a name in it is too long; name a shorter one",
    )
