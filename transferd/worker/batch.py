"""Small files that become durable together; everything here blocks."""

from __future__ import annotations

import contextlib
import os.path
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from transferd.model.errors import TransferFailed
from transferd.model.job import Inode, Seconds
from transferd.worker.folder import Folder
from transferd.worker.local_faults import refused_locally
from transferd.worker.partfile import PartFile

#: Fewer files of a file system are flushed one by one.
_TOGETHER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """A whole file."""

    local: str
    temporary: str
    data: bytes
    #: Its time of modification.
    mtime: Seconds | None
    wary: bool
    #: Whether anybody still waits for it; asked in the thread that keeps it.
    wanted: Callable[[], bool] = lambda: True


#: Which file it has become, or why it has not.
Outcome: TypeAlias = Inode | TransferFailed


class Folders:
    """The directories of files that are at work at the same time: each is opened once."""

    def __init__(self, close: contextlib.ExitStack) -> None:
        self._close = close
        self._open: dict[tuple[str, bool], Folder] = {}

    def find(self, path: str, local: str, *, wary: bool = False) -> Folder:
        """Return the directory *path*; as `Folder.open`."""
        folder = self._open.get((path, wary))
        if folder is None:
            folder = self._open[path, wary] = Folder.open(path, local, wary=wary)
            self._close.callback(folder.close)
        return folder


def keep(deposits: Sequence[Deposit]) -> list[Outcome]:
    """Write files under their temporary names and make them durable.

    One that cannot be kept is no reason not to keep the others. One that is not wanted any more is
    not begun: a later run may have that file by now.
    """
    written: dict[int, PartFile] = {}
    outcomes: dict[int, Outcome] = {}
    with contextlib.ExitStack() as close:
        folders = Folders(close)
        for number, deposit in enumerate(deposits):
            try:
                written[number] = _write(deposit, folders, close)
            except TransferFailed as failed:
                outcomes[number] = failed
        for group in _by_device(written):
            outcomes |= _flush(group)
    return [outcomes[number] for number in range(len(deposits))]


def _write(deposit: Deposit, folders: Folders, close: contextlib.ExitStack) -> PartFile:
    if not deposit.wanted():
        message = f"cannot keep {deposit.local}: nobody waits for it any more"
        raise refused_locally("local_busy", message, deposit.local)
    folder = folders.find(os.path.dirname(deposit.temporary), deposit.local, wary=deposit.wary)
    part = PartFile.open_in(folder, deposit.local, deposit.temporary)
    close.callback(part.close)
    part.cursor(0).write(deposit.data)
    if deposit.mtime is not None:
        part.set_time(deposit.mtime)
    return part


def _by_device(written: Mapping[int, PartFile]) -> Iterable[Mapping[int, PartFile]]:
    devices: defaultdict[int, dict[int, PartFile]] = defaultdict(dict)
    for number, part in written.items():
        devices[part.inode.device][number] = part
    return devices.values()


def _flush(group: Mapping[int, PartFile]) -> dict[int, Outcome]:
    """Make files of one file system durable, and see that they are where their paths lead."""
    durable = len(group) >= _TOGETHER and _flush_together(next(iter(group.values())))
    outcomes: dict[int, Outcome] = {}
    with contextlib.ExitStack() as close:
        folders = Folders(close)
        for number, part in group.items():
            try:
                part.confirm(folders.find(*part.place)) if durable else part.finish(None)
                outcomes[number] = part.inode
            except TransferFailed as failed:
                outcomes[number] = failed
    return outcomes


def _flush_together(part: PartFile) -> bool:
    """Flush a whole file system; False: each file of it is to be flushed by itself.

    An error may be about anybody's file there; those that it is about say so when they are asked.
    """
    try:
        return part.sync_file_system()
    except TransferFailed:
        return False
