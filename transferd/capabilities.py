"""What the kernel lets a process do beyond its user's rights (capabilities(7)), and giving it up.

All of it is per thread: whoever calls `confine_daemon` or `drop_all` has started no thread yet.
"""

from __future__ import annotations

import ctypes
import enum
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transferd.model.errors import TransferdError

#: <linux/prctl.h>
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 23, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
#: <linux/capability.h>: _LINUX_CAPABILITY_VERSION_3
_VERSION = 0x20080522
_MOST = 64


class Capability(enum.IntFlag):
    """Those that transferd knows by name; values are bits, as /proc shows them."""

    KILL = 1 << 5
    SETGID = 1 << 6
    SETUID = 1 << 7
    SETPCAP = 1 << 8


NONE = Capability(0)
#: What it takes to become the owners of jobs, and to end their workers.
NEEDED = Capability.SETUID | Capability.SETGID | Capability.KILL


class CapabilityError(TransferdError):
    """The process has not what it needs, or cannot give up what it must not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The five sets of a process, and whether exec(2) can still grant anything."""

    inheritable: Capability
    permitted: Capability
    effective: Capability
    bounding: Capability
    ambient: Capability
    no_new_privileges: bool

    @property
    def held(self) -> Capability:
        """What the process can do or pass on; the bounding set only says what it could be given."""
        return self.inheritable | self.permitted | self.effective | self.ambient


def read_capabilities(pid: int | None = None) -> Capabilities:
    """Read those of a process, or, for None, of the calling thread.

    Raises:
        OSError: there is no such process.
    """
    place = "thread-self" if pid is None else str(pid)
    text = Path(f"/proc/{place}/status").read_text(encoding="utf-8", errors="replace")
    lines = dict(re.findall(r"(?m)^(Cap\w+|NoNewPrivs):\s*(\w+)$", text))

    def named(line: str) -> Capability:
        return Capability(int(lines[line], 16))

    return Capabilities(
        inheritable=named("CapInh"),
        permitted=named("CapPrm"),
        effective=named("CapEff"),
        bounding=named("CapBnd"),
        ambient=named("CapAmb"),
        no_new_privileges=lines["NoNewPrivs"] == "1",
    )


def confine_daemon() -> None:
    """Keep what it takes to start and end workers, and nothing that they could inherit.

    No program that is executed from now on, of whatever owner, gains any privilege.

    Raises:
        CapabilityError: the process has not what it needs; says what to do.
    """
    missing = NEEDED & ~read_capabilities().permitted
    if missing:
        names = ", ".join(f"CAP_{capability.name}" for capability in missing)
        raise CapabilityError(
            f"cannot run workers as their owners: this process lacks {names}; start the service "
            "with `systemctl start transferd`, or as root; or leave out --system: that daemon "
            "works for one user"
        )
    _confine(NEEDED, forever=True)


def drop_all() -> None:
    """Give up every capability, for this process and what it starts.

    The bounding set can only be emptied by a process that may; others had nothing to bound.

    Raises:
        CapabilityError: the kernel refuses.
    """
    _confine(NONE, forever=False)


def _confine(kept: Capability, *, forever: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if forever:
        _call(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _call(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    permitted = read_capabilities().permitted
    if Capability.SETPCAP & permitted:
        _set(libc, kept | Capability.SETPCAP)
        for number in _known(libc):
            _call(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
    _set(libc, kept)
    now = read_capabilities()
    if now.held != kept or now.inheritable or now.ambient:
        raise CapabilityError(f"cannot give up capabilities: the kernel still says {now}")


def _known(libc: ctypes.CDLL) -> Iterator[int]:
    """Yield the numbers of the capabilities that this kernel has."""
    for number in range(_MOST):
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            return
        yield number


def _set(libc: ctypes.CDLL, kept: Capability) -> None:
    """Have *kept* as permitted and effective set, and nothing inheritable (capset(2))."""
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _call(libc.capset(header, data))


def _call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise CapabilityError(f"cannot give up capabilities: {os.strerror(number)}")
