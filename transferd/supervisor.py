"""The service manager above the daemon: what it is told, and the sockets that it opened for us.

Speaks sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), without libsystemd. Whatever is
read from the environment is removed from it, so that children do not speak in the daemon's name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping

from transferd.model.errors import TransferdError

log = logging.getLogger(__name__)

#: The first inherited descriptor (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3

#: The manager's end is a datagram socket with a queue; a full one is worth a short wait only.
_SEND_SECONDS = 1.0


class ActivationError(TransferdError):
    """What the service manager passed on is not what the socket unit should pass on."""


class Supervisor:
    """Tells the service manager how the daemon is; says nothing where there is no manager.

    A manager that cannot be reached is logged, and never an error of the daemon.
    """

    def __init__(
        self,
        environ: MutableMapping[str, str],
        pid: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of *environ*.

        *pid* is the daemon's own: a watchdog that is meant for another process is not fed.
        """
        self._address = _socket_address(environ.pop("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog_seconds(
            environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""), pid
        )
        self._stopping = False
        self._sleep = sleep
        self._monotonic = monotonic

    def ready(self, status: str) -> None:
        """Say that the daemon serves: what is ordered after it may start."""
        if self._stopping:
            return
        self._notify("READY=1", _status_line(status))

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` says that it was, or was refused.

        The time tells this reload from one before, as Type=notify-reload asks (systemd.service(5)).
        """
        if self._stopping:
            return
        self._notify("RELOADING=1", f"MONOTONIC_USEC={self._monotonic() // 1000}")

    def stopping(self) -> None:
        """Say that the daemon is going down on purpose: the last word of it."""
        self._stopping = True
        self._notify("STOPPING=1", _status_line("going down"))

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._notify(_status_line(text))

    async def keep_alive(self, alive: Callable[[], Awaitable[None]]) -> None:
        """Feed the watchdog at half of its period, each time after *alive* has come back.

        *alive* passes through what must not hang (the queue, say). While it hangs nothing is fed,
        and the manager restarts the daemon. Returns at once where there is no watchdog.

        Raises:
            Exception: whatever *alive* raises.
        """
        if self._watchdog is None or self._address is None:
            return
        while True:
            await alive()
            self._notify("WATCHDOG=1")
            await self._sleep(self._watchdog / 2)

    def _notify(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            fields = {"said": assignments[0], "reason": str(error)}
            log.warning("supervisor.unreachable", extra={"fields": fields})


def inherited_sockets(
    environ: MutableMapping[str, str], pid: int, first: int = FIRST_DESCRIPTOR
) -> tuple[socket.socket, ...]:
    """Return the listening Unix stream sockets that the service manager opened for process *pid*.

    They are no longer inherited by children; LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are taken
    out of *environ*. Empty when nothing was passed on, or to another process.

    Raises:
        ActivationError: something else was passed on; names the descriptor.
    """
    count = environ.pop("LISTEN_FDS", "")
    meant_for = environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(pid) or not count:
        return ()
    if not count.isdecimal():
        raise ActivationError(f"cannot use inherited sockets: LISTEN_FDS is {count!r}, no number")
    total = int(count)
    names += ["unknown"] * (total - len(names))
    return tuple(_adopt(first + index, names[index]) for index in range(total))


def _adopt(descriptor: int, name: str) -> socket.socket:
    try:
        inherited = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ActivationError(
            f"cannot use inherited descriptor {descriptor} ({name}): {error}"
        ) from error
    inherited.set_inheritable(False)
    if (
        inherited.family is not socket.AF_UNIX
        or inherited.type is not socket.SOCK_STREAM
        or not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        inherited.close()
        raise ActivationError(
            f"cannot use inherited descriptor {descriptor} ({name}): it is no listening Unix "
            "stream socket; the socket unit must have ListenStream= with a path, and Accept=no"
        )
    return inherited


def _socket_address(value: str) -> str | None:
    """Turn NOTIFY_SOCKET into an address: a path, or a name in the abstract namespace."""
    if value.startswith("@"):
        return "\0" + value[1:]
    return value if value.startswith("/") else None


def _watchdog_seconds(microseconds: str, meant_for: str, pid: int) -> float | None:
    """Return the watchdog's period where there is one for process *pid*."""
    if meant_for not in ("", str(pid)) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1_000_000 or None


def _status_line(text: str) -> str:
    # A line break would begin another assignment.
    return "STATUS=" + " ".join(text.split())
