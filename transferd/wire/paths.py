"""Where the daemon and its clients meet, and where the daemon keeps its state: pure decisions.

Both ends compute the same defaults from the same environment; nothing here touches a file.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from pathlib import Path

from transferd.model.errors import ConfigError

#: Names the one socket to use, whatever else there is.
SOCKET_VARIABLE = "TRANSFERD_SOCKET"

#: In the state directory: where the daemon that holds it listens (see `record`).
RECORD_NAME = "socket"

_SOCKET_NAME = "transferd.sock"


def system_socket() -> Path:
    """Return the socket of the system service."""
    return Path("/run/transferd") / _SOCKET_NAME


def user_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Return the socket of *uid*'s own daemon.

    It is in `$XDG_RUNTIME_DIR`; without one it is in a directory under `/tmp` that is named after
    the uid. Anybody can make that directory first, so that both ends must see that it is the
    user's own, no symbolic link, and has mode 0700, before they use the socket in it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return Path(runtime) / _SOCKET_NAME
    return fallback_directory(uid) / _SOCKET_NAME


def fallback_directory(uid: int) -> Path:
    """Return the directory for *uid*'s socket where there is no `$XDG_RUNTIME_DIR`."""
    return Path("/tmp") / f"transferd-{uid}"  # noqa: S108 - see user_socket


def state_directory(environ: Mapping[str, str], system: bool) -> Path:
    """Return where the queue, the key and the log are kept.

    System: what systemd says in `$STATE_DIRECTORY` (the first one), else `/var/lib/transferd`.
    User: `transferd` in `$XDG_STATE_HOME`, else in `~/.local/state`.

    Raises:
        ConfigError: there is neither an absolute `$XDG_STATE_HOME` nor an absolute `$HOME`.
    """
    if system:
        given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return Path(given) if os.path.isabs(given) else Path("/var/lib/transferd")
    state_home = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state_home):
        return Path(state_home) / "transferd"
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return Path(home) / ".local" / "state" / "transferd"
    raise ConfigError(
        "cannot choose a state directory: neither XDG_STATE_HOME nor HOME names one; "
        "set HOME or pass --state-dir"
    )


def configuration_file(environ: Mapping[str, str], system: bool) -> Path | None:
    """Return the configuration file that is read where none is named; it need not be there.

    System: `/etc/transferd/transferd.toml`. User: `transferd/transferd.toml` in `$XDG_CONFIG_HOME`,
    else in `~/.config`; None where neither is an absolute path.
    """
    name = Path("transferd", "transferd.toml")
    if system:
        return Path("/etc") / name
    config_home = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(config_home):
        return Path(config_home) / name
    home = environ.get("HOME", "")
    return Path(home) / ".config" / name if os.path.isabs(home) else None


def record(socket: str, pid: int) -> str:
    """Return what a daemon writes into RECORD_NAME: its socket in the first line, then its pid."""
    return f"{socket}\n{pid}\n"


def read_record(text: str) -> tuple[Path, int] | None:
    """Return socket and pid of a record; None if it is none."""
    socket, _, pid = text.removesuffix("\n").rpartition("\n")
    return (Path(socket), int(pid)) if os.path.isabs(socket) and pid.isdecimal() else None
