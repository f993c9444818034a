"""What a guest installs transferd from: this checkout, and the wheels of what it depends on.

A guest's network leads nowhere, so its pip finds packages in a directory: the wheels are fetched
once for the guest's Python, whatever Python runs the tests, and kept beside its tree. What comes as
sources only is built outside, as tests/run does it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
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
_LIBRARIES = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "linux")
#: Enough for building what comes as sources only, where tests/run has not built it before.
_FETCH_SECONDS = 250


def renumber(package: Path, version: str, scratch: Path) -> Path:
    """Pack a Debian package anew, as another version of itself; returns its path."""
    tree = scratch / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    lines = [f"Version: {version}" if line.startswith("Version:") else line for line in lines]
    control.write_text("\n".join([*lines, ""]))
    packed = scratch / f"transferd_{version}.deb"
    # Fast, and no larger than the disk can bear.
    pack = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(packed)]
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return packed


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
    kerberos = project["project"]["optional-dependencies"]["kerberos"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *kerberos]
    name = hashlib.sha256(repr((_PYTHON, wanted)).encode()).hexdigest()[:12]
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    wheels = cache / f"wheels-{name}"
    with (cache / f"{wheels.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wheels.exists():
            with tempfile.TemporaryDirectory(prefix=f"{wheels.name}.", dir=cache) as fetched:
                _fetch(wanted, kerberos, Path(fetched) / "wheels")
                (Path(fetched) / "wheels").rename(wheels)
    return wheels


def _fetch(wanted: list[str], sources: list[str], directory: Path) -> None:
    """Fetch everything that is *wanted*; what comes as *sources* only is built first."""
    directory.mkdir()
    machine = platform.machine()
    platforms = [f"--platform={library}_{machine}" for library in _LIBRARIES]
    kind = ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
    found = [f"--find-links={_CHECKOUT / '.venv-wheels'}", f"--find-links={directory}"]
    _pip("wheel", "--no-deps", *found, f"--wheel-dir={directory}", *sources)
    _pip("download", *kind, *platforms, *found, f"--dest={directory}", *wanted)


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        # As in tests/run: optimizing would take three times as long.
        env=os.environ | {"CFLAGS": "-O0 -g0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_FETCH_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"cannot get wheels for a guest: {done.stdout[-2000:]}")
