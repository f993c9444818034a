"""What a guest boots from: the base tree, and over it, in memory, whatever the guest writes.

It exists in a mount namespace that a process holds for the tests, and is gone with them, however
they end. The tests reach it through that process, /proc/PID/root, whether the guest is up or not.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.guest_image import base_tree

#: Where the namespace has the tree.
_PLACE = Path("/mnt/tree")
# The host may have its control groups in any way, or none; guests see the unified hierarchy. What
# systemd-nspawn keeps in /run/systemd it removes only where that is no disk. An overlay counts as a
# disk, though it is in memory: systemd-creds keeps its key on no tmpfs.
_MOUNT = """
mount -t tmpfs -o mode=755 none /run/systemd
mount -t cgroup2 none /sys/fs/cgroup
lower=$1
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/written /mnt/work /mnt/tree
mount -t overlay -o "lowerdir=$lower,upperdir=/mnt/written,workdir=/mnt/work" none /mnt/tree
echo made
read -r _ || exit 0
"""


class Disk:
    """A tree that can be booted; `disk()` makes one."""

    def __init__(self, holder: int) -> None:
        """*holder* is the process that holds the namespace."""
        self._holder = holder

    def path(self, inside: str | Path) -> Path:
        """Return where the tests find an absolute path of the tree."""
        return Path(f"/proc/{self._holder}/root{_PLACE}") / Path(inside).relative_to("/")

    def command(self, *command: str) -> list[str]:
        """Return what runs a command outside of the guest, but where the tree is `Disk.tree`."""
        return ["nsenter", f"--target={self._holder}", "--mount", "--", *command]

    @property
    def tree(self) -> Path:
        """Where such commands find the tree."""
        return _PLACE


@contextlib.contextmanager
def disk() -> Iterator[Disk]:
    """Make a tree that is as fresh as the base tree, and stays so for nobody else."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", _MOUNT, "sh", base_tree()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"made\n":
            raise RuntimeError(f"cannot make a guest's disk: {holder.stderr.read().decode()}")
        try:
            yield Disk(holder.pid)
        finally:
            holder.communicate(b"")
