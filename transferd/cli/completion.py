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
SHELLS = tuple(_PREAMBLE)
_FILES = frozenset(
    {
        "dest",
        "password_file",
        "proxy_password_file",
        "header_file",
        "cacert",
        "keytab",
        "root",
        "socket",
    }
)


async def run(options: Namespace, output: Output) -> int:
    """Print the script for a shell; with --json as a text in a document."""
    text = script(options.shell)
    if output.json:
        output.document({"shell": options.shell, "script": text})
    else:
        output.line(text)
    return Exit.DONE


def script(shell: str) -> str:
    """Return the completion script for one of SHELLS."""
    parser = make_parser()
    _mark(parser)
    return str(shtab.complete(parser, shell=shell, preamble=_PREAMBLE[shell]))


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
