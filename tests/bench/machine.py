"""What machine and which programs figures come from."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import ssl
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

import transferd
from tests.support.programs import find_program

_TOOLS = {
    "nginx": "-v",
    "curl": "--version",
    "aria2c": "--version",
    "wget2": "--version",
}


def describe(places: Mapping[str, Path]) -> dict[str, str]:
    """Return everything, by name; of each place its file system."""
    versions = {tool: _version(tool, option) for tool, option in _TOOLS.items()}
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "sqlite": sqlite3.sqlite_version,
        "aiohttp": aiohttp.__version__,
        "transferd": transferd.__version__,
        **versions,
        **{f"file system of {name}": _file_system(path) for name, path in places.items()},
    }


def headline(machine: Mapping[str, str]) -> str:
    """Return in one line what matters most."""
    cpu, cores, memory = machine["cpu"], machine["cores"], machine["memory"]
    return f"{cpu}, {cores} cores, {memory}, Linux {machine['kernel']}, {machine['when'][:10]}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(tool: str, option: str) -> str:
    program = find_program(tool)
    if program is None:
        return "not installed"
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    # nginx says it on the other stream.
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _file_system(path: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, this = line.split()[:3]
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, this
    return kind
