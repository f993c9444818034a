"""Directories that are swapped while a worker is at it: nothing is touched outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.racing import NOBODY, SWAPS
from tests.support.worker import JOB
from transferd.model.paths import temporary_path

#: What the race writes to.
_FINAL = "0-a.iso"
_PRECIOUS = b"precious"


def _forbid(directory: Path) -> None:
    """Make a directory that the racing user may look into and not change, with canaries.

    They have the very names that the worker uses. Root's are writable for everybody, so that not
    even the kernel keeps them from being opened, cut off and written to.
    """
    directory.mkdir()
    for name in (_FINAL, os.path.basename(temporary_path(_FINAL, JOB))):
        (directory / name).write_bytes(_PRECIOUS)
        (directory / name).chmod(0o666 if os.geteuid() == 0 else 0o444)
    directory.chmod(0o755 if os.geteuid() == 0 else 0o555)


def _picture(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything that could be seen of a change, but for times of reading."""
    return {
        path.name: (
            found.st_ino,
            found.st_mode,
            found.st_uid,
            found.st_nlink,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in (directory, *directory.iterdir())
        for found in (path.lstat(),)
    }


def test_ten_thousand_swaps_write_nothing_outside() -> None:
    """LESSONS 6.15: downloads, resets, publications and removals against renameat2 in a loop."""
    with tempfile.TemporaryDirectory(prefix="transferd-race-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "home" / "real").mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(place / "home", NOBODY, NOBODY)
            os.chown(place / "home" / "real", NOBODY, NOBODY)
        _forbid(place / "forbidden")
        (place / "home" / "target").symlink_to(place / "forbidden")
        before = _picture(place / "forbidden")
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.racing", str(place)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(done.stdout)
        assert _picture(place / "forbidden") == before
        (place / "forbidden").chmod(0o755)
    assert outcomes.pop("swaps") >= SWAPS
    # It was a race: both ends of it were seen, and nothing else happened.
    refused = {"local_access_denied", "local_not_regular", "local_lost"}
    expected = {f"{what} {how}" for what in ("publish", "discard") for how in {*refused, "done"}}
    expected |= {f"download {how}" for how in {*refused, "transferred", "connection_lost"}}
    assert outcomes.keys() <= expected
    for what, well in (("download", "transferred"), ("publish", "done"), ("discard", "done")):
        assert outcomes[f"{what} {well}"] > 0
        assert {how for how in outcomes if how.startswith(what) and "local_" in how}, outcomes
