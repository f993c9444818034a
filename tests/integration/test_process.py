"""What a process may do, and what others may do to it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import require_root
from transferd.process import DescriptorLimit

_ROOT = Path(__file__).resolve().parents[2]
#: A soft limit below every hard one.
USUAL = 512

#: Somebody whom permissions bind, and what another process of the same user can open of this one.
#: (The memory of a process that hides nothing may still be closed to it, by Yama.)
_SEEN = """
import contextlib, ctypes, os
from transferd.process import hide_memory
with contextlib.suppress(PermissionError):  # not root, or without root's powers
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # what exec does
def opened():
    parent, (reading, writing) = os.getpid(), os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        for name in ("environ", "mem"):
            try:
                open(f"/proc/{parent}/{name}", "rb").close()
                os.write(writing, name.encode() + b" ")
            except PermissionError:
                pass
        os._exit(0)
    os.close(writing)
    os.wait()
    return os.read(reading, 100).decode().split()
before = opened()
hide_memory()
print("environ" in before, opened(), os.path.exists("/proc/self/fd/0"))
"""


def test_other_processes_of_the_user_cannot_read_the_memory() -> None:
    """Neither passwords nor the key of the vault; the process itself still finds its files."""
    done = subprocess.run(
        [sys.executable, "-c", _SEEN],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout == "True [] True\n"


#: Root's key, and who can read it before and after.
_POSSESSED = """
import ctypes, os
from transferd.process import leave_session_keyring
keys = ctypes.CDLL("libkeyutils.so.1")
keys.keyctl_join_session_keyring(None)
assert keys.add_key(b"user", b"ticket", b"secret", 6, -3) > 0
def readable():
    (reading, writing) = os.pipe()
    if os.fork() == 0:
        os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
        key = keys.keyctl_search(-3, b"user", b"ticket", 0)
        os.write(writing, b"%d" % (key > 0 and keys.keyctl_read(key, bytes(9), 9) == 6))
        os._exit(0)
    os.wait()
    return os.read(reading, 1)
before = readable()
leave_session_keyring()
print(before, readable())
"""


def test_keys_of_who_starts_a_service_are_not_its_workers() -> None:
    """A daemon that root starts by hand has root's session keyring, and passes none of it on."""
    require_root("becoming somebody else")
    done = subprocess.run(
        [sys.executable, "-c", _POSSESSED],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "b'1' b'0'\n"


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit, with a soft one below it as most sessions have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def started_with() -> int:
    """The limit of a process that is started now."""
    done = subprocess.run(["/bin/sh", "-c", "ulimit -S -n"], capture_output=True, check=True)
    return int(done.stdout)


def test_a_process_takes_as_many_descriptors_as_it_may(hard: int) -> None:
    """The hard limit stays, and bounds what is taken; so does reason."""
    limit = DescriptorLimit()
    limit.lift()
    assert limit.now == min(hard, 65536)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit.now, hard)


def test_a_limit_that_is_higher_is_left_alone(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has chosen it."""
    monkeypatch.setattr("transferd.process._MOST", USUAL // 2)
    limit = DescriptorLimit()
    limit.lift()
    assert limit.now == USUAL


def test_others_start_with_the_limit_that_was(hard: int) -> None:
    """There are programs that count up to it; blocks may end in any order."""
    limit = DescriptorLimit()
    limit.lift()
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        one.enter_context(limit.usual())
        assert started_with() == USUAL
        other.enter_context(limit.usual())
        assert started_with() == USUAL
        one.close()
        assert started_with() == limit.now > USUAL
    assert started_with() == limit.now > USUAL


def test_a_limit_that_was_not_lifted_is_not_touched(hard: int) -> None:
    """A worker without a daemon, say."""
    with DescriptorLimit().usual():
        assert started_with() == USUAL
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (USUAL, hard)


def test_the_limit_is_never_lowered_below_what_is_open(hard: int) -> None:
    """Something has to be opened to start a process, and other threads go on."""
    limit = DescriptorLimit()
    limit.lift()
    high = USUAL + 10
    os.dup2(0, high)
    try:
        with limit.usual():
            assert high < started_with() < high + 100
    finally:
        os.close(high)
