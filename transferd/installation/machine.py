"""The programs of a machine that make its users and look after its units."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from transferd.installation.layout import ACCOUNT
from transferd.model.errors import InstallationError

#: Exists where systemd is the first process (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """This machine, or one that lies in a directory and will run some day."""

    def __init__(self, root: Path | None) -> None:
        """Take the running machine (None), or the one below *root*; `/` is this one at rest."""
        self._given = root
        self._option = () if root is None else (f"--root={root}",)

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self._given or Path("/")

    @property
    def here(self) -> bool:
        """Whether what runs here is that machine's."""
        return self.root == Path("/")

    @property
    def booted(self) -> bool:
        """Whether systemd runs it."""
        return self._given is None and _BOOTED.is_dir()

    def make_account(self, rules: Path) -> None:
        """Make the users and groups that a file of sysusers.d(5), where it is here, names."""
        self._do("systemd-sysusers", *self._option, str(rules))

    def remove_account(self) -> None:
        """Remove the user, and its group."""
        prefix = () if self.here else ("--prefix", str(self.root))
        self._do("userdel", *prefix, ACCOUNT)

    def reload(self) -> None:
        """Have the service manager read what was written."""
        if self.booted:
            self._do("systemctl", "daemon-reload")

    def restart(self, unit: str) -> bool:
        """Restart a unit if it runs; whether it did."""
        if not self.booted or self._ask("systemctl", "is-active", "--quiet", unit) != 0:
            return False
        self._do("systemctl", "restart", unit)
        return True

    def enabled(self, unit: str) -> bool:
        """Whether a unit starts with the machine."""
        return self._ask("systemctl", *self._option, "is-enabled", "--quiet", unit) == 0

    def enable(self, unit: str) -> None:
        """Start a unit with the machine, and now if that runs."""
        self._do("systemctl", *self._option, "enable", "--quiet", *self._now(), unit)

    def disable(self, units: Sequence[str]) -> None:
        """Stop units, and start them with the machine no more."""
        self._do("systemctl", *self._option, "disable", "--quiet", *self._now(), *units)

    def forget(self, units: Sequence[str]) -> None:
        """Have the service manager forget units whose files are gone."""
        if self.booted:
            self._do("systemctl", "daemon-reload")
            self._ask("systemctl", "reset-failed", *units)

    def _now(self) -> Sequence[str]:
        return ("--now",) if self.booted else ()

    def _do(self, program: str, *arguments: str) -> None:
        run = _run(program, arguments)
        if run.returncode:
            command, said = " ".join((program, *arguments)), (run.stderr or run.stdout).strip()
            raise InstallationError(f"`{command}` failed with status {run.returncode}: {said}")

    def _ask(self, program: str, *arguments: str) -> int:
        return _run(program, arguments).returncode


def _run(program: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program, path=_PROGRAMS)
    if found is None:
        raise InstallationError(f"cannot run {program}: this machine has none")
    return subprocess.run(  # noqa: S603 - a program of the machine, with our own arguments
        [found, *arguments], capture_output=True, text=True, check=False
    )
