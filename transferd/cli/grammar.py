"""What the grammar of the command line is made of: parsers, and what commands have in common."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, TypeAlias

from transferd.cli.options import everybody_option

_JOB_HELP = "id of the job, the beginning of it (4 characters or more), or its name"


Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class CommandParser(argparse.ArgumentParser):
    """Takes options between the positional arguments too: `get URL --user alice DEST`."""

    mixed = True

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse with mixed positionals where the grammar allows it."""
        if not self.mixed:
            return super().parse_known_args(args, namespace)
        self.mixed = False  # parse_known_intermixed_args comes back here, once per pass
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixed = True


def command(
    commands: Commands, name: str, words: str, run: str, help: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command: its *words* stand behind it, and *run* is `module:function`."""
    parser = commands.add_parser(
        name,
        usage=f"%(prog)s [OPTION]… {words}".rstrip(),
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"examples:\n{textwrap.indent(textwrap.dedent(examples), '  ')}"
        if examples
        else None,
        formatter_class=Formatter,
        # `--password secret` must not be taken for --password-file.
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    common = parser.add_argument_group("general options")
    # Not to undo one that stands before the command.
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    common.add_argument("--socket", metavar="PATH", help="where the daemon answers")
    common.add_argument(
        "--no-start", action="store_true", help="do not start a daemon if none answers"
    )
    return parser


def job_argument(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add the job that a command is about."""
    parser.add_argument("job", metavar="JOB", nargs=nargs, help=_JOB_HELP)
    everybody_option(parser)
