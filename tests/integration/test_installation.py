"""`admin install` and `admin uninstall`, on a machine that lies in a directory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.scratch_machine import AnyPython, make_scratch_machine, seen
from tests.support.servers import require_program, require_root
from transferd.cli.documents import make_documents
from transferd.installation import data
from transferd.installation.environment import Source
from transferd.installation.installer import Installer
from transferd.installation.layout import LAYOUTS, LOCAL, PACKAGE, STATE, Layout
from transferd.installation.machine import Machine
from transferd.model.errors import InstallationError

pytestmark = pytest.mark.timeout(300)


class Unproved(AnyPython):
    """Code that is not copied: for what is about files alone."""

    def copy(self, destination: Path, final: Path, *, compiled: bool) -> None:
        """Make an environment in name only."""
        (destination / "bin").mkdir(parents=True)
        for name in ("transferd", "transferctl"):
            (destination / "bin" / name).write_text(f"#!{final}/bin/python -I\n")


@dataclass
class Scratch:
    """A machine to install on, and what was said."""

    root: Path
    source: Source
    said: list[str] = field(default_factory=list)

    def installer(self, layout: Layout = LOCAL) -> Installer:
        """Look at the machine."""
        return Installer(layout, Machine(self.root), self.source, self.said.append)

    def install(self, layout: Layout = LOCAL, *, enable: bool = False) -> list[str]:
        """Install; return the steps."""
        self.said.clear()
        self.installer(layout).install(make_documents(), enable=enable)
        return list(self.said)

    def uninstall(self) -> list[str]:
        """Uninstall; return the steps."""
        self.said.clear()
        self.installer().uninstall()
        return list(self.said)

    def at(self, path: str | Path) -> Path:
        """Where a path of the machine is."""
        return self.root / Path(path).relative_to("/")


@contextmanager
def usual_umask() -> Iterator[None]:
    """Put the umask back that an installation sets."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    """A machine on which nothing is installed yet."""
    require_root("an installation for all users")
    require_program("systemctl")
    require_program("systemd-sysusers")
    with usual_umask():
        yield Scratch(make_scratch_machine(tmp_path / "root"), AnyPython())


@pytest.fixture
def files_only(scratch: Scratch) -> Scratch:
    """A machine to which no code is copied, which takes seconds."""
    scratch.source = Unproved()
    return scratch


def assert_root_alone_writes(name: str, what: str) -> None:
    """It belongs to root, everybody may read it, and nobody else write."""
    mode, owner, *_ = what.split(" ")
    assert owner == "0:0", name
    assert mode.startswith("l") or (mode[7] == "r" and mode[5] == mode[8] == "-"), (name, what)
    assert not mode.startswith("d") or mode[9] == "x", name


def test_what_was_installed_runs_and_goes_without_a_trace(scratch: Scratch) -> None:
    """Rule: every row is there, the copy runs by itself, and `uninstall` leaves what was before.

    A strict umask of root's keeps nobody from reading what is there.
    """
    before = seen(scratch.root)
    os.umask(0o077)
    scratch.install(enable=True)
    for row in LOCAL.rows():
        assert scratch.at(row.path).stat().st_mode & 0o7777 == 0o644
    for path, target in LOCAL.links(LOCAL.environment).items():
        assert scratch.at(path).readlink() == target
    wants = scratch.at("/etc/systemd/system")
    assert (wants / "sockets.target.wants/transferd.socket").is_symlink()
    assert (wants / "multi-user.target.wants/transferd.service").is_symlink()
    assert "transferd:" in scratch.at("/etc/passwd").read_text()

    for name, what in seen(scratch.at(LOCAL.environment)).items():
        assert_root_alone_writes(name, what)
    python = scratch.at(LOCAL.environment) / "bin/python"
    for module in ("transferd", "transferd.cli"):
        run = subprocess.run(
            [python, "-I", "-m", module, "--version"], capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr

    # It was made for /opt/transferd: where it lies now, its programs would not start.
    question = "from transferd.installation.environment import Source as S; "
    question += "print(S().unsuitable(S().environment))"
    asked = subprocess.run([python, "-I", "-c", question], capture_output=True, text=True)
    assert asked.stdout.endswith("/bin/transferd is not a program of it\n")

    scratch.uninstall()
    after = seen(scratch.root)
    # systemctl makes these directories, and leaves them.
    assert {name for name in after if name not in before} <= {
        "etc/systemd",
        "etc/systemd/system",
        "etc/systemd/system/sockets.target.wants",
        "etc/systemd/system/multi-user.target.wants",
    }
    assert {name: what for name, what in after.items() if name in before} == before
    assert "transferd:" not in scratch.at("/etc/passwd").read_text()


def test_installing_twice_changes_nothing(files_only: Scratch) -> None:
    """Rule: `install` may be repeated; the copy is made anew, and nothing else is written."""
    files_only.install()
    first = seen(files_only.root)
    steps = files_only.install()
    assert seen(files_only.root) == first
    assert not [step for step in steps if step.startswith(("wrote", "linked", "removed"))]


def test_what_another_version_had_goes(files_only: Scratch) -> None:
    """Rule: an upgrade leaves no file behind that the new version does not know."""
    files_only.install()
    manifest = files_only.at(LOCAL.manifest)
    known = json.loads(manifest.read_text())
    known["files"]["/usr/local/share/old"] = ""
    manifest.write_text(json.dumps(known))
    files_only.at("/usr/local/share/old").write_text("of before")
    assert "removed /usr/local/share/old" in files_only.install()
    assert not files_only.at("/usr/local/share/old").exists()
    assert "old" not in manifest.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "/usr/local/lib/systemd/system/transferd.service",
        "/usr/local/bin/transferctl",
        "/opt/transferd",
    ],
)
def test_what_is_somebody_elses_is_not_replaced(files_only: Scratch, path: str) -> None:
    """Rule: where a file of another origin is in the way, nothing at all is changed."""
    place = files_only.at(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    before = seen(files_only.root)
    with pytest.raises(InstallationError, match=f"{path} is there"):
        files_only.install()
    assert seen(files_only.root) == before


def test_configuration_is_the_administrators(files_only: Scratch) -> None:
    """Rule: what was changed is neither overwritten nor removed; what was not, is both."""
    files_only.install()
    toml, pam = (
        files_only.at("/etc/transferd/transferd.toml"),
        files_only.at("/etc/pam.d/transferd"),
    )
    toml.write_text('[api]\nadmin_group = "wheel"\n')
    assert "left /etc/transferd/transferd.toml as it is" in files_only.install()
    steps = files_only.uninstall()
    assert toml.read_text() == '[api]\nadmin_group = "wheel"\n'
    assert not pam.exists()
    assert any("rm /etc/transferd/transferd.toml" in step for step in steps)


def test_unchanged_configuration_follows_its_default(
    files_only: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a commented default of an older version does not stay for ever."""
    files_only.install()
    shipped = data.read
    monkeypatch.setattr(data, "read", lambda name: shipped(name) + "# newer\n")
    assert "wrote /etc/transferd/transferd.toml" in files_only.install()


