"""Who may install, and from where a service may run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.people import Machine, people
from tests.support.servers import require_root
from transferd.installation.trust import obstacle, obstacle_below


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that only root can write to, and so all above it."""
    require_root("making what belongs to root")
    with tempfile.TemporaryDirectory(dir="/opt") as made:
        directory = Path(made)
        directory.chmod(0o755)
        inner = directory / "bin"
        inner.mkdir(mode=0o755)
        program = inner / "program"
        program.touch()
        program.chmod(0o755)
        yield directory


def test_what_is_roots_and_for_all_to_read_is_trusted(place: Path) -> None:
    """Rule: from the root directory down."""
    assert obstacle(place / "bin/program") is None
    assert obstacle_below(place) is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: os.chown(path, 65534, 0), "belongs to uid 65534, not to root"),
        (lambda path: path.chmod(0o775), "can be written by others than root"),
        (lambda path: path.chmod(0o757), "can be written by others than root"),
        (lambda path: path.chmod(0o751), "cannot be read by everybody"),
        (lambda path: path.chmod(0o754), "cannot be entered by everybody"),
    ],
    ids=["owner", "group", "others", "unreadable", "closed"],
)
def test_every_directory_above_counts(
    place: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """Rule: who can write to a directory on the way can put another program there."""
    spoil(place / "bin")
    assert obstacle(place / "bin/program") == f"{place / 'bin'} {reason}"
    assert obstacle_below(place) == f"{place / 'bin'} {reason}"


def test_what_a_link_leads_to_counts_too(place: Path) -> None:
    """Rule: both the way to the link and the way that it stands for."""
    elsewhere = place / "elsewhere"
    elsewhere.symlink_to("/tmp")
    assert obstacle(elsewhere) == "/tmp can be written by others than root"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine whose /run is empty: systemd does not run it."""
    with people() as there:
        yield there


def admin(machine: Machine, person: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `transferctl admin` as somebody."""
    command = (sys.executable, "-I", "-m", "transferd.cli", "admin", *words)
    return machine.run(getattr(machine, person), *command)


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_only_root_installs(machine: Machine, verb: str) -> None:
    """Rule: the refusal says what to do; status 4, as whatever is not allowed."""
    run = admin(machine, "alice", verb)
    assert run.returncode == 4
    assert "run it with sudo" in run.stderr


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_machine_without_systemd_is_named(machine: Machine, verb: str) -> None:
    """Rule: a service that nobody starts is not installed; an image that is built has --root."""
    run = admin(machine, "root", verb)
    assert run.returncode == 1
    assert "--root /" in run.stderr


def test_a_packages_layout_is_for_packages(machine: Machine) -> None:
    """Rule: what dpkg has in /usr is dpkg's."""
    run = admin(machine, "root", "install", "--prefix", "/usr")
    assert run.returncode == 2
    assert "--root" in run.stderr
