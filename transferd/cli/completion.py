"""Completion scripts for shells, made from the grammar itself."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

import shtab

from transferd.cli.arguments import make_parser
from transferd.cli.outcomes import Exit
from transferd.cli.output import Output

# Completing must neither start a daemon nor say that there is none.
_IDS = "transferctl list --ids --no-start 2>/dev/null"
_JOBS = {
    "bash": "_transferctl_jobs",
    "zsh": "_transferctl_jobs",
    "fish": f"({_IDS})",
    "tcsh": f"`{_IDS.partition(' 2>')[0]}`",
}
_PREAMBLE = {
    "bash": f'_transferctl_jobs() {{ compgen -W "$({_IDS})" -- "$1"; }}',
    "zsh": f'_transferctl_jobs() {{ compadd -- ${{(f)"$({_IDS})"}}; }}',
    "fish": "",
    "tcsh": "",
}
_FILES = frozenset(
    {"dest", "password_file", "proxy_password_file", "header_file", "cacert", "keytab", "socket"}
)


async def run(options: Namespace, output: Output) -> int:
    """Print the script for a shell; with --json as a text in a document."""
    parser = make_parser()
    _mark(parser)
    script = shtab.complete(parser, shell=options.shell, preamble=_PREAMBLE[options.shell])
    if output.json:
        output.document({"shell": options.shell, "script": script})
    else:
        output.line(script)
    return Exit.DONE


def _mark(parser: ArgumentParser) -> None:
    """Tell shtab which arguments are jobs and files."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for nested in action.choices.values():
                _mark(nested)
        elif action.dest == "job":
            vars(action)["complete"] = _JOBS  # the attribute is shtab's, not argparse's
        elif action.dest in _FILES:
            vars(action)["complete"] = shtab.FILE
