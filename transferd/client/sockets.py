"""Which daemon to talk to."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from transferd.client.connection import Connection
from transferd.client.connection import path as api_path
from transferd.client.holder import recorded_socket
from transferd.model.errors import NoDaemon, NotAllowed, TransferdError
from transferd.wire.paths import SOCKET_VARIABLE, fallback_directory, system_socket, user_socket

#: Connecting takes no time, unless the daemon hangs with a full queue of callers.
_CONNECT_SECONDS = 2.0
#: A service manager takes calls for a service that is starting, or that it cannot start.
_ANSWER_SECONDS = 20.0


async def locate(given: Path | None, environ: Mapping[str, str], *, start: bool) -> Path:
    """Return the socket of a daemon that answers.

    That is *given*, or what `$TRANSFERD_SOCKET` names, and no other; without either it is the
    user's own or else the system's, or else where the user's own says that it listens, or else,
    with *start*, that of a daemon that is started now.

    Raises:
        NoDaemon: none answers, or none could be started.
    """
    only = given or (Path(named) if (named := environ.get(SOCKET_VARIABLE)) else None)
    own, system = user_socket(environ, os.geteuid()), system_socket()
    reasons: list[str] = []

    async def reach(path: Path) -> str | None:
        # $XDG_RUNTIME_DIR stays what it was when somebody becomes root by su or sudo -E.
        doubt = _foreign(own.parent, os.geteuid()) if path == own and only is None else None
        return doubt or await unreachable(path)

    for candidate in [only] if only else [own, system]:
        reason = await reach(candidate)
        if reason is None and candidate == system and only is None:
            reason = await _declined(system)
        if reason is None:
            return candidate
        reasons.append(f"{candidate}: {reason}")
    if only is None:
        recorded = recorded_socket(environ)
        if recorded is not None and await unreachable(recorded) is None:
            return recorded
        if start:
            from transferd.client.autostart import start_daemon  # mostly there is one

            return await start_daemon(own, environ, reach)
    remedy = "is it running there?" if only else "start one with `transferd`"
    raise NoDaemon(f"cannot reach a daemon: {', '.join(reasons)}; {remedy}")


async def unreachable(path: Path) -> str | None:
    """Say why nobody can be talked to at *path*; None if somebody answers."""
    uid = os.geteuid()
    if path.parent == fallback_directory(uid) and (doubt := distrust(path.parent, uid)):
        return doubt
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(attempt, str(path))
        except TimeoutError:
            return "it does not answer"
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


async def _declined(path: Path) -> str | None:
    """Say why the daemon at *path* does not serve this user; None if it does.

    Raises:
        NoDaemon: it says nothing.
    """
    async with Connection(path) as connection:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.send("GET", api_path("jobs"), params={"limit": "1"})
        except NotAllowed as error:
            return str(error)
        except TimeoutError:
            # Not to be passed over: a second queue elsewhere would only hide this one.
            raise NoDaemon(
                f"cannot reach the service at {path}: it takes calls, and has answered none for"
                f" {_ANSWER_SECONDS:g} s; see `systemctl status transferd`"
            ) from None
        except TransferdError:
            return None  # whoever uses it learns more
    return None


def _foreign(directory: Path, uid: int) -> str | None:
    """Say whose a directory is where another user could listen; None: it is ours, or root's."""
    with suppress(OSError):
        owner = directory.stat().st_uid
        if owner not in (uid, 0):
            return (
                f"{directory} belongs to user {owner}; set XDG_RUNTIME_DIR to a directory of yours"
            )
    return None


def distrust(directory: Path, uid: int) -> str | None:
    """Say why a directory that anybody could have made is not *uid*'s private one."""
    try:
        found = directory.lstat()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is not a directory; remove it"
    if found.st_uid != uid:
        return f"{directory} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of yours"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"{directory} is open to others; chmod it to 0700"
    return None
