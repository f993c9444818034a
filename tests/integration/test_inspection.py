"""What is wrong with a destination, before a job is accepted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.isolation import ordinary_user
from transferd.worker.inspection import inspect


def findings(*paths: Path | str) -> list[tuple[int, str]]:
    """Inspect; every message names what was tried and what to do."""
    refusals = inspect([str(path) for path in paths])
    for refusal in refusals:
        assert refusal.message.startswith("cannot ")
        assert ";" in refusal.message
    return [(refusal.number, refusal.code) for refusal in refusals]


def test_a_free_name_and_a_regular_file_are_right(tmp_path: Path) -> None:
    """Also through links; whether a file may be replaced is decided later."""
    (tmp_path / "old").touch()
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "here").symlink_to(tmp_path)
    names = ["new", "old", "link", "dangling", "here/new", "x" * 255]
    assert findings(*(tmp_path / name for name in names)) == []


def test_nothing_is_touched(tmp_path: Path) -> None:
    """A job that is refused leaves no trace."""
    (tmp_path / "old").write_bytes(b"old")
    before = tmp_path.stat().st_mtime_ns
    findings(tmp_path / "old", tmp_path / "new")
    assert tmp_path.stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["old"]


def test_what_cannot_be_a_destination_is_refused(tmp_path: Path) -> None:
    """DESIGN 5, BITS F01: each with its own code, by its position."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    deep = tmp_path.joinpath(*["x" * 200] * 25)
    assert findings(
        tmp_path / "none" / "a",
        tmp_path / "file" / "a",
        tmp_path / "directory",
        tmp_path / "link",
        f"{tmp_path}/directory/",
        tmp_path / "fifo",
        tmp_path / "null",
        tmp_path / ("x" * 256),
        tmp_path / ("x" * 256) / "a",
        deep / "a",
    ) == [
        (0, "directory_missing"),
        (1, "directory_missing"),
        (2, "destination_is_directory"),
        (3, "destination_is_directory"),
        (4, "destination_is_directory"),
        (5, "destination_not_regular"),
        (6, "destination_not_regular"),
        (7, "path_too_long"),
        (8, "path_too_long"),
        (9, "path_too_long"),
    ]


def test_the_owners_permissions_decide() -> None:
    """DESIGN 1.7: transferd opens no path that the owner could not open."""
    with ordinary_user() as home:
        (home / "inner").mkdir()
        home.chmod(0o555)
        assert findings(home / "a", home / "inner" / "a") == [(0, "directory_not_writable")]
        home.chmod(0o600)
        assert findings(home / "a", home / "inner" / "a") == [
            (0, "directory_not_writable"),
            (1, "directory_not_writable"),
        ]
        home.chmod(0o333)
        assert findings(home / "a") == []
        home.chmod(0o755)


def test_a_directory_is_asked_once_for_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of 100,000 files in one directory costs one look at it."""
    asked: list[str] = []
    real = os.access

    def count(path: str, mode: int, *, effective_ids: bool) -> bool:
        asked.append(path)
        return real(path, mode, effective_ids=effective_ids)

    monkeypatch.setattr(os, "access", count)
    assert findings(*(tmp_path / str(number) for number in range(100))) == []
    assert asked == [str(tmp_path)]
