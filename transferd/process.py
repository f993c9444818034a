"""What the kernel grants to this process, and keeps from others."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
from collections.abc import Iterator

#: Enough for everybody; the hard limit may be a thousand million, and programs count up to it.
_MOST = 65536
#: So many can be opened while the limit is lowered: to start a process, and by other threads.
_SPARE = 64
_PR_SET_DUMPABLE = 4
#: Objects, and collections of a generation, before the next one is searched (gc.set_threshold).
_COLLECTIONS = 20_000, 10, 10
#: The number of keyctl(2), whose library few machines have, and <linux/keyctl.h>.
_SYS_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "loongarch64": 219,
    "armv7l": 311,
    "i686": 288,
    "ppc64le": 271,
    "s390x": 280,
}
_KEYCTL_JOIN_SESSION_KEYRING = 1


def collect_seldom() -> None:
    """Look for unreachable cycles less often; after everything is imported.

    Nearly all that a job leaves behind is freed at once, without a search; cycles come of errors.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


def hide_memory() -> None:
    """Let no other process of this user read the memory, and leave no core file of it (prctl(2)).

    It ends with exec(2): what this process starts does not have it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_session_keyring() -> None:
    """Have a session keyring of one's own, and pass on no key of whoever has started the process.

    A process possesses what is in its session keyring, and so do all that it starts, of whatever
    user (session-keyring(7)). Where keys are not allowed at all there is nothing to leave.
    """
    number = _SYS_KEYCTL.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(
            ctypes.c_long(number), ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None
        )


class DescriptorLimit:
    """How many descriptors this process may have open. There is one: DESCRIPTORS."""

    def __init__(self) -> None:
        self._usual: int | None = None

    @property
    def now(self) -> int:
        """The soft limit."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def lift(self) -> None:
        """Take as many as the hard limit allows."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._usual is None:
            self._usual = soft
        lifted = max(soft, min(hard, _MOST))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lifted, hard))

    @contextlib.contextmanager
    def usual(self) -> Iterator[None]:
        """Start what is started in the block with the limit that there was before `lift`.

        A process gets the limit that its parent has at that moment. So this one lowers its own for
        as long, but never so far that nothing could be opened. Blocks may overlap.
        """
        if self._usual is None:
            yield
            return
        highest = max(map(int, os.listdir("/proc/self/fd")))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowered = min(max(self._usual, highest + _SPARE), hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
        try:
            yield
        finally:
            self.lift()


DESCRIPTORS = DescriptorLimit()
