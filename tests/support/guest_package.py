"""What a guest installs transferd from: this checkout, and the wheels of what it depends on.

The guest's network leads nowhere, so its pip finds packages in a directory: the wheels are fetched
once for the guest's Python, whatever Python runs the tests, and kept beside the guest's tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.support.guest import Guest
from tests.support.guest_image import cache_directory

_CHECKOUT = Path(__file__).resolve().parents[2]
#: Where the guest has the checkout and the wheels.
SOURCES = "/root/transferd"
_WHEELS = "/srv/wheels"
#: What lies around in a checkout, and is no part of it.
_STRAY = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
#: Of the guest's Debian.
_PYTHON = "3.11"
_LIBRARIES = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12")
_FETCH_SECONDS = 120


def give_sources(guest: Guest) -> None:
    """Put the checkout on the guest's disk, and have its pip look for wheels there, too."""
    ignored = shutil.ignore_patterns(*_STRAY)
    shutil.copytree(_CHECKOUT, guest.path(SOURCES), symlinks=True, ignore=ignored)
    shutil.copytree(_wheels(), guest.path(_WHEELS))
    guest.put("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {_WHEELS}\n")


def _wheels() -> Path:
    """Return a directory with the wheels, fetched if need be; others wait meanwhile.

    Raises:
        RuntimeError: pip cannot fetch them; says why.
    """
    project = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = ["pip", *project["build-system"]["requires"], *project["project"]["dependencies"]]
    name = hashlib.sha256(" ".join([_PYTHON, *wanted]).encode()).hexdigest()[:12]
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    wheels = cache / f"wheels-{name}"
    with (cache / f"{wheels.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wheels.exists():
            with tempfile.TemporaryDirectory(prefix=f"{wheels.name}.", dir=cache) as fetched:
                _fetch(wanted, Path(fetched) / "wheels")
                (Path(fetched) / "wheels").rename(wheels)
    return wheels


def _fetch(wanted: list[str], directory: Path) -> None:
    machine = platform.machine()
    platforms = [f"--platform={library}_{machine}" for library in _LIBRARIES]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={directory}"]
    kind = ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
    fetched = subprocess.run(
        [*pip, *kind, *platforms, *wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_FETCH_SECONDS,
        check=False,
    )
    if fetched.returncode != 0:
        raise RuntimeError(f"cannot fetch wheels for a guest: {fetched.stdout[-2000:]}")
