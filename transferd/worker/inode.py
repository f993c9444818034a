"""Which file an open one is: its number, and when it was made, since numbers are used again."""

from __future__ import annotations

import ctypes
import os
import struct

from transferd.model.job import Inode

# Of <linux/stat.h> and <linux/fcntl.h>. (Python has os.statx from 3.15 on.)
_STATX_BTIME = 0x800
_AT_EMPTY_PATH = 0x1000
_STATX_BYTES = 256
_MASK = struct.Struct("=I")
_BTIME, _BTIME_OFFSET = struct.Struct("=qI"), 80

_statx = getattr(ctypes.CDLL(None), "statx", None)


def inode_of(descriptor: int, found: os.stat_result | None = None) -> Inode:
    """Return which file is open; *found* is what fstat(2) says of it, where that is known.

    Raises:
        OSError: *descriptor* is not open, or the file system fails.
    """
    found = os.fstat(descriptor) if found is None else found
    return Inode(device=found.st_dev, number=found.st_ino, born=_born(descriptor))


def _born(descriptor: int) -> int | None:
    """Return when the file was made, in nanoseconds since the epoch (statx(2))."""
    if _statx is None:  # a C library without it
        return None
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, found) != 0:
        return None
    (mask,) = _MASK.unpack_from(found)
    seconds, nanoseconds = _BTIME.unpack_from(found, _BTIME_OFFSET)
    # No date before 2262 needs more bits than the queue keeps.
    born: int = (seconds * 10**9 + nanoseconds) & (2**63 - 1)
    return born if mask & _STATX_BTIME else None
