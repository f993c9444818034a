"""Who calls: the kernel's word about the other end of a connection, asked once per connection."""

from __future__ import annotations

import array
import asyncio
import grp
import os
import pwd
import socket
import struct
import threading
from asyncio import BaseTransport
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from aiohttp import web

from transferd.model.caller import Caller
from transferd.model.errors import ConfigError, NotAllowed
from transferd.model.job import Seconds

#: Of <asm-generic/socket.h>; the socket module has no name for it.
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")
#: Python passes no larger buffer to getsockopt.
_GROUP_BYTES = 1024
#: A user database on this machine answers in a thousandth of it.
_NAME_PATIENCE: Seconds = 0.1
#: The kernel's "no such user here".
_NOBODY_AT_ALL = 0xFFFFFFFF
#: How many uids there are where the process is in no user namespace but the first.
_ALL_UIDS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who wants to come in."""

    uid: int
    operator: bool


class Identities:
    """Callers by connection."""

    def __init__(self, admin_gid: int | None, operator: int | None = None) -> None:
        """Take the group whose members are admins, and who else may look after the service."""
        self._admin_gid = admin_gid
        self._operator = operator
        self._known: WeakKeyDictionary[BaseTransport, Caller] = WeakKeyDictionary()
        self._nobody = _nobody()
        self._reconfigured = asyncio.Event()

    def configure(self, admin_gid: int | None) -> None:
        """Take members of another group for admins, on open connections too."""
        self._admin_gid = admin_gid
        self._known.clear()
        reconfigured, self._reconfigured = self._reconfigured, asyncio.Event()
        reconfigured.set()

    def caller(self, request: web.Request) -> Caller:
        """Return who sent a request.

        Raises:
            NotAllowed: `not_allowed`; the kernel does not know.
            ConnectionResetError: the caller is gone.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        caller = self._known.get(transport)
        if caller is None:
            caller = self._known[transport] = self._ask(transport)
        return caller

    async def demoted(self, request: web.Request) -> None:
        """Wait until who sent a request is no admin, or not there any more."""
        with suppress(ConnectionResetError):
            while self.caller(request).admin:
                await self._reconfigured.wait()

    def _ask(self, transport: BaseTransport) -> Caller:
        return self.identify(transport.get_extra_info("socket"))

    def identify(self, sock: socket.socket) -> Caller:
        """Return who is at the other end of a connection.

        Raises:
            NotAllowed: `not_allowed`; the kernel does not know.
        """
        pid, uid, gid = _peer(sock)
        if uid in self._nobody:
            raise NotAllowed("not_allowed", "cannot tell who calls; use the Unix socket")
        admin = uid == 0 or (
            self._admin_gid is not None and self._admin_gid in {gid, *_groups(sock, uid, gid)}
        )
        operator = admin or uid == self._operator
        return Caller(uid=uid, gid=gid, pid=pid, admin=admin, operator=operator)

    def visitor(self, sock: socket.socket) -> Visitor:
        """Return what matters of somebody who wants to come in."""
        try:
            caller = self.identify(sock)
        except NotAllowed:
            return Visitor(uid=_NOBODY_AT_ALL, operator=False)
        return Visitor(uid=caller.uid, operator=caller.operator)


def _nobody() -> frozenset[int]:
    """Return which uids are no user's: in a user namespace all who are not of it have one uid."""
    _, _, count = Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3]
    if int(count) == _ALL_UIDS:
        return frozenset({_NOBODY_AT_ALL})
    overflow = Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")
    return frozenset({_NOBODY_AT_ALL, int(overflow)})


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def admin_gid(group: str) -> int | None:
    """Return the id of the group whose members are admins; None for "".

    Raises:
        ConfigError: there is no such group.
    """
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"cannot use api.admin_group {group!r}: there is no such group; make it or name another"
        ) from None


def _find_name(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return name.encode("utf-8", "replace").decode()


class UserNames:
    """Names of users, each looked up once.

    A user database that is slow is waited for a moment, once for each user: the loop of the daemon
    waits as well. Until it answers, a user has a number.
    """

    def __init__(self, find: Callable[[int], str], patience: Seconds) -> None:
        """Take what looks a name up; it may block."""
        self._find = find
        self._patience = patience
        self._names: dict[int, str] = {}
        self._asked: set[int] = set()

    def __call__(self, uid: int) -> str:
        """Return the name of a user, or the number of one without a name."""
        if uid not in self._names and uid not in self._asked:
            self._asked.add(uid)
            asking = threading.Thread(target=self._ask, args=(uid,), name="user name", daemon=True)
            asking.start()
            asking.join(self._patience)
        return self._names.get(uid, str(uid))

    def _ask(self, uid: int) -> None:
        try:
            self._names[uid] = self._find(uid)
        finally:
            self._asked.discard(uid)


user_name = UserNames(_find_name, _NAME_PATIENCE)


def _groups(sock: socket.socket, uid: int, gid: int) -> Iterable[int]:
    """Return the supplementary groups of the peer, as they were when it connected."""
    try:
        return array.array("I", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUP_BYTES))
    except OSError:  # more groups than the buffer has room for: ask the database of groups
        return os.getgrouplist(user_name(uid), gid)
