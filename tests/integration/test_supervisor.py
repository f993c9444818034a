"""What the service manager hears, and what it hands over; real sockets play the manager."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import require_program
from transferd.supervisor import ActivationError, Supervisor, inherited_sockets

ROOT = Path(__file__).parents[2]
PID = 4711


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(10)

    def hears(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    @property
    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Where the manager listens."""
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    """A service manager."""
    made = Manager(address)
    with made.socket:
        yield made


def test_states_are_told_as_sd_notify_defines_them(manager: Manager, address: str) -> None:
    """Rule: READY, STATUS and STOPPING reach the manager, each as one datagram."""
    supervisor = Supervisor({"NOTIFY_SOCKET": address}, PID)
    supervisor.ready("serving on /run/x")
    assert manager.hears() == ["READY=1", "STATUS=serving on /run/x"]
    supervisor.status("3 jobs are moving")
    assert manager.hears() == ["STATUS=3 jobs are moving"]
    supervisor.stopping()
    assert manager.hears() == ["STOPPING=1", "STATUS=going down"]


def test_a_reload_is_told_with_its_time(manager: Manager, address: str) -> None:
    """Rule: Type=notify-reload wants RELOADING and CLOCK_MONOTONIC in one message, then READY."""
    supervisor = Supervisor({"NOTIFY_SOCKET": address}, PID, monotonic=lambda: 1_234_567_999)
    supervisor.reloading()
    assert manager.hears() == ["RELOADING=1", "MONOTONIC_USEC=1234567"]
    supervisor.ready("serving; kept as it was: [queue]\nis wrong")
    assert manager.hears() == ["READY=1", "STATUS=serving; kept as it was: [queue] is wrong"]


def test_a_reload_that_ends_while_the_daemon_stops_says_nothing(
    manager: Manager, address: str
) -> None:
    """Rule: after STOPPING=1 nobody hears that the daemon serves."""
    supervisor = Supervisor({"NOTIFY_SOCKET": address}, 7)
    supervisor.reloading()
    supervisor.stopping()
    supervisor.ready("reloaded")
    supervisor.reloading()
    supervisor.status("gone")
    heard = [manager.hears()[0] for _ in range(3)]
    assert heard == ["RELOADING=1", "STOPPING=1", "STATUS=gone"]


def test_an_abstract_socket_is_reached() -> None:
    """Rule: `@name` is a name in the abstract namespace (sd_notify(3))."""
    name = f"transferd-{secrets.token_hex(8)}"
    manager = Manager(f"\0{name}")
    with manager.socket:
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}, PID).ready("up")
        assert manager.hears()[0] == "READY=1"


def test_a_status_cannot_forge_an_assignment(manager: Manager, address: str) -> None:
    """Rule: the status is one line, whatever the text."""
    Supervisor({"NOTIFY_SOCKET": address}, PID).status("fine\nMAINPID=1")
    assert manager.hears() == ["STATUS=fine MAINPID=1"]


@pytest.mark.parametrize("value", ["", "relative/path", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Rule: a daemon that was started by hand says nothing and misses nothing."""
    supervisor = Supervisor({"NOTIFY_SOCKET": value} if value else {}, PID)
    supervisor.ready("up")
    supervisor.stopping()
    assert caplog.records == []


def test_a_manager_that_is_gone_is_logged_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: the daemon goes on when nobody hears it."""
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, PID).ready("up")
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("supervisor.unreachable", logging.WARNING)


def test_children_inherit_nothing_of_the_manager(address: str) -> None:
    """Rule: what was read from the environment is gone from it."""
    environ = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": str(PID),
        "LISTEN_FDS": "0",
        "LISTEN_PID": str(PID),
        "LISTEN_FDNAMES": "",
        "HOME": "/root",
    }
    Supervisor(environ, PID)
    inherited_sockets(environ, PID)
    assert environ == {"HOME": "/root"}


class Naps:
    """Stands for asyncio.sleep: writes down each nap, and lets the daemon end after *count*."""

    def __init__(self, count: int) -> None:
        self.taken: list[float] = []
        self._count = count

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if len(self.taken) == self._count:
            raise asyncio.CancelledError


async def fine() -> None:
    """A check that passes."""


@pytest.mark.parametrize("meant_for", ["", str(PID)])
async def test_the_watchdog_is_fed_at_half_of_its_period(
    manager: Manager, address: str, meant_for: str
) -> None:
    """Rule: WATCHDOG=1 goes out each half period (sd_watchdog_enabled(3))."""
    naps = Naps(2)
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": meant_for}
    supervisor = Supervisor(environ, PID, naps)
    with pytest.raises(asyncio.CancelledError):
        await supervisor.keep_alive(fine)
    assert naps.taken == [1.5, 1.5]
    assert [manager.hears(), manager.hears()] == [["WATCHDOG=1"], ["WATCHDOG=1"]]


