"""Final names for whole files, and the end of partial ones nobody wants.

A name is given by one rename within one directory, so that there is either the whole file under it
or what was there before. Everything here blocks: the caller runs it in a thread.

Both names are looked up in one directory, which is opened once. When the path leads to another
directory by now, the partial file is not in it, by its inode: it is lost, and nothing is renamed,
replaced or removed there. What is swapped after it was looked at is the doing of somebody who may
write to the directory: a link is then renamed or replaced as a link and never followed, and what
has got the final name in the end is looked at once more before it is called published.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from transferd.model.errors import TransferFailed
from transferd.model.job import Inode
from transferd.wire.chores import Leftover, Publication, Refusal
from transferd.worker.destination import check_replaceable
from transferd.worker.directory import flush_directory, open_directory
from transferd.worker.inode import inode_of
from transferd.worker.local_faults import local_failure, refused_locally

Item = TypeVar("Item")
Key = TypeVar("Key")
#: A directory, whether to be wary of it, and the files in it.
Group: TypeAlias = tuple[tuple[str, bool], list[Publication]]

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1
#: Directories that are open at once.
_OPEN = 64
#: A kernel or a file system that cannot rename without replacing.
_NO_FLAGS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def publish(files: Sequence[Publication]) -> tuple[Refusal, ...]:
    """Give whole temporary files their final names, durably.

    What is published already counts as published, so the call can be repeated after a crash. One
    refusal does not stop the others (BITS.md K4). Where a file says *overwrite* a regular file is
    replaced; nothing else ever is: no directory, special file or symbolic link, and no file that
    has a second name. *wary* as for `open_directory`: where a directory is everybody's (mode +t),
    whoever may move the partial file there could have its owner replace a file of his.

    Returns: what was refused, by the files' numbers: `local_lost` (the temporary is gone, or is
        another file), `local_exists`, `local_not_regular`, `local_hard_link`, `local_forbidden`,
        `local_directory_missing`, `local_access_denied`, `disk_full`, `local_busy`, `local_io`.
    """
    groups = list(_grouped(files, lambda file: (os.path.dirname(file.temporary), file.wary)))
    refusals: list[Refusal] = []
    for start in range(0, len(groups), _OPEN):
        refusals.extend(_publish_in(groups[start : start + _OPEN]))
    return tuple(refusals)


def discard(leftovers: Sequence[Leftover]) -> tuple[Refusal, ...]:
    """Remove temporary files; one that is not there, or whose directory is not, is removed.

    Only regular files under a name as `temporary_path` makes them are touched; no link is followed.

    Returns: what could not be removed, by the leftovers' numbers.
    """
    refusals: list[Refusal] = []
    for path, group in _grouped(leftovers, lambda leftover: os.path.dirname(leftover.temporary)):
        refusals.extend(_discard_in(path, group))
    return tuple(refusals)


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> Iterable[tuple[Key, list[Item]]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


# ── publishing ─────────────────────────────────────────────────────────────────────────────


def _publish_in(groups: Sequence[Group]) -> Iterator[Refusal]:
    with contextlib.ExitStack() as stack:
        renamed: list[tuple[int, str, list[Publication]]] = []
        for (path, wary), files in groups:
            try:
                directory = open_directory(path, wary=wary)
            except OSError as error:
                for file in files:
                    yield _refusal(
                        file, local_failure(error, "open the directory", path, file.local)
                    )
                continue
            stack.callback(os.close, directory)
            refused = dict(_rename(directory, files))
            yield from refused.values()
            renamed.append((directory, path, [f for f in files if f.number not in refused]))
        # After all renames: the first flush of a journal makes the others cheap.
        for directory, path, files in renamed:
            yield from _flush(directory, path, files)


def _rename(directory: int, files: list[Publication]) -> Iterator[tuple[int, Refusal]]:
    for file in files:
        try:
            _publish_one(directory, file)
        except TransferFailed as failed:
            yield file.number, _refusal(file, failed)


def _flush(directory: int, path: str, renamed: list[Publication]) -> Iterator[Refusal]:
    """Make all new names durable at once; also those of an earlier call that was cut short."""
    if not renamed:
        return
    try:
        flush_directory(directory)
    except OSError as error:
        yield from _all_refused(renamed, error, "flush the directory", path)


def _all_refused(
    files: Iterable[Publication], error: OSError, doing: str, path: str
) -> Iterator[Refusal]:
    for file in files:
        yield _refusal(file, local_failure(error, doing, path, file.local))


def _refusal(file: Publication, failed: TransferFailed) -> Refusal:
    return Refusal(file.number, failed.failure.code, failed.failure.message)


def _publish_one(directory: int, file: Publication) -> None:
    name, final = os.path.basename(file.temporary), os.path.basename(file.local)
    try:
        temporary, there = _look(directory, name), _look(directory, final)
        if temporary is None:
            if not _is_ours(there, file):
                raise _lost(file, "it is not there any more")
            return
        if not _is_ours(temporary, file):
            raise _lost(file, "another file is there in its place")
        if temporary == there:
            # Linked by an earlier call. A rename between two names of one file does nothing.
            os.unlink(name, dir_fd=directory)
            return
        check_replaceable(directory, final, file.local)
        if file.overwrite:
            os.rename(name, final, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            _rename_new(directory, name, final)
        if not _is_ours(_look(directory, final), file):
            raise _lost(file, "another file was put in its place meanwhile")
    except FileExistsError as error:
        message = (
            f"cannot put the transferred file at {file.local}: a file is there already; "
            "move it away and complete the job again, or cancel the job"
        )
        raise refused_locally("local_exists", message, file.local) from error
    except OSError as error:
        raise local_failure(error, "put the transferred file at", file.local, file.local) from error


class _Found(NamedTuple):
    """What has a name."""

    inode: Inode
    regular: bool


def _look(directory: int, name: str) -> _Found | None:
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        return _Found(inode_of(descriptor), stat.S_ISREG(os.fstat(descriptor).st_mode))
    finally:
        os.close(descriptor)


def _is_ours(found: _Found | None, file: Publication) -> bool:
    return found is not None and found.regular and found.inode.same(file.inode)


def _lost(file: Publication, what: str) -> TransferFailed:
    message = f"cannot publish {file.local} from {file.temporary}: {what}"
    return refused_locally("local_lost", message, file.local)


def _rename_new(directory: int, name: str, final: str) -> None:
    """Rename without replacing anything.

    Raises:
        OSError: EEXIST, if there is anything under the final name.
    """
    rename = getattr(_libc, "renameat2", None)
    code = errno.ENOSYS
    if rename is not None:
        source, target = os.fsencode(name), os.fsencode(final)
        if rename(directory, source, directory, target, _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code not in _NO_FLAGS:
        raise OSError(code, os.strerror(code))
    os.link(name, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.unlink(name, dir_fd=directory)


# ── discarding ─────────────────────────────────────────────────────────────────────────────


def _discard_in(path: str, leftovers: list[Leftover]) -> Iterator[Refusal]:
    try:
        directory = open_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        for leftover in leftovers:
            yield _kept(leftover, local_failure(error, "open the directory", path, path))
        return
    try:
        for leftover in leftovers:
            try:
                _discard_one(directory, leftover.temporary)
            except TransferFailed as failed:
                yield _kept(leftover, failed)
    finally:
        os.close(directory)


def _kept(leftover: Leftover, failed: TransferFailed) -> Refusal:
    return Refusal(leftover.number, failed.failure.code, failed.failure.message)


def _discard_one(directory: int, path: str) -> None:
    name = os.path.basename(path)
    try:
        found = _look(directory, name)
        if found is None:
            return
        if not (name.startswith(".") and ".transferd-" in name and found.regular):
            message = f"cannot remove {path}: it is not a partial file of transferd"
            raise refused_locally("local_not_regular", message, path)
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise local_failure(error, "remove the partial file", path, path) from error
