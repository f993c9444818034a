"""The grammar of the command line. Imports no more than it must: `--help` should be instant."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

from transferd import __version__
from transferd.cli.admin_options import install_options, uninstall_options
from transferd.cli.options import (
    credential_options,
    end_options,
    everybody_option,
    job_options,
    proxy_options,
    scheme_options,
)
from transferd.cli.values import duration

_EPILOG = """\
examples:
  transferctl get https://host/a.iso
  transferctl get https://host/a.iso ~/isos/ --user alice --checksum sha256:…
  transferctl list
  transferctl why a.iso

exit status: 0 done, 1 the job failed, 2 usage, 3 no daemon, 4 not allowed or not
found, 124 timed out, 130 interrupted, 129 hung up, 143 terminated (the job
goes on)"""
_JOB_HELP = "id of the job, the beginning of it (4 characters or more), or its name"


Commands: TypeAlias = "argparse._SubParsersAction[_CommandParser]"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class _CommandParser(argparse.ArgumentParser):
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


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of transferctl.

    Every command sets `run`, `module:function`, which is imported only when it is called.
    """
    parser = argparse.ArgumentParser(
        prog="transferctl",
        allow_abbrev=False,
        description="Transfer files in the background: durable, resumable, authenticated.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"transferctl {__version__}")
    parser.add_argument("--json", action="store_true", help="print JSON, whatever the command")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, dest="command", parser_class=_CommandParser
    )
    for add in (
        _add_get,
        _add_create,
        _add_add,
        _add_credentials,
        _add_notify,
        _add_set,
        _add_verbs,
        _add_wait,
        _add_views,
        _add_events,
        _add_version,
        _add_admin,
        _add_completion,
    ):
        add(commands)
    return parser


