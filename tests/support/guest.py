"""A machine of its own under a real systemd: systemd-nspawn boots a tree of Debian as PID 1.

The guest shares the kernel with the tests and nothing else: processes, users, files, control groups
and the network are its own. Its network is loopback alone, and outlives reboots; a test serves
there with `guest.network.listen()`. Everything takes root; who is not, skips.

A reset is SIGKILL to PID 1: every process of the guest is gone at once, and so are /run and /tmp.
What was written stays, synced or not, since the kernel lives on. It shows that whatever the guest
does at its next start needs nothing that the last one did at its end; what a disk loses in a power
cut is shown elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.guest_disk import Disk, disk
from tests.support.netns import Network, network
from tests.support.servers import reject, require_program, require_root

_BOOT_SECONDS = 60.0
_END_SECONDS = 60.0
_COMMAND_SECONDS = 60.0
_CONSOLE_BYTES = 1_000_000
#: systemd-nspawn's exit status when its guest wants to be started again.
_REBOOT = 133
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_numbers = itertools.count(1)

# The guest's control groups are below one of its own, which goes with it. Standard input is a pipe
# from the tests: when they are gone, however they ended, the guest is powered off.
_SUPERVISE = """
home=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
group=$home/$1
shift
mkdir "$group" && echo $$ >"$group/cgroup.procs" || exit
exec 3<&0
"$@" </dev/null 3<&- &
nspawn=$!
{ read -r _ || kill $nspawn; } <&3 &
watch=$!
wait $nspawn
status=$?
kill $watch
echo $$ >"$home/cgroup.procs"
find "$group" -depth -type d -exec rmdir {} +
exit $status
"""


class GuestNotUp(Exception):
    """The guest did not boot, or not end; carries the end of what its console said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    status: int
    output: str
    #: Of standard error.
    complaints: str

    @property
    def lines(self) -> list[str]:
        """The output, line by line."""
        return self.output.splitlines()


