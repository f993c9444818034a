"""What is wrong with a destination, before a job is accepted."""

from __future__ import annotations

import os
import socket
from collections.abc import Set
from pathlib import Path

import pytest

from tests.support.isolation import ordinary_user, run_traced
from transferd.worker.directory import open_directory
from transferd.worker.inspection import inspect


def findings(*paths: Path | str, new: Set[int] = frozenset()) -> list[tuple[int, str]]:
    """Inspect; every message names what was tried and what to do."""
    refusals = inspect([str(path) for path in paths], new)
    for refusal in refusals:
        assert refusal.message.startswith("cannot ")
        assert ";" in refusal.message
    return [(refusal.number, refusal.code) for refusal in refusals]


def test_a_free_name_and_a_regular_file_are_right(tmp_path: Path) -> None:
    """Also in a directory that is a link: files are replaced unless somebody says otherwise."""
    (tmp_path / "old").touch()
    (tmp_path / "here").symlink_to(tmp_path)
    names = ["new", "old", "here/new", "here/old", "x" * 255]
    assert findings(*(tmp_path / name for name in names)) == []


def test_a_file_that_is_not_to_be_replaced_is_refused_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    """DESIGN 3, overwrite=false: of one job of the batch; what is no file at all says so first."""
    (tmp_path / "old").touch()
    (tmp_path / "directory").mkdir()
    paths = [tmp_path / name for name in ("old", "new", "old", "directory")]
    assert findings(*paths, new={1, 2, 3}) == [(2, "local_exists"), (3, "local_not_regular")]


def test_nothing_is_touched(tmp_path: Path) -> None:
    """A job that is refused leaves no trace."""
    (tmp_path / "old").write_bytes(b"old")
    before = tmp_path.stat().st_mtime_ns
    findings(tmp_path / "old", tmp_path / "new")
    assert tmp_path.stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["old"]


def test_what_cannot_be_a_destination_is_refused(tmp_path: Path) -> None:
    """DESIGN 5, BITS F01: each with the code that the transfer would fail with."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "twice").touch()
    os.link(tmp_path / "twice", tmp_path / "second")
    deep = tmp_path.joinpath(*["x" * 200] * 25)
    assert findings(
        tmp_path / "none" / "a",
        tmp_path / "file" / "a",
        tmp_path / "directory",
        f"{tmp_path}/directory/",
        f"{tmp_path}/directory/..",
        tmp_path / "twice",
        tmp_path / ("x" * 256),
        tmp_path / ("x" * 256) / "a",
        deep / "a",
    ) == [
        (0, "local_directory_missing"),
        (1, "local_directory_missing"),
        (2, "local_not_regular"),
        (3, "local_not_regular"),
        (4, "local_not_regular"),
        (5, "local_hard_link"),
        (6, "path_too_long"),
        (7, "path_too_long"),
        (8, "path_too_long"),
    ]


def test_a_link_is_no_destination_wherever_it_leads(tmp_path: Path) -> None:
    """Nothing but regular files is replaced, and nobody looks through a link to tell."""
    (tmp_path / "old").touch()
    targets = ["old", "nothing", ".", "link 0", "/dev/null", "/proc/self/fd/0"]
    links = [tmp_path / f"link {number}" for number in range(len(targets))]
    for link, target in zip(links, targets, strict=True):
        link.symlink_to(target)
    assert findings(*links) == [(number, "local_not_regular") for number in range(len(links))]


def test_a_fifo_is_not_waited_for_and_a_device_not_opened(tmp_path: Path) -> None:
    """A FIFO would keep the worker waiting; opening a device can rewind a tape."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        code = """
import sys
from transferd.worker.inspection import inspect
for refusal in inspect(sys.argv[1:]):
    print(refusal.code, refusal.message.split(": ", 1)[1].split(" is there")[0], sep=": ")
"""
        paths = [str(tmp_path / "fifo"), str(tmp_path / "socket")]
        run = run_traced(code, paths, calls="openat,openat2,open")
    assert run.printed.splitlines() == [
        "local_not_regular: a FIFO",
        "local_not_regular: a socket",
    ]
    assert not [call for call in run.calls if "/fifo" in call or "/socket" in call]
    assert [call for call in run.calls if call.startswith("openat2")], "the directory is opened"


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/fd/0",
        "/proc/self/fd/new",
        "/proc/self/cwd/new",
        "/proc/self/root/tmp/new",
        "/proc/1/root/tmp/new",
        "/proc/new",
        "/dev/fd/0",
        "/sys/kernel/new",
        "/dev/pts/0",
    ],
)
def test_a_place_that_is_not_for_files_is_refused(path: str) -> None:
    """Descriptors of the worker are reachable there; nothing of ours is written to."""
    assert findings(path) == [(0, "local_forbidden")]
    with ordinary_user():
        assert findings(path) == [(0, "local_forbidden")]


def test_the_owners_permissions_decide() -> None:
    """DESIGN 1.7: transferd opens no path that the owner could not open."""
    with ordinary_user() as home:
        (home / "inner").mkdir()
        home.chmod(0o555)
        assert findings(home / "a", home / "inner" / "a") == [(0, "local_access_denied")]
        home.chmod(0o600)
        assert findings(home / "a", home / "inner" / "a") == [
            (0, "local_access_denied"),
            (1, "local_access_denied"),
        ]
        home.chmod(0o333)
        assert findings(home / "a") == []
        home.chmod(0o755)


def test_a_directory_is_asked_once_for_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of 100,000 files in one directory costs one look at it."""
    asked: list[str] = []
    real = open_directory

    def count(path: str) -> int:
        asked.append(path)
        return real(path)

    monkeypatch.setattr("transferd.worker.inspection.open_directory", count)
    assert findings(*(tmp_path / str(number) for number in range(100))) == []
    assert asked == [str(tmp_path)]
