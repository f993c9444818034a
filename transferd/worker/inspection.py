"""Whether files can be written under given names, before a job is accepted. Touches nothing.

The worker is the owner, so what the kernel says to it is the owner's answer. It can change before
the transfer; whoever writes asks again by doing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from transferd.wire.chores import Refusal
from transferd.worker.destination import Flaw, find, flaw_of
from transferd.worker.directory import ForbiddenDirectory, open_directory

#: What nobody can name a file.
_NO_NAMES = frozenset({"", ".", ".."})


class _Finding(NamedTuple):
    """Why a path is refused."""

    code: str
    message: str


def inspect(paths: Sequence[str], new: Set[int] = frozenset()) -> tuple[Refusal, ...]:
    """Return what is wrong with destinations, by their positions.

    A missing destination is right, and a regular file with one name, unless its position is in
    *new*: it would not be replaced in the end. Nothing is opened but directories, and no link in
    place of a destination is followed.

    Returns: refusals with the codes that the transfer would fail with:
        `local_directory_missing`, `local_access_denied`, `local_forbidden`, `local_not_regular`,
        `local_hard_link`, `local_exists`; or `path_too_long`.
    """
    directories: dict[str, list[int]] = {}
    for position, path in enumerate(paths):
        directories.setdefault(os.path.dirname(path), []).append(position)
    refusals: list[Refusal] = []
    for directory, positions in directories.items():
        refusals.extend(_inspect_in(directory, positions, paths, new))
    return tuple(sorted(refusals, key=lambda refusal: refusal.number))


def _inspect_in(
    path: str, positions: list[int], paths: Sequence[str], new: Set[int]
) -> Iterator[Refusal]:
    try:
        directory = open_directory(path)
    except OSError as error:
        finding = _unreachable(path, error)
        yield from (Refusal(position, *finding) for position in positions)
        return
    try:
        refused = _inspect_directory(directory, path)
        for position in positions:
            found = refused or _inspect_destination(directory, paths[position], position in new)
            if found is not None:
                yield Refusal(position, *found)
    finally:
        os.close(directory)


def _inspect_directory(directory: int, path: str) -> _Finding | None:
    # Asks the kernel with the effective identity, which knows of ACLs and read-only mounts.
    if os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        return None
    return _Finding(
        "local_access_denied",
        f"cannot write into {path}: user {os.geteuid()} may not make files there; "
        "change its permissions or name another directory",
    )


def _unreachable(path: str, error: OSError) -> _Finding:
    if isinstance(error, ForbiddenDirectory):
        return _Finding(
            "local_forbidden", f"cannot write into {path}: {error.strerror}; name another directory"
        )
    match error.errno:
        case errno.ENAMETOOLONG:
            return _too_long(path)
        case errno.EACCES | errno.EPERM:
            return _Finding(
                "local_access_denied",
                f"cannot reach {path}: user {os.geteuid()} may not pass through a directory above "
                "it; change its permissions or name another directory",
            )
        case errno.ENOTDIR:
            return _Finding(
                "local_directory_missing",
                f"cannot write into {path}: it is not a directory; name another one",
            )
    return _Finding(
        "local_directory_missing",
        f"cannot write into {path}: {error.strerror}; make the directory first",
    )


def _inspect_destination(directory: int, path: str, new: bool) -> _Finding | None:
    name = os.path.basename(path)
    if name in _NO_NAMES:
        return _in_place(path, Flaw("local_not_regular", "a directory"))
    try:
        found = find(directory, name)
    except OSError as error:
        return _too_long(path) if error.errno == errno.ENAMETOOLONG else None
    if found is None:
        return None
    if flaw := flaw_of(found):
        return _in_place(path, flaw)
    return _taken(path) if new else None


def _in_place(path: str, flaw: Flaw) -> _Finding:
    message = f"cannot write to {path}: {flaw.what} is there; move it away or name another file"
    return _Finding(flaw.code, message)


def _taken(path: str) -> _Finding:
    return _Finding(
        "local_exists",
        f"cannot write to {path}: a file is there already; move it away, name another file, or let "
        "it be replaced (overwrite)",
    )


def _too_long(path: str) -> _Finding:
    return _Finding(
        "path_too_long",
        f"cannot write to {path[:60]}…: the path or a name in it is too long; name a shorter one",
    )
