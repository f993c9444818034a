"""A network of its own: loopback at first, kept by a descriptor and gone with it.

Sockets that are made in it serve there, whoever accepts from them: a test listens at 127.0.0.1 in
its own process, and a guest on the same network connects to 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.support.servers import require_program

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, sched.h
_SET_FLAGS = 0x8914  # SIOCSIFFLAGS, sockios.h
_UP = 0x1  # IFF_UP, if.h
_BACKLOG = 512

_Made = TypeVar("_Made")


class Network:
    """A network namespace; `network()` makes one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def path(self) -> str:
        """Where programs of root find the namespace as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def command(self) -> list[str]:
        """What to put before a command, so that root runs it in this network."""
        return [require_program("nsenter"), f"--net={self.path}", "--"]

    def within(self, work: Callable[[], _Made]) -> _Made:
        """Do something in this network; sockets and files of /proc/net stay of it afterwards."""

        def enter() -> _Made:
            _call("setns", self._descriptor, _NEW_NETWORK)
            return work()

        return _in_thread(enter)

    def listen(self, port: int = 0) -> socket.socket:
        """Listen at 127.0.0.1 in this network; port 0 is any free one."""
        return self.within(lambda: socket.create_server(("127.0.0.1", port), backlog=_BACKLOG))


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a network whose loopback interface is up.

    Raises:
        OSError: the process lacks CAP_SYS_ADMIN.
    """
    descriptor = _in_thread(_new)
    try:
        yield Network(descriptor)
    finally:
        os.close(descriptor)


def _new() -> int:
    _call("unshare", _NEW_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # struct ifreq: a name of 16 bytes and a union of 24, here the flags.
        request = struct.pack("16sh22x", b"lo", _UP)
        fcntl.ioctl(any_socket.fileno(), _SET_FLAGS, request)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(work: Callable[[], _Made]) -> _Made:
    # A thread changes its network for itself alone, and does not come back.
    with ThreadPoolExecutor(max_workers=1) as single:
        return single.submit(work).result()


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {name}: {os.strerror(number)}")