def test_the_queue_stays_and_its_user_too(files_only: Scratch) -> None:
    """Rule: `uninstall` removes no state, says where it is, and does not free its user's number."""
    files_only.install()
    state = files_only.at(STATE)
    state.mkdir(parents=True)
    (state / "queue.db").write_text("jobs")
    steps = files_only.uninstall()
    assert (state / "queue.db").read_text() == "jobs"
    assert "transferd:" in files_only.at("/etc/passwd").read_text()
    assert any(f"rm -r {STATE}; userdel transferd" in step for step in steps)


def test_uninstall_touches_nothing_that_it_has_not_installed(files_only: Scratch) -> None:
    """Rule: without a record of an installation, nothing is removed."""
    unit = files_only.at(LOCAL.service_unit)
    unit.parent.mkdir(parents=True)
    unit.write_text("mine")
    before = seen(files_only.root)
    (step,) = files_only.uninstall()
    assert "nothing is removed" in step
    assert seen(files_only.root) == before


def test_a_package_is_not_installed_over(files_only: Scratch) -> None:
    """Rule: two services of one name would be in each other's way."""
    unit = files_only.at(PACKAGE.service_unit)
    unit.parent.mkdir(parents=True)
    unit.write_text("")
    with pytest.raises(InstallationError, match="apt-get remove transferd"):
        files_only.install()


def test_a_machine_without_the_interpreter_is_refused(files_only: Scratch) -> None:
    """Rule: what could not start there is not installed there."""
    python = AnyPython().python
    files_only.at(python).unlink()
    with pytest.raises(InstallationError, match=f"no {python}"):
        files_only.install()


def test_a_failed_copy_leaves_everything_as_it_was(scratch: Scratch) -> None:
    """Rule: the copy is tried before it replaces anything."""

    class Failing(AnyPython):
        def copy(self, destination: Path, final: Path, *, compiled: bool) -> None:
            destination.mkdir()
            raise OSError("disk full")

    scratch.source = Failing()
    before = seen(scratch.root)
    with pytest.raises(OSError, match="disk full"):
        scratch.install()
    assert seen(scratch.root) == before


def test_a_package_is_laid_out_and_nothing_else_is_done(files_only: Scratch) -> None:
    """Rule: users, units and records are the package manager's, for a package."""
    before = files_only.at("/etc/passwd").read_text()
    files_only.install(PACKAGE)
    assert files_only.at("/etc/passwd").read_text() == before
    assert not files_only.at(PACKAGE.manifest).exists()
    assert files_only.at("/usr/bin/transferd").readlink() == Path("../lib/transferd/bin/transferd")
    assert all(files_only.at(row.path).is_file() for row in LAYOUTS["/usr"].rows())
