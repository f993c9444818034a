"""`admin install` and `admin uninstall`: the service of the machine, from this very code."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from transferd.cli.documents import make_documents
from transferd.cli.outcomes import CommandError, Exit, usage
from transferd.cli.output import Output
from transferd.installation.environment import Source
from transferd.installation.installer import Installer
from transferd.installation.layout import LAYOUTS, LOCAL, Layout
from transferd.installation.machine import Machine
from transferd.model.errors import InstallationError


async def install(options: Namespace, output: Output) -> int:
    """Put the service in place, and say each step."""
    layout = LAYOUTS[options.prefix]
    if layout.packaged and options.root is None:
        raise usage("--prefix /usr is for packages, which are laid out below a --root")
    return _perform("install", layout, options, output)


async def uninstall(options: Namespace, output: Output) -> int:
    """Remove the service, and say each step."""
    return _perform("uninstall", LOCAL, options, output)


def _perform(verb: str, layout: Layout, options: Namespace, output: Output) -> int:
    machine = Machine(None if options.root is None else _directory(options.root))
    _check(verb, layout, options.root is None and not machine.booted)
    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        if not output.json:
            output.line(step)

    try:
        installer = Installer(layout, machine, Source(), say)
        if verb == "install":
            installer.install(make_documents(), enable=options.enable)
        else:
            installer.uninstall()
    except OSError as error:
        raise InstallationError(f"cannot {verb}: {error}") from error
    if output.json:
        output.document({"steps": steps})
    return Exit.DONE


def _directory(named: str) -> Path:
    root = Path(named).resolve()
    if not root.is_dir():
        raise usage(f"--root {root} is no directory")
    return root


def _check(verb: str, layout: Layout, asleep: bool) -> None:
    """Refuse what this user cannot do, or a machine that no systemd runs."""
    if os.geteuid() != 0 and not layout.packaged:
        raise CommandError(
            Exit.REFUSED,
            f"cannot {verb}: the service of a machine is root's to {verb}; run it with sudo",
            code="not_root",
        )
    if asleep:
        raise CommandError(
            Exit.FAILED,
            f"cannot {verb}: systemd does not run this machine; where it will one day (an image"
            " that is being built), say --root /",
            code="no_systemd",
        )
