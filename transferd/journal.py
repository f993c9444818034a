"""journald's native protocol: each record is a datagram of named fields.

Source: systemd.io/JOURNAL_NATIVE_PROTOCOL. A value with a line break has its length before it, so
that nothing in it can begin another field. What is too large for a datagram goes in a sealed memfd.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path

#: Where journald listens, unless a test plays it.
SOCKET = Path("/run/systemd/journal/socket")

#: Events of ours are named in this space: the id of `job.created` is
#: `uuidgen --sha1 --namespace 6f0e1c52-5a0f-4d59-9d1e-0d8f6c1b7a34 --name job.created`.
_EVENTS = uuid.UUID("6f0e1c52-5a0f-4d59-9d1e-0d8f6c1b7a34")

#: A journald that takes nothing for so long is not waited for.
_SEND_SECONDS = 1.0
#: Longer names are dropped by journald.
_NAME_CHARS = 64
_ODD = re.compile(r"[^A-Z0-9_]")
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def message_id(event: str) -> str:
    """Return what MESSAGE_ID= is for an event: the same on every machine, for ever."""
    return uuid.uuid5(_EVENTS, event).hex


def field_name(name: str) -> str:
    """Return the field that holds what our log calls *name*: `job` is TRANSFERD_JOB."""
    return f"TRANSFERD_{_ODD.sub('_', name.upper())}"[:_NAME_CHARS]


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the datagram for *fields*; names are journald's or of `field_name`."""
    return b"".join(_encoded(name, value) for name, value in fields)


def _encoded(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")
    if b"\n" not in raw:
        return b"%s=%s\n" % (name.encode("ascii"), raw)
    return b"%s\n%s%s\n" % (name.encode("ascii"), len(raw).to_bytes(8, "little"), raw)


class Journal:
    """The way to journald."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_SECONDS)

    def send(self, fields: Iterable[tuple[str, str]]) -> None:
        """Hand a record over.

        Raises:
            OSError: journald is not there, or takes nothing.
        """
        datagram = encode(fields)
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_file(datagram)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send_file(self, datagram: bytes) -> None:
        """Send a descriptor of a file that nobody can change any more, and nothing else."""
        descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "wb") as file:
            file.write(datagram)
            file.flush()
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = array.array("i", [descriptor])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            self._socket.sendmsg([], ancillary, 0, self._path)
