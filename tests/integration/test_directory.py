"""The walk to a directory: which links it passes through, and where it never ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.isolation import ordinary_user, run_traced
from transferd.worker import directory
from transferd.worker.directory import ForbiddenDirectory, open_directory

#: The kernel's own walk, and ours where a kernel or a filter has none.
WALKS = ["openat2", "steps"]
Refuse = Callable[[str, int], int]


@pytest.fixture(params=WALKS)
def walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a directory."""
    name: str = request.param
    if name == "steps":
        monkeypatch.setattr(directory, "_openat2", _refusing(errno.ENOSYS))
    return name


def _refusing(number: int) -> Refuse:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def _opened(path: Path | str) -> str:
    """Open a directory; return which one it is."""
    descriptor = open_directory(str(path))
    try:
        assert not os.get_inheritable(descriptor)
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("walk")
def test_links_above_the_last_name_are_their_owners_business(tmp_path: Path) -> None:
    """A home that is a link, one that leads up and down again, and one to an absolute path."""
    real = tmp_path / "real" / "inner"
    real.mkdir(parents=True)
    (tmp_path / "home").symlink_to("real")
    (tmp_path / "round").symlink_to("../" + tmp_path.name + "/./home//")
    (tmp_path / "absolute").symlink_to(tmp_path / "round")
    for name in ("real", "home", "round", "absolute", "absolute/inner/..", "./home/."):
        assert _opened(f"{tmp_path}/{name}/inner") == str(real)
    assert _opened("/") == "/"


@pytest.mark.usefixtures("walk")
def test_a_walk_without_an_end_is_refused(tmp_path: Path) -> None:
    """As the kernel does: a loop, and more links than it follows."""
    (tmp_path / "loop").symlink_to("loop")
    for number in range(50):
        (tmp_path / f"link {number}").symlink_to(f"link {number + 1}")
    (tmp_path / "link 50").symlink_to(".")
    for name in ("loop", "link 0"):
        with pytest.raises(OSError, match="symbolic links") as refused:
            open_directory(str(tmp_path / name))
        assert refused.value.errno == errno.ELOOP
    assert _opened(tmp_path / "link 20") == str(tmp_path)


@pytest.mark.usefixtures("walk")
def test_magic_links_are_never_passed_through(tmp_path: Path) -> None:
    """They lead past every name, and as /proc/self into the worker itself."""
    (tmp_path / "innocent").symlink_to("/proc/self/cwd")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for path in (
            "/proc/self/cwd",
            f"/proc/self/fd/{descriptor}",
            f"/dev/fd/{descriptor}",
            f"/proc/{os.getpid()}/root{tmp_path}",
            f"/proc/thread-self/root{tmp_path}",
            tmp_path / "innocent",
        ):
            with pytest.raises(ForbiddenDirectory, match="link of /proc"):
                open_directory(str(path))
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("walk")
def test_a_file_system_that_holds_no_files_is_refused() -> None:
    """Whatever its path is called; a bind mount of /proc would be no better."""
    for path, kind in (("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts")):
        with pytest.raises(ForbiddenDirectory, match=f"a {kind} file system"):
            open_directory(path)


def test_devices_are_known_by_their_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """devtmpfs says that it is a tmpfs, on which files are welcome."""
    device = os.stat("/dev/shm").st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    line = "36 35 {} / /dev/shm rw,nosuid shared:1 - {} none rw\n"
    monkeypatch.setattr(directory, "_MOUNTS", str(mounts))
    # What a device is, is asked once.
    asked = directory.is_devtmpfs
    monkeypatch.setattr(directory, "is_devtmpfs", lambda device: asked.__wrapped__(device))
    assert _opened("/dev/shm") == "/dev/shm", "where nobody tells, files are welcome"
    mounts.write_text(line.format("0:9999", "devtmpfs") + line.format(number, "tmpfs"))
    assert _opened("/dev/shm") == "/dev/shm"
    mounts.write_text(line.format(number, "devtmpfs"))
    with pytest.raises(ForbiddenDirectory, match="devtmpfs"):
        open_directory("/dev/shm")


@pytest.mark.usefixtures("walk")
def test_the_kernel_says_no_for_the_owner() -> None:
    """What may be used but not listed is opened; what may not be passed through is not."""
    with ordinary_user() as home:
        inner = home / "inner"
        inner.mkdir()
        inner.chmod(0o333)
        os.close(open_directory(str(inner)))
        home.chmod(0o600)
        with pytest.raises(PermissionError):
            open_directory(str(inner))
        home.chmod(0o755)


@pytest.mark.usefixtures("walk")
def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Neither by a walk that ends well nor by one that does not."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to("loop")
    before = os.listdir("/proc/self/fd")
    _opened(tmp_path / "link" / "b")
    for path in (tmp_path / "link" / "none", tmp_path / "loop", "/proc/self/cwd", "/sys"):
        with pytest.raises(OSError, match=r"."):
            open_directory(str(path))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_kernel_or_a_filter_without_openat2_is_no_hindrance(tmp_path: Path, error: str) -> None:
    """Linux before 5.6, and containers whose filter of system calls is older than that."""
    code = """
import os, sys
from transferd.worker.directory import ForbiddenDirectory, open_directory
os.close(open_directory(sys.argv[1]))
try:
    open_directory("/proc/self/cwd")
except ForbiddenDirectory as forbidden:
    print(forbidden.strerror)
"""
    run = run_traced(code, [str(tmp_path)], calls="openat2", inject=f"openat2:error={error}")
    assert run.printed == "it leads through a link of /proc\n"
    assert len(run.calls) == 2
