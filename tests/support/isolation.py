"""Circumstances that a test cannot make in its own process: failing system calls, small disks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import require_program

_ROOT = Path(__file__).resolve().parents[2]
_NOBODY = 65534
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Run:
    """What a piece of code printed, and the system calls that were watched, one a line."""

    printed: str
    calls: tuple[str, ...]


def run_traced(
    code: str, arguments: Sequence[str], *, calls: str, inject: str | None = None
) -> Run:
    """Run Python *code* in a process of its own under strace.

    Args:
        code: reads *arguments* as `sys.argv[1:]`.
        calls: system calls to list, by commas.
        inject: one to fail, in strace's words: `fdatasync:error=EIO:when=1`.
    """
    strace = require_program("strace")
    with tempfile.NamedTemporaryFile() as trace:
        options = ["-y", "-o", trace.name, "-e", f"trace={calls}", "-e", "signal=none"]
        if inject is not None:
            options += ["-e", f"inject={inject}"]
        printed = _run([strace, *options, sys.executable, "-c", code, *arguments])
        lines = Path(trace.name).read_text().splitlines()
    return Run(printed, tuple(line for line in lines if "(" in line))


def run_on_small_disk(code: str, *, size: str) -> str:
    """Run Python *code* where `sys.argv[1]` is a directory on a disk of *size* (as 1m)."""
    unshare = require_program("unshare")
    script = 'mount -t tmpfs -o "size=$1" none "$2" && exec "$3" -c "$4" "$2"'
    with tempfile.TemporaryDirectory() as place:
        arguments = ["sh", size, place, sys.executable, code]
        return _run([unshare, "-rm", "sh", "-c", script, *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def ordinary_user() -> Iterator[Path]:
    """Be somebody whom permissions bind, with a directory of their own; root becomes nobody."""
    with tempfile.TemporaryDirectory(prefix="transferd-test-") as name:
        place = Path(name)
        if os.geteuid() != 0:
            yield place
            return
        place.chmod(0o755)
        home = place / "home"
        home.mkdir()
        os.chown(home, _NOBODY, _NOBODY)
        group = os.getegid()
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        try:
            yield home
        finally:
            os.seteuid(0)
            os.setegid(group)
