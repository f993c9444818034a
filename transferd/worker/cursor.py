"""A place in a partial file where bytes are written; everything here blocks."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_BLOCK = 1024 * 1024
_VECTORS = os.sysconf("SC_IOV_MAX")
#: So much is handed to the disk at once: what comes in between need not wait for long.
_PORTION = 8 * 1024 * 1024

#: What a file system says that does not splice.
UNSPLICED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class Ground(Protocol):
    """The file. Fits `partfile.PartFile`."""

    def writing(self) -> AbstractContextManager[int]:
        """Write to the descriptor that this yields, at the size that the file should have."""
        ...

    def has_grown(self, end: int) -> None:
        """Take that it was written as far as *end*."""
        ...

    def hand_to_disk(self, start: int, end: int) -> None:
        """Have the kernel begin to write what is there to the disk."""
        ...


class Cursor:
    """A place in a partial file where one thread writes."""

    def __init__(self, part: Ground, position: int) -> None:
        self._part = part
        #: Where the next byte goes; what was written in front of it is there, also after a failure.
        self.position = position
        #: What was written in front of it is on its way to the disk.
        self._handed = position

    def write(self, *chunks: Buffer) -> None:
        """Write all chunks.

        When it fails, a part of them may have been written: `position` tells how much. It fails
        with `local_lost` when somebody else has cut or lengthened the file: there would be a hole.
        """
        views = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
        with self._part.writing() as descriptor:
            while views:
                written = os.pwritev(descriptor, views[:_VECTORS], self.position)
                self._advance(written)
                views = _after(views, written)

    def splice(self, pipe: int, count: int) -> bool:
        """Write *count* bytes that are in a pipe; fails as `write`.

        False: this file system does not splice, and they were copied.
        """
        with self._part.writing() as descriptor:
            while count:
                try:
                    moved = os.splice(pipe, descriptor, count, offset_dst=self.position)
                except OSError as error:
                    if error.errno not in UNSPLICED:
                        raise
                    break
                self._advance(moved)
                count -= moved
        if not count:
            return True
        while count:
            data = os.read(pipe, min(count, _BLOCK))
            count -= len(data)
            self.write(data)
        return False

    def _advance(self, written: int) -> None:
        self.position += written
        self._part.has_grown(self.position)
        if self.position - self._handed >= _PORTION:
            self._part.hand_to_disk(self._handed, self.position)
            self._handed = self.position


def _after(views: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of *views* after *written* bytes."""
    for index, view in enumerate(views):
        if written < len(view):
            return [view[written:], *views[index + 1 :]]
        written -= len(view)
    return []
