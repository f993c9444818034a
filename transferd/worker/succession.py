"""Whether this worker could carry on files that another owner's has begun. Touches nothing.

As with inspection, what the kernel says now can be otherwise later: whoever writes asks again by
doing. What others may do to a partial file that is theirs, they may still do once it is taken over.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from transferd.model.errors import TransferFailed
from transferd.wire.chores import Holding, Refusal
from transferd.worker.destination import check_replaceable, find
from transferd.worker.directory import open_directory
from transferd.worker.inode import inode_of
from transferd.worker.local_faults import refused_locally, translating
from transferd.worker.partfile import check_ours
from transferd.worker.permission import could_write


def assume(files: Sequence[Holding], former: int) -> tuple[Refusal, ...]:
    """Return which files could not be carried on, by their numbers.

    A partial file that is not there is right: it is begun anew. Where the *former* owner, who has
    chosen the destinations, could not write himself, his successor does not do it for him: else a
    job that is taken over would put what he wants into the home of an admin.

    Returns: refusals with the codes that the transfer or its completion would fail with.
    """
    refusals = []
    for file in files:
        try:
            _assume_one(file, former)
        except TransferFailed as failed:
            failure = failed.failure
            refusals.append(Refusal(file.number, failure.code, failure.message))
    return tuple(refusals)


def _assume_one(file: Holding, former: int) -> None:
    path, name = os.path.split(file.temporary)
    with contextlib.ExitStack() as undo:
        with translating("open the directory", path, file.local):
            directory = open_directory(path, wary=True)
        undo.callback(os.close, directory)
        with translating("look at", file.local, file.local):
            check_replaceable(directory, os.path.basename(file.local), file.local)
        with translating("look at the directory", path, file.local):
            _check_directory(directory, path, file.local, former)
        with translating("look at the partial file", file.temporary, file.local):
            found = find(directory, name)
            if found is not None:
                _check_partial(directory, name, found, file)


def _check_directory(directory: int, path: str, local: str, former: int) -> None:
    # Asks the kernel with the effective identity, which knows of ACLs and read-only mounts.
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        message = f"cannot write into {path}: user {os.geteuid()} may not make files there"
        raise refused_locally("local_access_denied", message, local)
    if not could_write(former, directory):
        message = f"user {former} has chosen {path}, where he may not write himself"
        raise refused_locally("local_forbidden", message, local)


def _check_partial(directory: int, name: str, found: os.stat_result, file: Holding) -> None:
    # Before it is opened: to open a device is to use it.
    check_ours(found, True, file.temporary, file.local)
    descriptor = os.open(
        name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
    )
    try:
        known = file.inode is not None and file.inode.same(inode_of(descriptor))
        check_ours(os.fstat(descriptor), known, file.temporary, file.local)
    finally:
        os.close(descriptor)
    place, me = os.fstat(directory), os.geteuid()
    if place.st_mode & stat.S_ISVTX and me not in (place.st_uid, found.st_uid):
        message = (
            f"cannot rename {file.temporary}: it belongs to user {found.st_uid}, and nobody else"
            " may rename it in that directory (mode +t)"
        )
        raise refused_locally("local_access_denied", message, file.local)
