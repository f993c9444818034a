"""The grammar of the daemon's command line, apart from the daemon: manual pages need no more."""

from __future__ import annotations

import argparse
from pathlib import Path

from transferd import __version__


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `transferd`."""
    parser = argparse.ArgumentParser(
        prog="transferd",
        description="Background transfer service: a durable queue of downloads.",
        epilog="Drive it with transferctl, with the Python client, or over its socket.",
    )
    parser.add_argument("--system", action="store_true", help="use the system's socket and state")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="listen there")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="keep queue and key there")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the settings")
    parser.add_argument(
        "--on-demand",
        action="store_true",
        help="leave once the queue has been empty for a while (as transferctl starts it)",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="read the configuration, say what is wrong with it (status 2) or doubtful, and leave",
    )
    parser.add_argument("--version", action="version", version=f"transferd {__version__}")
    return parser
