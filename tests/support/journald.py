"""journald's end of its native protocol: a datagram socket that reads what it is sent."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_RIGHTS = socket.CMSG_SPACE(array.array("i").itemsize)
_ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def parse(datagram: bytes) -> list[tuple[str, str]]:
    """Read fields as journald does: to the end of a line, or as many bytes as are announced."""
    found = []
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n", "a value does not end where it says"
            rest = rest[1:]
        found.append((name.decode("ascii"), value.decode()))
        datagram = rest
    return found


@dataclass
class Journald:
    """Records in the order in which they came."""

    path: Path
    _socket: socket.socket = field(repr=False)
    #: How many came as files.
    files: int = 0

    def record(self) -> list[tuple[str, str]]:
        """Wait for a record; its fields in their order."""
        datagram, ancillary, _, _ = self._socket.recvmsg(1 << 20, _RIGHTS)
        if not ancillary:
            return parse(datagram)
        assert not datagram
        self.files += 1
        (descriptor,) = array.array("i", ancillary[0][2])
        with open(descriptor, "rb") as file:
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _ALL_SEALS == _ALL_SEALS
            return parse(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))


@contextmanager
def journald(path: Path) -> Iterator[Journald]:
    """Listen at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(10)
        yield Journald(path, listening)
