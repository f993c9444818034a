"""Manual pages and completion scripts, made from the grammars and the commented configuration."""

from __future__ import annotations

from collections.abc import Iterator

from transferd.arguments import make_parser as make_daemon_parser
from transferd.cli.arguments import make_parser
from transferd.cli.completion import SHELLS, script
from transferd.installation import data
from transferd.installation.layout import Maker
from transferd.installation.roff import configuration_page, page
from transferd.model.events import EVENTS

_FILES = (
    "/etc/transferd/transferd.toml:\nconfiguration of the system's service",
    "/run/transferd/transferd.sock:\nwhere the system's service answers",
    "/var/lib/transferd:\nits queue, and the key that seals the secrets in it",
    "$XDG_CONFIG_HOME/transferd/transferd.toml:\nconfiguration of a user's own daemon; without the"
    " variable in ~/.config",
    "$XDG_RUNTIME_DIR/transferd.sock:\nwhere a user's own daemon answers; without the variable"
    " /tmp/transferd-UID/transferd.sock",
    "$XDG_STATE_HOME/transferd:\nits queue, key and log; without the variable in ~/.local/state",
)
_STATUSES = (
    "0:\ndone",
    "1:\nthe job failed, or the daemon could not do what was asked",
    "2:\nthe command line or the configuration cannot be meant",
    "3:\nno daemon answers",
    "4:\nnot allowed, or not found",
    "124:\ntimed out",
    "129, 130, 143:\nhung up, interrupted, terminated; the job goes on",
)
_DAEMON = (
    (
        "SIGNALS",
        (
            "SIGTERM, SIGINT:\nend; jobs that move report their last durable offset first, and go"
            " on from there with the next start",
            "SIGHUP:\nread the configuration again",
        ),
    ),
    (
        "EXIT STATUS",
        (
            "0:\na clean stop",
            "1:\nthe state or the socket cannot be used",
            "2:\nthe command line or the configuration cannot be meant",
            "3:\nanother daemon holds the state directory",
        ),
    ),
)


def _events() -> Iterator[str]:
    """Yield what the log can say."""
    yield (
        "Where standard error is the journal's, records have fields: TRANSFERD_EVENT, TRANSFERD_JOB"
        " and so on, and a MESSAGE_ID for each event: the version 5 UUID of its name in the"
        " namespace 6f0e1c52-5a0f-4d59-9d1e-0d8f6c1b7a34. Events and their fields:"
    )
    for name, event in EVENTS.items():
        fields = f" ({', '.join(event.fields)})" if event.fields else ""
        yield f"{name}:\n{event.meaning}{fields}"


def make_documents() -> dict[tuple[Maker, str], str]:
    """Return every manual page by its file name, and the completion script of every shell."""
    files = ("FILES", _FILES)
    clients = (
        ("EXIT STATUS", _STATUSES),
        ("ENVIRONMENT", ("TRANSFERD_SOCKET:\nthe one socket where a daemon is looked for",)),
        files,
        ("SEE ALSO", ("transferd(8), transferd.toml(5)",)),
    )
    daemons = (
        *_DAEMON,
        ("LOG", tuple(_events())),
        files,
        ("SEE ALSO", ("transferctl(1), transferd.toml(5)",)),
    )
    settings = (files, ("SEE ALSO", ("transferd(8)",)))
    made = {
        (Maker.MANUAL, "transferctl.1"): page(make_parser(), 1, clients),
        (Maker.MANUAL, "transferd.8"): page(make_daemon_parser(), 8, daemons),
        (Maker.MANUAL, "transferd.toml.5"): configuration_page(
            data.read("config/transferd.toml"), settings
        ),
    }
    return made | {(Maker.COMPLETION, shell): script(shell) for shell in SHELLS}
