"""Starts worker processes: as the daemon's own user, or, for a system service, as any owner.

A worker gets one end of the socket pair as descriptor 0, and nothing else of the daemon's. Until it
has said Hello its standard error is the link as well: what keeps it from starting is heard there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from transferd.accounts import Account, UnknownAccount
from transferd.model.errors import OwnerRefused
from transferd.model.job import Seconds
from transferd.process import DESCRIPTORS
from transferd.service.lookups import LOOKUP_SECONDS, Lookups
from transferd.service.workers import Launch, Process

_LINK = ("--fd", "0")
_PATH = "/usr/local/bin:/usr/bin:/bin"
#: Variables that are meant for the daemon, not for its children (systemd.exec(5)).
_DAEMON_ONLY = frozenset(
    {
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LOGS_DIRECTORY",
        "MANAGERPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "SYSTEMD_EXEC_PID",
    }
)


def own_launcher(command: tuple[str, ...], environ: Mapping[str, str]) -> Launch:
    """Return a Launch that runs *command* with *environ*, under the daemon's own uid.

    What is meant for the daemon alone is left out. It refuses any other owner: a worker must never
    open files with another's rights.
    """
    passed_on = {n: value for n, value in environ.items() if n not in _DAEMON_ONLY}

    async def launch(owner: int, end: socket.socket) -> Process:
        if owner != os.getuid():
            raise OwnerRefused(
                f"this daemon runs workers of uid {os.getuid()} only, and the job is of uid {owner}"
            )
        return await _start((*command, *_LINK), end, passed_on)

    return launch


def owner_launcher(
    command: tuple[str, ...],
    find_account: Callable[[int], Account],
    extra: Mapping[str, str],
    *,
    allow_root: bool,
    patience: Seconds = LOOKUP_SECONDS,
) -> Launch:
    """Return a Launch that runs *command* as the owner, with all of the owner's groups.

    The worker is told to make sure that it is the owner, for good.

    Args:
        command: the worker's; every user must be able to read and execute it.
        find_account: may block; is called in a thread.
        extra: variables for workers, beside those of a login. None is the daemon's.
        allow_root: whether uid 0 may be an owner.
        patience: how long *find_account* is waited for.
    """
    lookups = Lookups(find_account, patience)

    async def launch(owner: int, end: socket.socket) -> Process:
        if owner == 0 and not allow_root:
            raise OwnerRefused("this machine runs no jobs of root: worker.allow_root is false")
        try:
            account = await lookups.find(owner)
        except UnknownAccount as error:
            raise OwnerRefused(str(error)) from error
        argv = (*command, *_LINK, "--owner", str(owner))
        try:
            return await _start(argv, end, login_environment(account, extra), account)
        except PermissionError as error:
            raise _not_startable(error, command[0], account) from error

    return launch


def login_environment(account: Account, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker; *extra* changes none that says who the owner is."""
    environ = {"PATH": _PATH, "LANG": "C.UTF-8"} | dict(extra)
    environ |= {
        "HOME": str(account.home) if account.home.is_absolute() else "/",
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell or "/bin/sh",
    }
    environ.pop("XDG_RUNTIME_DIR", None)
    runtime = Path(f"/run/user/{account.uid}")
    with suppress(OSError):
        if runtime.lstat().st_uid == account.uid:
            environ["XDG_RUNTIME_DIR"] = str(runtime)
    return environ


def _not_startable(error: PermissionError, program: str, account: Account) -> PermissionError:
    """Say which of the two it is: the daemon may not, or the owner may not."""
    who = f"{account.name} (uid {account.uid})"
    if error.errno == errno.EPERM:
        return PermissionError(errno.EPERM, f"the daemon may not become {who}")
    return PermissionError(
        error.errno, f"{who} may not execute {program}; is the installation readable by everyone?"
    )


async def _start(
    argv: tuple[str, ...],
    end: socket.socket,
    environ: Mapping[str, str],
    account: Account | None = None,
) -> Process:
    with DESCRIPTORS.usual():
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=end.fileno(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=end.fileno(),
            env=environ,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=account.groups if account else None,
            # Root's terminal, where the daemon was started by hand, is no other user's.
            start_new_session=account is not None,
        )
