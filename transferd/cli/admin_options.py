"""Options of the commands that look after the service itself."""

from __future__ import annotations

import argparse


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `admin install`."""
    uninstall_options(parser)
    parser.add_argument(
        "--enable",
        action="store_true",
        help="start the service too, now and with the machine",
    )
    parser.add_argument(
        "--prefix",
        choices=("/usr/local", "/usr"),
        default="/usr/local",
        help="/usr with --root lays files out as a package has them, and does nothing else",
    )


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `admin uninstall` has, too."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="root of a machine that does not run; / for this one, where systemd does not run",
    )