def _command(
    commands: Commands, name: str, words: str, run: str, help: str, examples: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        usage=f"%(prog)s [OPTION]… {words}".rstrip(),
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"examples:\n{textwrap.indent(textwrap.dedent(examples), '  ')}"
        if examples
        else None,
        formatter_class=_Formatter,
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


def _job_argument(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("job", metavar="JOB", nargs=nargs, help=_JOB_HELP)
    everybody_option(parser)


# ── making jobs ────────────────────────────────────────────────────────────────────────────


def _add_get(commands: Commands) -> None:
    parser = _command(
        commands,
        "get",
        "URL [DEST]",
        "transferd.cli.get:run",
        "transfer one file and wait for it",
        """\
        transferctl get https://host/a.iso
        transferctl get https://host/a.iso ~/isos/ --user alice
        transferctl get https://host/a.iso --auth digest --user alice --password-file - < secret
        transferctl get https://host/a.iso --auth negotiate          # with your Kerberos ticket
        transferctl get https://host/a.iso --detach --priority low
        path=$(transferctl get https://host/a.iso)       # not on a terminal: prints the path""",
    )
    parser.add_argument("url", metavar="URL", help="http or https")
    parser.add_argument(
        "dest", metavar="DEST", nargs="?", help="file or directory; default: named by the URL, here"
    )
    parser.add_argument("--name", help="name of the job; default: that of the file")
    credential_options(parser)
    proxy_options(parser)
    scheme_options(parser)
    parser.add_argument("--checksum", metavar="ALGORITHM:HEX", help="what the file must have")
    job_options(parser, priority="foreground", proxy=False)
    parser.add_argument(
        "--timeout",
        type=duration,
        default=15 * 60.0,
        metavar="TIME",
        help="then cancel (15m; 0: never)",
    )
    parser.add_argument("--keep", action="store_true", help="keep a job that failed, to mend it")
    parser.add_argument(
        "--detach",
        action="store_true",
        help="print the id and leave; the file appears by itself when it is whole",
    )


def _add_create(commands: Commands) -> None:
    parser = _command(
        commands,
        "create",
        "NAME",
        "transferd.cli.making:create",
        "make a job, which waits for files and `resume`",
        """\
        transferctl create nightly --priority low --auto-complete
        transferctl create both --file https://host/a ~/a --file https://host/b ~/b --start""",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        nargs=2,
        metavar=("URL", "DEST"),
        help="a file to transfer; may be repeated",
    )
    parser.add_argument("--id", metavar="UUID", help="of your choice: repeating it makes no other")
    parser.add_argument("--start", action="store_true", help="resume at once")
    end_options(parser)
    job_options(parser, priority=None)
    scheme_options(parser)


def _add_add(commands: Commands) -> None:
    parser = _command(
        commands,
        "add",
        "JOB URL [DEST]",
        "transferd.cli.making:add",
        "add a file to a job",
        "transferctl add nightly https://host/a.iso ~/isos/",
    )
    _job_argument(parser)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("dest", metavar="DEST", nargs="?", help="file or directory")
    parser.add_argument("--checksum", metavar="ALGORITHM:HEX", help="what the file must have")


def _add_credentials(commands: Commands) -> None:
    nested = commands.add_parser(
        "credentials",
        help="set or remove who a job is to a server or proxy",
        formatter_class=_Formatter,
    )
    nested.mixed = False  # argparse cannot, with commands of its own
    actions = nested.add_subparsers(metavar="ACTION", required=True, dest="action")
    put = _command(
        actions,
        "set",
        "JOB --user USER",
        "transferd.cli.making:set_credentials",
        "set a user and password, in place of what was set; a running job begins anew with them",
        """\
        transferctl credentials set nightly --user alice
        transferctl credentials set nightly --target proxy --auth ntlm --user 'CORP\\alice'
        transferctl credentials set nightly --user NULL""",
    )
    remove = _command(
        actions,
        "remove",
        "JOB",
        "transferd.cli.making:remove_credentials",
        "remove credentials of a target",
        "transferctl credentials remove nightly --auth basic",
    )
    for parser in (put, remove):
        _job_argument(parser)
        parser.add_argument("--target", choices=("server", "proxy"), default="server", help="whose")
    credential_options(put)
    remove.add_argument(
        "--auth", "--scheme", dest="auth", metavar="SCHEME", help="default: every one that is set"
    )


def _add_notify(commands: Commands) -> None:
    parser = _command(
        commands,
        "notify",
        "JOB [-- PROGRAM [ARGUMENT]…]",
        "transferd.cli.making:notify",
        "choose what a job's listeners are told, and the command that is run if none answers",
        """\
        transferctl notify nightly --kinds transferred,error --command /usr/local/bin/tell-me
        transferctl notify nightly -- /usr/bin/notify-send --urgency low done
        transferctl notify nightly --no-command""",
    )
    _job_argument(parser)
    parser.add_argument("--kinds", metavar="KIND,…", help="transferred, error, file_transferred, …")
    command = parser.add_mutually_exclusive_group()
    command.add_argument(
        "--command", metavar="'PROGRAM ARG…'", help="run that; quoted as for a shell, run by none"
    )
    command.add_argument("--no-command", action="store_true", help="run nothing")
    parser.add_argument(
        "words", metavar="PROGRAM", nargs="*", help="the same as --command, unquoted, after --"
    )


def _add_set(commands: Commands) -> None:
    parser = _command(
        commands,
        "set",
        "JOB",
        "transferd.cli.making:change",
        "change the settings of a job",
        """\
        transferctl set nightly --priority high --min-retry-delay 10s
        transferctl set nightly --keytab ~/alice.keytab --spn ''            # the default again""",
    )
    _job_argument(parser)
    parser.add_argument("--name", help="a new name")
    end_options(parser)
    job_options(parser, priority=None, new=False)
    scheme_options(parser)


# ── steering jobs ──────────────────────────────────────────────────────────────────────────


def _add_verbs(commands: Commands) -> None:
    for verb, help in (
        ("resume", "start jobs, or go on with them"),
        ("suspend", "pause jobs"),
        ("complete", "give the files their names and take the jobs out of the queue"),
        ("cancel", "take jobs out of the queue and remove what was fetched"),
        ("take-ownership", "make jobs of others yours, without their secrets (for admins)"),
    ):
        parser = _command(commands, verb, "JOB…", "transferd.cli.steering:act", help)
        _job_argument(parser, "+")


def _add_wait(commands: Commands) -> None:
    parser = _command(
        commands,
        "wait",
        "JOB",
        "transferd.cli.steering:wait",
        "wait until a job is transferred",
        """\
        transferctl wait a.iso --complete
        transferctl wait a.iso --timeout 1h""",
    )
    _job_argument(parser)
    parser.add_argument(
        "--timeout", type=duration, default=0.0, metavar="TIME", help="then leave; the job goes on"
    )
    parser.add_argument("--complete", action="store_true", help="complete the job then")


# ── looking ────────────────────────────────────────────────────────────────────────────────


def _add_views(commands: Commands) -> None:
    listing = _command(commands, "list", "", "transferd.cli.views:list_jobs", "list the jobs")
    everybody_option(listing, "everybody's (for admins)")
    listing.add_argument("--state", metavar="STATE,…", help="only jobs in these states")
    listing.add_argument("--ids", action="store_true", help="print the ids only")
    for name, help in (
        ("show", "show everything about a job"),
        ("files", "list the files of a job"),
        ("why", "say why a job does not move, and what would help"),
    ):
        parser = _command(commands, name, "JOB", f"transferd.cli.views:{name}", help)
        _job_argument(parser)


def _add_events(commands: Commands) -> None:
    parser = _command(
        commands,
        "events",
        "[JOB]",
        "transferd.cli.views:events",
        "print what happens, until interrupted",
        """\
        transferctl events --kinds transferred,error --json --ack | while read -r notice; do …
        transferctl events nightly""",
    )
    _job_argument(parser, "?")
    parser.add_argument("--kinds", metavar="KIND,…", help="default: all")
    parser.add_argument("--after", type=int, metavar="N", help="replay what came after that number")
    parser.add_argument("--ack", action="store_true", help="acknowledge what was printed")


def _add_version(commands: Commands) -> None:
    _command(commands, "version", "", "transferd.cli.views:version", "say which versions these are")


def _add_admin(commands: Commands) -> None:
    nested = commands.add_parser(
        "admin",
        help="look after the service itself",
        formatter_class=_Formatter,
    )
    nested.mixed = False  # argparse cannot, with commands of its own
    actions = nested.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, run, help in (
        ("status", "transferd.cli.admin:status", "say how the service is, user by user"),
        ("check", "transferd.cli.admin:check", "look for what is wrong, and change nothing"),
        ("rotate-key", "transferd.cli.admin:rotate_key", "seal every secret under a new key"),
    ):
        _command(actions, name, "", run, help)
    for name, options, help in (
        ("install", install_options, "make this the service of the machine"),
        ("uninstall", uninstall_options, "remove the service, but no state"),
    ):
        options(_command(actions, name, "", f"transferd.cli.installing:{name}", help))


def _add_completion(commands: Commands) -> None:
    parser = _command(
        commands,
        "completion",
        "bash|zsh|fish|tcsh",
        "transferd.cli.completion:run",
        "print a completion script for a shell",
        """\
        transferctl completion bash > ~/.local/share/bash-completion/completions/transferctl
        transferctl completion zsh > ~/.zfunc/_transferctl
        transferctl completion fish > ~/.config/fish/completions/transferctl.fish""",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 where it cannot be meant."""
    return make_parser().parse_args(arguments)
