"""Starts worker processes: as the daemon's own user, or, for a system service, as any owner.

A worker gets one end of the socket pair as descriptor 0, and nothing else of the daemon's. Until it
has said Hello its standard error is the link as well: what keeps it from starting is heard there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from transferd.accounts import Account, UnknownAccount
from transferd.model.errors import OwnerRefused
from transferd.model.job import Seconds
from transferd.process import DESCRIPTORS
from transferd.service.workers import Launch, Process

#: A directory service that is silent for longer is asked again with the next try of the job.
LOOKUP_SECONDS: Seconds = 10.0

_LINK = ("--fd", "0")
_PATH = "/usr/local/bin:/usr/bin:/bin"


def own_launcher(command: tuple[str, ...], environ: Mapping[str, str]) -> Launch:
    """Return a Launch that runs *command* with *environ*, under the daemon's own uid.

    It refuses any other owner: a worker must never open files with another's rights.
    """

    async def launch(owner: int, end: socket.socket) -> Process:
        if owner != os.getuid():
            raise OwnerRefused(
                f"this daemon runs workers of uid {os.getuid()} only, and the job is of uid {owner}"
            )
        return await _start((*command, *_LINK), end, environ)

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
    lookups = _Lookups(find_account, patience)

    async def launch(owner: int, end: socket.socket) -> Process:
        if owner == 0 and not allow_root:
            raise OwnerRefused("this machine runs no jobs of root: worker.allow_root is false")
        try:
            account = await lookups.account(owner)
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
        )


class _Lookups:
    """Accounts, looked up in threads that nobody waits for in the end: a name server may be dead.

    There is one thread for a uid at most, however often it is asked for.
    """

    def __init__(self, find_account: Callable[[int], Account], patience: Seconds) -> None:
        self._find_account = find_account
        self._patience = patience
        self._open: dict[int, asyncio.Future[Account]] = {}

    async def account(self, uid: int) -> Account:
        """Return an account.

        Raises:
            UnknownAccount: there is none.
            TimeoutError: the user database does not answer.
        """
        answer = self._open.get(uid)
        if answer is None:
            answer = self._open[uid] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(partial(self._close, uid))
            ask = partial(self._ask, uid, answer)
            threading.Thread(target=ask, name=f"account {uid}", daemon=True).start()
        await asyncio.wait([answer], timeout=self._patience)
        if not answer.done():
            raise TimeoutError(
                f"the user database did not answer within {self._patience:g} s; is its server up?"
            )
        return answer.result()

    def _close(self, uid: int, answer: asyncio.Future[Account]) -> None:
        del self._open[uid]
        answer.exception()  # whoever asked may have given up

    def _ask(self, uid: int, answer: asyncio.Future[Account]) -> None:
        say: Callable[[], None]
        try:
            account = self._find_account(uid)
        except Exception as error:  # noqa: BLE001 - it is the asker's
            say = partial(_settle, answer, error)
        else:
            say = partial(_settle, answer, account)
        with suppress(RuntimeError):  # the daemon is gone
            answer.get_loop().call_soon_threadsafe(say)


def _settle(answer: asyncio.Future[Account], outcome: Account | Exception) -> None:
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
