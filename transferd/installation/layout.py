"""What is installed where: one table, for `transferctl admin install` and for packages alike."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path

from transferd.wire.paths import state_directory, system_socket

#: The programs of the environment that are linked into everybody's path, and what they call.
PROGRAMS = {"transferd": "transferd.__main__:main", "transferctl": "transferd.cli.__main__:main"}
#: What is enabled, in the order in which it is started.
UNITS = ("transferd.socket", "transferd.service")
#: The user that sysusers.d makes.
ACCOUNT = "transferd"
#: The queue and its key; made by the service unit, and never removed with the program.
STATE = state_directory({}, system=True)
#: Made by the socket unit, which leaves it when it stops.
RUN = system_socket().parent


class Kind(enum.Enum):
    """Whose a file is, once it is there."""

    #: Replaced with each installation.
    OURS = enum.auto()
    #: The administrator's: written where there is none, removed only as it was written.
    CONFIGURATION = enum.auto()


class Maker(enum.Enum):
    """Where the contents of a file come from."""

    #: A file that comes with the code; paths of programs in it are put right.
    DATA = enum.auto()
    #: The manual page of that name.
    MANUAL = enum.auto()
    #: The completion script for the shell of that name.
    COMPLETION = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file of an installation."""

    path: Path
    maker: Maker
    #: What the maker makes it of.
    source: str
    kind: Kind = Kind.OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are; all paths as they are on the running machine."""

    #: Root of programs, libraries and documentation.
    prefix: Path
    #: The virtual environment, which belongs to nobody else.
    environment: Path
    #: Where zsh looks for functions: not in the same place for packages and for the machine's own.
    zsh: str
    #: Whether a package manager keeps account of what is there.
    packaged: bool = False

    @property
    def manifest(self) -> Path:
        """What was installed, for who removes it."""
        return self.prefix / "lib/transferd/installed.json"

    @property
    def service_unit(self) -> Path:
        """The unit by which one knows that there is such an installation."""
        return self.prefix / "lib/systemd/system/transferd.service"

    def rows(self) -> tuple[Row, ...]:
        """Return every file, but the environment's and links."""
        return tuple(
            Row(
                path=Path("/", path) if path.startswith("etc/") else self.prefix / path,
                maker=maker,
                source=source,
                kind=Kind.CONFIGURATION if path.startswith("etc/") else Kind.OURS,
            )
            for path, maker, source in (
                ("lib/systemd/system/transferd.service", Maker.DATA, "systemd/transferd.service"),
                ("lib/systemd/system/transferd.socket", Maker.DATA, "systemd/transferd.socket"),
                (
                    "lib/systemd/user/transferd.service",
                    Maker.DATA,
                    "systemd/user/transferd.service",
                ),
                ("lib/systemd/user/transferd.socket", Maker.DATA, "systemd/user/transferd.socket"),
                ("lib/sysusers.d/transferd.conf", Maker.DATA, "systemd/transferd.sysusers"),
                ("etc/pam.d/transferd", Maker.DATA, "systemd/transferd.pam"),
                ("etc/transferd/transferd.toml", Maker.DATA, "config/transferd.toml"),
                ("share/man/man1/transferctl.1", Maker.MANUAL, "transferctl.1"),
                ("share/man/man5/transferd.toml.5", Maker.MANUAL, "transferd.toml.5"),
                ("share/man/man8/transferd.8", Maker.MANUAL, "transferd.8"),
                ("share/bash-completion/completions/transferctl", Maker.COMPLETION, "bash"),
                (f"share/zsh/{self.zsh}/_transferctl", Maker.COMPLETION, "zsh"),
                ("share/fish/vendor_completions.d/transferctl.fish", Maker.COMPLETION, "fish"),
            )
        )

    def links(self, environment: Path) -> dict[Path, Path]:
        """Return the links in everybody's path, and the programs of *environment* they lead to."""
        programs = {self.prefix / "bin" / name: environment / "bin" / name for name in PROGRAMS}
        return {path: link_to(target, path) for path, target in programs.items()}


def link_to(target: Path, path: Path) -> Path:
    """Return where a link at *path* leads: relative within a top-level directory, as Debian has it.

    Which of those lies on another file system or is a link itself is the machine's own affair.
    """
    if target.parts[1] == path.parts[1]:
        return Path(os.path.relpath(target, path.parent))
    return target


#: By the machine's administrator.
LOCAL = Layout(prefix=Path("/usr/local"), environment=Path("/opt/transferd"), zsh="site-functions")
#: By a package.
PACKAGE = Layout(
    prefix=Path("/usr"),
    environment=Path("/usr/lib/transferd"),
    zsh="vendor-completions",
    packaged=True,
)
LAYOUTS = {str(layout.prefix): layout for layout in (LOCAL, PACKAGE)}
