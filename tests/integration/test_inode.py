"""Which file an open one is, on the real file system."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.support.inodes import inode_at


def test_a_file_is_known_by_its_number_and_its_birth(tmp_path: Path) -> None:
    """As stat(1) tells them; 0 or - where the file system does not keep births."""
    path = tmp_path / "a"
    before = int(time.time()) - 1
    path.write_bytes(b"")
    inode = inode_at(path)
    command = ["stat", "--format", "%i %W", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert inode.number == int(said[0])
    if said[1] in "0-":
        assert inode.born is None
    else:
        assert inode.born is not None
        assert before <= inode.born // 10**9 == int(said[1])


def test_what_is_done_to_a_file_does_not_change_it(tmp_path: Path) -> None:
    """It stays the recorded one when it is written, cut, dated or renamed."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"0123")
    inode = inode_at(path)
    path.write_bytes(b"0123456789")
    path.chmod(0o600)
    subprocess.run(["touch", "--date", "2001-01-01", str(path)], check=True)
    path.rename(other)
    assert inode_at(other) == inode


@pytest.mark.parametrize("statx", [None, lambda *_: -1, lambda *_: 0])
def test_where_births_are_not_told_the_number_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statx: object
) -> None:
    """An old C library, an old kernel, a file system that does not keep them."""
    monkeypatch.setattr("transferd.worker.inode._statx", statx)
    path = tmp_path / "a"
    path.write_bytes(b"")
    inode = inode_at(path)
    assert (inode.number, inode.born) == (path.stat().st_ino, None)