class Guest:
    """One disk, and the machine that runs from it at the moment, if any."""

    def __init__(self, its_disk: Disk, its_network: Network, console: IO[bytes]) -> None:
        """*console*: file for what the guest says there."""
        self.disk = its_disk
        self.network = its_network
        self._console = console
        self._name = f"guest-{os.getpid()}-{next(_numbers)}"
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Start, and wait until systemd has started what it is to start.

        Raises:
            GuestNotUp: it ended before, or took too long.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(f"\0transferd-test-{self._name}")
            self._supervisor = self._spawn(f"@transferd-test-{self._name}")
            notices.settimeout(_BOOT_SECONDS)
            try:
                self._follow(notices)
            except TimeoutError:
                self.end()
                raise self._not_up("is not up") from None

    def _spawn(self, notices: str) -> subprocess.Popen[bytes]:
        nspawn = [
            *(require_program("systemd-nspawn"), "--quiet", "--boot"),
            *(f"--directory={self.disk.tree}", f"--machine={self._name}", "--settings=no"),
            *("--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"),
            *(f"--network-namespace-path={self.network.path}", "--link-journal=no"),
            *("--notify-ready=yes", "--console=pipe"),
        ]
        return subprocess.Popen(
            self.disk.command("sh", "-c", _SUPERVISE, "sh", self._name, *nspawn),
            stdin=subprocess.PIPE,
            stdout=self._console,
            stderr=self._console,
            env={"PATH": _PATH, "NOTIFY_SOCKET": notices},
            start_new_session=True,
        )

    def _follow(self, notices: socket.socket) -> None:
        """Read what systemd-nspawn tells until the guest is ready; it names PID 1 before."""
        while True:
            for line in notices.recv(4096).decode().splitlines():
                name, _, value = line.partition("=")
                if name == "X_NSPAWN_LEADER_PID":
                    self._leader = int(value)
                elif line == "READY=1":
                    return

    def run(
        self,
        *command: str,
        user: str = "root",
        say: str | bytes = "",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        seconds: float = _COMMAND_SECONDS,
    ) -> Done:
        """Run a command as a user of the guest, and wait for its end.

        Args:
            say: goes to its standard input.
            environment: beside HOME, USER and the like of that user.
            check: an exit status other than 0 fails the test.
        """
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self.command(*command, user=user, environment=environment),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        ) as process:
            given = say.encode() if isinstance(say, str) else say
            ended = True
            try:
                output, complaints = process.communicate(given, seconds)
            except subprocess.TimeoutExpired:
                ended = False
                kill_command(process.pid)
                output, complaints = process.communicate()
        said = Done(
            status=process.returncode, output=output.decode(), complaints=complaints.decode()
        )
        if not ended or (check and said.status != 0):
            how = f"status {said.status}" if ended else f"no end in {seconds} s"
            raise AssertionError(
                f"{' '.join(command)} as {user}: {how}\n{said.output}{said.complaints}"
            )
        return said

    def shell(
        self,
        script: str,
        *,
        user: str = "root",
        check: bool = True,
        seconds: float = _COMMAND_SECONDS,
    ) -> Done:
        """Run lines of shell as `run` does; the first one that fails ends them."""
        return self.run("bash", "-ec", script, user=user, check=check, seconds=seconds)

    def command(
        self, *command: str, user: str = "root", environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return what runs *command* in the guest, for who wants to be its parent."""
        assert self._supervisor is not None, "this guest does not run"
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        return [
            *("nsenter", f"--target={self._leader}", "--all", "--"),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"),
            *("env", "--chdir=/", f"PATH={_PATH}", "LC_ALL=C.UTF-8", *variables, *command),
        ]

    def path(self, inside: str | Path) -> Path:
        """Return where the tests find an absolute path of the guest's disk; not in /run or /tmp."""
        return self.disk.path(inside)

    def put(self, inside: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file of root's, with the directories above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def reboot(self) -> None:
        """Let systemd shut the guest down in order, and start it again."""
        self._shut_down("reboot", _REBOOT)
        self.boot()

    def power_off(self) -> None:
        """Let systemd shut the guest down in order."""
        self._shut_down("poweroff", 0)

    def _shut_down(self, verb: str, expected: int) -> None:
        # The command may be killed by what it has asked for.
        self.run("systemctl", verb, check=False)
        status = self._ended()
        if status != expected:
            raise self._not_up(f"ended with {status} instead of {expected} after {verb}")

    def reset(self) -> None:
        """End every process of the guest at once, and start it again."""
        self.end()
        self.boot()

    def end(self) -> None:
        """End every process of the guest at once; without a running guest, do nothing."""
        if self._supervisor is None:
            return
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        else:
            os.killpg(self._supervisor.pid, signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        assert self._supervisor is not None, "this guest does not run"
        with self._supervisor as supervisor:
            try:
                status = supervisor.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(supervisor.pid, signal.SIGKILL)
                raise self._not_up("does not end") from None
        self._supervisor, self._leader = None, 0
        return status

    def _not_up(self, what: str) -> GuestNotUp:
        said = os.pread(self._console.fileno(), _CONSOLE_BYTES, 0).decode(errors="replace")
        return GuestNotUp(f"the guest {what}; its console said: {said[-2000:]}")


def kill_command(pid: int) -> None:
    """End what was started with `Guest.command`, and has the process id *pid* outside.

    That is what took the command into the guest; it ends with its child, the command itself, and
    must not end before: the child would be somebody else's, who may never ask how it ended.
    """
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


@contextlib.contextmanager
def guest(*, people: Sequence[str] = ()) -> Iterator[Guest]:
    """Boot a fresh guest with accounts for *people*, and end it.

    Skips the test where root cannot make one, or fails it, as require_program.
    """
    require_root("a guest under systemd")
    with contextlib.ExitStack() as parts:
        try:
            its_disk, its_network = parts.enter_context(disk()), parts.enter_context(network())
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            reject(f"no guest can be made here: {error}")
        machine = Guest(its_disk, its_network, parts.enter_context(tempfile.TemporaryFile()))
        machine.boot()
        try:
            for name in people:
                machine.run("useradd", "--create-home", "--shell", "/bin/bash", name)
            yield machine
        finally:
            machine.end()