async def test_a_hanging_daemon_is_not_called_alive(manager: Manager, address: str) -> None:
    """Rule: while the check hangs, the watchdog starves."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        asked.set()
        await release.wait()

    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
    feeding = asyncio.ensure_future(Supervisor(environ, PID, Naps(1)).keep_alive(hang))
    await asked.wait()
    assert manager.silent
    release.set()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding
    manager.socket.settimeout(10)
    assert manager.hears() == ["WATCHDOG=1"]


async def test_a_failing_check_is_the_daemons_end(manager: Manager, address: str) -> None:
    """Rule: what the check raises goes up, unfed."""

    async def broken() -> None:
        raise OSError("the queue is gone")

    supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}, PID, Naps(1))
    with pytest.raises(OSError, match="the queue is gone"):
        await supervisor.keep_alive(broken)
    assert manager.silent


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_a_watchdog_of_somebody_else_is_left_alone(
    manager: Manager, address: str, variables: dict[str, str]
) -> None:
    """Rule: no watchdog, a broken one, or one for another process: nothing to feed."""
    supervisor = Supervisor({"NOTIFY_SOCKET": address} | variables, PID, Naps(1))
    await supervisor.keep_alive(fine)
    assert manager.silent


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket, as a manager opens it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "listening"))
        made.listen()
        yield made


@contextlib.contextmanager
def passed_on(*descriptors: int) -> Iterator[int]:
    """Copies of descriptors, side by side and inheritable; yields the first one's number."""
    first = 500 + secrets.randbelow(200)
    copies = [fcntl.fcntl(old, fcntl.F_DUPFD, first + i) for i, old in enumerate(descriptors)]
    assert copies == list(range(first, first + len(copies)))
    try:
        yield first
    finally:
        for copy in copies:
            with contextlib.suppress(OSError):
                os.close(copy)


def test_inherited_sockets_are_taken_and_closed_for_children(listening: socket.socket) -> None:
    """Rule: LISTEN_FDS sockets come in order, ready to accept, and no child gets them."""
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(PID), "LISTEN_FDNAMES": "a:b"}
    with passed_on(listening.fileno(), listening.fileno()) as first:
        taken = inherited_sockets(environ, PID, first)
        assert [one.fileno() for one in taken] == [first, first + 1]
        assert not any(one.get_inheritable() for one in taken)
        assert taken[0].getsockname() == listening.getsockname()
        for one in taken:
            one.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_PID": str(PID)},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(PID)},
    ],
)
def test_sockets_of_another_process_are_not_touched(environ: dict[str, str]) -> None:
    """Rule: LISTEN_PID must be ours (sd_listen_fds(3)); the variables go either way."""
    assert inherited_sockets(environ, PID) == ()
    assert environ == {}


def test_something_else_than_a_listening_unix_socket_is_refused(tmp_path: Path) -> None:
    """Rule: a wrong socket unit is an error that names the descriptor and what to mend."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        connected, other = socket.socketpair()
        stack.enter_context(connected)
        stack.enter_context(other)
        for wrong in (tcp, datagram, connected):
            environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(PID), "LISTEN_FDNAMES": "control"}
            with (
                passed_on(wrong.fileno()) as first,
                pytest.raises(ActivationError, match=rf"{first} \(control\).*ListenStream="),
            ):
                inherited_sockets(environ, PID, first)
        plain = stack.enter_context((tmp_path / "file").open("w"))
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(PID)}
        with (
            passed_on(plain.fileno()) as first,
            pytest.raises(
                ActivationError, match=rf"{first} \(.*not a socket|{first} \(.*non-socket"
            ),
        ):
            inherited_sockets(environ, PID, first)


def test_a_nonsensical_count_is_refused() -> None:
    """Rule: LISTEN_FDS must be a number."""
    with pytest.raises(ActivationError, match="LISTEN_FDS is 'two'"):
        inherited_sockets({"LISTEN_FDS": "two", "LISTEN_PID": str(PID)}, PID)


def test_systemds_own_activation_is_understood(tmp_path: Path) -> None:
    """Rule: a socket from systemd-socket-activate is found and served."""
    program = require_program("systemd-socket-activate")
    script = (
        "import os\n"
        "from transferd.supervisor import inherited_sockets\n"
        "(listening,) = inherited_sockets(os.environ, os.getpid())\n"
        "connection, _ = listening.accept()\n"
        "connection.sendall(b' '.join(key.encode() for key in os.environ if 'LISTEN' in key))\n"
        "connection.sendall(b'served')\n"
    )
    path = tmp_path / "activated"
    argv = [program, "--setenv", f"PYTHONPATH={ROOT}", "--listen", str(path), "--fdname", "control"]
    with subprocess.Popen(
        [*argv, sys.executable, "-c", script], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        # It says when it listens, and starts the program with the first connection.
        assert "Listening on" in process.stderr.readline()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(60)
            client.connect(str(path))
            assert client.makefile("rb").read() == b"served"
        process.communicate(timeout=60)
    assert process.returncode == 0
