"""What a guest installs transferd from: the Debian package, or this checkout and some wheels.

The package is built outside, by the host's own Python, which must be the guest's: its Debian is the
host's. A guest's network leads nowhere, so its pip finds packages in a directory: the wheels are
fetched once for the guest's Python, whatever Python runs the tests, and kept beside its tree.
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
_LIBRARIES = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12")
_FETCH_SECONDS = 120
#: Mostly of what comes as sources only, where tests/run has not built it before.
_BUILD_SECONDS = 280


def build_package(scratch: Path) -> Path:
    """Build the Debian package of this checkout below an empty directory; returns its path.

    Raises:
        RuntimeError: it cannot be built; says why.
    """
    sources = scratch / "sources"
    _copy_checkout(sources)
    # What tests/run has built is not optimized: good for a test, and not left in the checkout.
    built_before = [os.environ.get("PIP_FIND_LINKS", ""), str(_CHECKOUT / ".venv-wheels")]
    built = subprocess.run(
        [".packaging/deb", str(scratch)],
        cwd=sources,
        env=os.environ | {"PIP_FIND_LINKS": " ".join(built_before)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if built.returncode != 0:
        raise RuntimeError(f"cannot build the Debian package: {built.stdout[-2000:]}")
    shutil.rmtree(sources)
    return next(scratch.glob("*.deb"))


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
    pack = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, packed]
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return packed


def _copy_checkout(destination: Path) -> None:
    ignored = shutil.ignore_patterns(*_STRAY)
    shutil.copytree(_CHECKOUT, destination, symlinks=True, ignore=ignored)


def give_sources(guest: Guest) -> None:
    """Put the checkout on the guest's disk, and have its pip look for wheels there, too."""
    _copy_checkout(guest.path(SOURCES))
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
