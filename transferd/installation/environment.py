"""The virtual environment that the service runs from: the running one, or a copy that root owns.

A copy is made of files that are here already, without a network, and of what transferd needs alone.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import transferd
from transferd.installation import data
from transferd.installation.closure import needed
from transferd.installation.layout import PROGRAMS
from transferd.installation.trust import obstacle, obstacle_below
from transferd.model.errors import InstallationError

#: What installers write about how a distribution came to where it is no longer.
_NOT_COPIED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
#: Tried with the new environment before it takes the place of the old one.
_PROOF = "import transferd.__main__, transferd.worker.main, transferd.cli.installing"
_PROGRAM = """\
#!{python} -I
import sys

from {module} import {function}

sys.exit({function}())
"""


class Source:
    """The code that runs, and the interpreter that runs it."""

    @property
    def environment(self) -> Path | None:
        """The virtual environment; None if there is none."""
        return Path(sys.prefix) if sys.prefix != sys.base_prefix else None

    @property
    def python(self) -> Path:
        """The interpreter that an environment is made with."""
        return Path(sys.base_prefix, "bin", _VERSION).resolve()

    def unsuitable(self, environment: Path) -> str | None:
        """Return why the service should not run from *environment*, the one that runs; or None."""
        code = Path(transferd.__file__)
        if not code.is_relative_to(environment):
            return f"its code is in {code.parent}"
        for name in PROGRAMS:
            if not _starts_in(environment / "bin" / name, environment):
                return f"{environment / 'bin' / name} is not a program of it"
        return obstacle(environment) or obstacle_below(environment)

    def check_python(self) -> None:
        """Make sure that every user of this machine can run the interpreter.

        Raises:
            InstallationError: it is not for everybody.
        """
        for place in (self.python, Path(sysconfig.get_path("stdlib"))):
            if (found := obstacle(place)) is not None:
                raise InstallationError(
                    f"cannot install with {self.python}: {found}, but each user's transfers run as"
                    " that user; make the virtual environment with the system's Python,"
                    " /usr/bin/python3"
                )

    def copy(self, destination: Path, final: Path, *, compiled: bool) -> None:
        """Make *destination*, which must not exist, an environment that will be used as *final*.

        Args:
            compiled: compile everything now; a package is compiled where it is installed.

        Raises:
            InstallationError: what transferd needs is not there, or does not work in the copy.
            OSError: files cannot be written.
        """
        packages = destination / "lib" / _VERSION / "site-packages"
        packages.mkdir(parents=True)
        (destination / "bin").mkdir()
        (destination / "bin/python").symlink_to(self.python)
        (destination / "bin/python3").symlink_to("python")
        (destination / "pyvenv.cfg").write_text(
            f"home = {self.python.parent}\ninclude-system-site-packages = false\n"
            f"version = {sys.version.split()[0]}\n"
        )
        _copy_code(packages)
        _copy_needed(packages)
        if compiled:
            _compile(packages, final / packages.relative_to(destination))
        for name, entry in PROGRAMS.items():
            module, _, function = entry.partition(":")
            program = destination / "bin" / name
            program.write_text(
                _PROGRAM.format(python=final / "bin/python", module=module, function=function)
            )
            program.chmod(0o755)
        _prove(destination)


def _starts_in(program: Path, environment: Path) -> bool:
    """Whether a program is run by the environment's interpreter: one that was moved is not."""
    try:
        with program.open("rb") as file:
            return file.readline().startswith(b"#!" + os.fsencode(environment / "bin") + b"/")
    except OSError:
        return False


def _copy_code(packages: Path) -> None:
    """Copy transferd itself: from wherever it runs, which may be a checkout."""
    package = packages / "transferd"
    shutil.copytree(
        Path(transferd.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__pycache__"),
        copy_function=_copy_file,
    )
    for name in data.NAMES:
        place = package / "installation" / data.FOLDER / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(data.read(name), encoding="utf-8")


def _copy_needed(packages: Path) -> None:
    try:
        distributions = needed()
    except PackageNotFoundError as error:
        raise InstallationError(
            "cannot install from code that is not installed itself: make a virtual environment"
            " and `pip install` transferd into it"
        ) from error
    for name, distribution in distributions.items():
        if distribution.files is None:
            raise InstallationError(
                f"cannot copy {name}: nothing tells which files it has; install transferd and"
                " what it needs into a virtual environment by pip"
            )
        for file in distribution.files:
            if ".." in file.parts or "__pycache__" in file.parts or file.suffix == ".pth":
                continue  # programs, caches, and the way to a checkout
            if file.name in _NOT_COPIED or (name == "transferd" and file.parts[0] == "transferd"):
                continue
            place = packages / file
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(str(distribution.locate_file(file)), str(place))


def _copy_file(source: str, destination: str) -> None:
    """Copy bytes; owner and mode are the installation's own, and no module is run as a program."""
    shutil.copyfile(source, destination)
    Path(destination).chmod(0o644)


def _compile(packages: Path, final: Path) -> None:
    """Compile everything, so that no user's process has to; by contents, since mtimes change."""
    compileall.compile_dir(
        packages,
        quiet=2,  # what does not compile is left to whoever imports it
        stripdir=str(packages),
        prependdir=str(final),
        invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
    )


def _prove(environment: Path) -> None:
    python = environment / "bin/python"
    run = subprocess.run(  # noqa: S603 - the interpreter that runs this
        [python, "-I", "-B", "-c", _PROOF], capture_output=True, text=True, check=False
    )
    if run.returncode:
        said = run.stderr.strip().splitlines() or [f"status {run.returncode}"]
        raise InstallationError(f"cannot use the copy of this environment: {said[-1]}")
