"""The file tree that guests boot: a small Debian with a real systemd, made once by debootstrap.

`python -m tests.support.guest_image` makes it where it is missing. It takes root, a minute, and a
Debian mirror ($DEBIAN_MIRROR, default: deb.debian.org); the tree is kept outside of the checkout,
under the name of what it is made of, and nobody writes to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.servers import require_program

#: The oldest Debian that transferd supports.
SUITE = "bookworm"
#: Beside Debian's essential packages: what a server has, what the README asks for before transferd
#: is built, and what tests look at the guest with.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "dbus-user-session", "sudo"),
    *("python3-venv", "python3-dev", "gcc", "libkrb5-dev", "dpkg-dev"),
    *("ca-certificates", "iproute2", "procps"),
)
_MIRROR = "http://deb.debian.org/debian"
#: A mirror that says nothing must not hold up the tests for ever.
_BUILD_SECONDS = 300
#: What debootstrap leaves behind, and no guest needs. Without its lists apt knows of no package
#: that it had to fetch: a guest has no network.
_LEFTOVERS = (
    *("var/cache/apt/archives", "var/lib/apt/lists"),
    *("usr/share/doc", "usr/share/man", "usr/share/locale"),
)
# dpkg waits for the disk after every file; in memory that is no time.
_IN_MEMORY = """
tree=$1 mirror=$2
shift 2
mount -t tmpfs none /mnt
"$@" /mnt/tree "$mirror"
cp -a /mnt/tree "$tree"
"""
#: Units that would be in the way of tests: at some moment of the day they lock dpkg.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer")
#: What it takes from the host, or leaves out.
_FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "etc/resolv.conf": "",
}


def cache_directory() -> Path:
    """Return where trees are kept: `transferd-tests` in $XDG_CACHE_HOME or /var/cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "transferd-tests"


def base_tree() -> Path:
    """Return the tree under all guests' disks, made if need be; others wait meanwhile.

    Raises:
        RuntimeError: debootstrap failed; says how.
    """
    recipe = hashlib.sha256(
        repr((SUITE, PACKAGES, _LEFTOVERS, _MASKED, _FILES)).encode()
    ).hexdigest()[:12]
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / f"{SUITE}-{recipe}"
    with (cache / f"{tree.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            with tempfile.TemporaryDirectory(prefix=f"{tree.name}.", dir=cache) as made:
                _build(Path(made) / "tree")
                # A tree under its name is a whole one.
                (Path(made) / "tree").rename(tree)
    return tree


def _build(tree: Path) -> None:
    mirror = os.environ.get("DEBIAN_MIRROR") or _MIRROR
    include = f"--include={','.join(PACKAGES)}"
    debootstrap = [require_program("debootstrap"), "--variant=minbase", include, SUITE]
    built = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", _IN_MEMORY, "sh", tree, mirror, *debootstrap],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if built.returncode != 0:
        raise RuntimeError(f"cannot make a guest from {mirror}: {built.stdout[-2000:]}")
    for leftover in _LEFTOVERS:
        shutil.rmtree(tree / leftover)
        (tree / leftover).mkdir()
    for unit in _MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for name, content in _FILES.items():
        (tree / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    began = time.monotonic()
    print(f"{base_tree()} ({time.monotonic() - began:.0f} s)")
