"""The grammar of the command line. Imports no more than it must: `--help` should be instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from transferd import __version__
from transferd.cli.admin_options import install_options, uninstall_options
from transferd.cli.grammar import CommandParser, Commands, Formatter, command, job_argument
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


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of transferctl; with *only* it knows that command and some others.

    Every command sets `run`, `module:function`, which is imported only when it is called.
    """
    parser = argparse.ArgumentParser(
        prog="transferctl",
        allow_abbrev=False,
        description="Transfer files in the background: durable, resumable, authenticated.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"transferctl {__version__}")
    parser.add_argument("--json", action="store_true", help="print JSON, whatever the command")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, dest="command", parser_class=CommandParser
    )
    for add, names in _COMMANDS.items():
        if only is None or only in names:
            add(commands)
    return parser


# ── making jobs ────────────────────────────────────────────────────────────────────────────


def _add_get(commands: Commands) -> None:
    parser = command(
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
    parser = command(
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
    parser = command(
        commands,
        "add",
        "JOB URL [DEST]",
        "transferd.cli.making:add",
        "add a file to a job",
        "transferctl add nightly https://host/a.iso ~/isos/",
    )
    job_argument(parser)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("dest", metavar="DEST", nargs="?", help="file or directory")
    parser.add_argument("--checksum", metavar="ALGORITHM:HEX", help="what the file must have")


def _add_credentials(commands: Commands) -> None:
    nested = commands.add_parser(
        "credentials",
        help="set or remove who a job is to a server or proxy",
        formatter_class=Formatter,
    )
    nested.mixed = False  # argparse cannot, with commands of its own
    actions = nested.add_subparsers(metavar="ACTION", required=True, dest="action")
    put = command(
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
    remove = command(
        actions,
        "remove",
        "JOB",
        "transferd.cli.making:remove_credentials",
        "remove credentials of a target",
        "transferctl credentials remove nightly --auth basic",
    )
    for parser in (put, remove):
        job_argument(parser)
        parser.add_argument("--target", choices=("server", "proxy"), default="server", help="whose")
    credential_options(put)
    remove.add_argument(
        "--auth", "--scheme", dest="auth", metavar="SCHEME", help="default: every one that is set"
    )


def _add_notify(commands: Commands) -> None:
    parser = command(
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
    job_argument(parser)
    parser.add_argument("--kinds", metavar="KIND,…", help="transferred, error, file_transferred, …")
    program = parser.add_mutually_exclusive_group()
    program.add_argument(
        "--command", metavar="'PROGRAM ARG…'", help="run that; quoted as for a shell, run by none"
    )
    program.add_argument("--no-command", action="store_true", help="run nothing")
    parser.add_argument(
        "words", metavar="PROGRAM", nargs="*", help="the same as --command, unquoted, after --"
    )


def _add_set(commands: Commands) -> None:
    parser = command(
        commands,
        "set",
        "JOB…",
        "transferd.cli.steering:change",
        "change the settings of jobs",
        """\
        transferctl set nightly --priority high --min-retry-delay 10s
        transferctl set one two --cost default
        transferctl set nightly --keytab ~/alice.keytab --spn ''            # the default again""",
    )
    job_argument(parser, "+")
    parser.add_argument("--name", help="a new name")
    end_options(parser)
    job_options(parser, priority=None, new=False)
    scheme_options(parser)


# ── steering jobs ──────────────────────────────────────────────────────────────────────────


_VERBS: Mapping[str, str] = MappingProxyType(
    {
        "resume": "start jobs, or go on with them",
        "suspend": "pause jobs",
        "complete": "give the files their names and take the jobs out of the queue",
        "cancel": "take jobs out of the queue and remove what was fetched",
        "take-ownership": "make jobs of others yours, without their secrets (for admins)",
    }
)


def _add_verbs(commands: Commands) -> None:
    for verb, help in _VERBS.items():
        parser = command(commands, verb, "JOB…", "transferd.cli.steering:act", help)
        job_argument(parser, "+")


def _add_wait(commands: Commands) -> None:
    parser = command(
        commands,
        "wait",
        "JOB",
        "transferd.cli.steering:wait",
        "wait until a job is transferred",
        """\
        transferctl wait a.iso --complete
        transferctl wait a.iso --timeout 1h""",
    )
    job_argument(parser)
    parser.add_argument(
        "--timeout", type=duration, default=0.0, metavar="TIME", help="then leave; the job goes on"
    )
    parser.add_argument("--complete", action="store_true", help="complete the job then")


# ── looking ────────────────────────────────────────────────────────────────────────────────


_VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "show": "show everything about a job",
        "files": "list the files of a job",
        "why": "say why a job does not move, and what would help",
    }
)


def _add_views(commands: Commands) -> None:
    listing = command(commands, "list", "", "transferd.cli.views:list_jobs", "list the jobs")
    everybody_option(listing, "everybody's (for admins)")
    listing.add_argument("--state", metavar="STATE,…", help="only jobs in these states")
    listing.add_argument("--ids", action="store_true", help="print the ids only")
    for name, help in _VIEWS.items():
        parser = command(commands, name, "JOB", f"transferd.cli.views:{name}", help)
        job_argument(parser)


def _add_events(commands: Commands) -> None:
    parser = command(
        commands,
        "events",
        "[JOB]",
        "transferd.cli.views:events",
        "print what happens, until interrupted",
        """\
        transferctl events --kinds transferred,error --json --ack | while read -r notice; do …
        transferctl events nightly""",
    )
    job_argument(parser, "?")
    parser.add_argument("--kinds", metavar="KIND,…", help="default: all")
    parser.add_argument("--after", type=int, metavar="N", help="replay what came after that number")
    parser.add_argument("--ack", action="store_true", help="acknowledge what was printed")


def _add_version(commands: Commands) -> None:
    command(commands, "version", "", "transferd.cli.views:version", "say which versions these are")


def _add_admin(commands: Commands) -> None:
    nested = commands.add_parser(
        "admin",
        help="look after the service itself",
        formatter_class=Formatter,
    )
    nested.mixed = False  # argparse cannot, with commands of its own
    actions = nested.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, run, help in (
        ("status", "transferd.cli.admin:status", "say how the service is, user by user"),
        ("check", "transferd.cli.admin:check", "look for what is wrong, and change nothing"),
        ("rotate-key", "transferd.cli.admin:rotate_key", "seal every secret under a new key"),
    ):
        command(actions, name, "", run, help)
    for name, options, help in (
        ("install", install_options, "make this the service of the machine"),
        ("uninstall", uninstall_options, "remove the service, but no state"),
    ):
        options(command(actions, name, "", f"transferd.cli.installing:{name}", help))


def _add_completion(commands: Commands) -> None:
    parser = command(
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


_COMMANDS: Mapping[Callable[[Commands], None], Collection[str]] = MappingProxyType(
    {
        _add_get: {"get"},
        _add_create: {"create"},
        _add_add: {"add"},
        _add_credentials: {"credentials"},
        _add_notify: {"notify"},
        _add_set: {"set"},
        _add_verbs: _VERBS.keys(),
        _add_wait: {"wait"},
        _add_views: {"list", *_VIEWS},
        _add_events: {"events"},
        _add_version: {"version"},
        _add_admin: {"admin"},
        _add_completion: {"completion"},
    }
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 where it cannot be meant."""
    words = sys.argv[1:] if arguments is None else arguments
    first = next((word for word in words if not word.startswith("-")), None)
    known = any(first in names for names in _COMMANDS.values())
    # The options of all commands take longer to make than most commands to run.
    return make_parser(first if known else None).parse_args(arguments)
