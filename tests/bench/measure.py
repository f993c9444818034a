"""What processes use, and what many values come to."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import DaemonProcess

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process, in MiB."""

    #: All that is in memory, shared pages included (VmRSS).
    resident: float
    #: Shared pages by the share that is this process's; None where it may not be read.
    proportional: float | None


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return what processes have used of the CPU so far, in user space and in the kernel."""
    total = 0.0
    for pid in pids:
        # The program's name, in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICK
    return total


def exact_cpu_seconds(pid: int) -> float:
    """Return the same of one process from the scheduler's own count, finer than its ticks."""
    return sum(
        int(path.read_text().split()[0]) / 1e9
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def voluntary_switches(pid: int) -> int:
    """Return how often the threads of a process have waited for something."""
    return sum(
        int(line.split()[1])
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    )


def memory(pid: int) -> Memory:
    """Return what a process has in memory.

    Raises:
        OSError: there is no such process (any more).
    """
    resident = _kibibytes(f"/proc/{pid}/status", "VmRSS:")
    proportional = None
    # A worker does not let its owner look; root may.
    with contextlib.suppress(PermissionError):
        proportional = _kibibytes(f"/proc/{pid}/smaps_rollup", "Pss:")
    return Memory(resident / 1024, None if proportional is None else proportional / 1024)


def peak_resident(pid: int) -> float:
    """Return the most that a process ever had in memory, in MiB."""
    return _kibibytes(f"/proc/{pid}/status", "VmHWM:") / 1024


def most(taken: Sequence[Memory]) -> Memory:
    """Return the most of either way of counting."""
    known = [each.proportional for each in taken if each.proportional is not None]
    return Memory(max(each.resident for each in taken), max(known, default=None))


def _kibibytes(path: str, field: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


class Peak(threading.Thread):
    """Watches the memory of a daemon and its workers."""

    def __init__(self, daemon: DaemonProcess) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._over = threading.Event()
        self.daemon_most = self.worker_most = Memory(0.0, None)

    def run(self) -> None:
        """Look every 50 ms until `stop`."""
        while not self._over.wait(0.05):
            self.daemon_most = most([self.daemon_most, memory(self._daemon.pid)])
            for pid in self._daemon.workers():
                with contextlib.suppress(OSError):
                    self.worker_most = most([self.worker_most, memory(pid)])

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many of a hundred do not exceed."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def percentiles(values: Sequence[float]) -> str:
    """Say median, 99th percentile and maximum of milliseconds."""
    middle, late = percentile(values, 50), percentile(values, 99)
    return f"p50 {middle:.1f} ms, p99 {late:.1f} ms, max {max(values):.1f} ms"
