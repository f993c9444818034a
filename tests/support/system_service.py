"""`transferd --system` as a real process for several users, and its clients as those users.

    with people() as machine, SystemService(machine).start() as service:
        alice = service.client(machine.alice)
        job = alice.json("get", url, str(machine.alice.home / "a"), "--detach")   # transferctl
        alice.ctl("list").returncode
        alice.curl("/v1/jobs")                                # (status, body as JSON or None)
        alice.python("...code that uses TRANSFERD_SOCKET...")
        service.workers(machine.alice)                        # pids of alice's worker, one or none
        service.kill(); service.start()                       # as after a crash

The daemon runs as its own user with the ambient capabilities that its unit gives it, or, with
`powers=None`, as root by hand. Its users are those of `tests.support.people`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.daemon import CONFIG, DaemonProcess
from tests.support.netns import Network
from tests.support.people import Machine, Person
from tests.support.servers import require_program

#: What the unit gives to the daemon.
POWERS = ("setuid", "setgid", "kill", "setpcap")
#: In the daemon's environment, and nowhere else.
CANARY = "TRANSFERD_TEST_CANARY"


class Client:
    """One person in front of the service."""

    def __init__(self, machine: Machine, person: Person, socket: Path) -> None:
        self.person = person
        self._machine = machine
        self._socket = socket
        self._variables = {"TRANSFERD_SOCKET": str(socket), "COLUMNS": "100"}

    def ctl(
        self, *arguments: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run transferctl to its end."""
        argv = (sys.executable, "-I", "-m", "transferd.cli", *arguments)
        given = self._variables | variables
        return self._machine.run(self.person, *argv, stdin=stdin, variables=given)

    def json(self, *arguments: str, stdin: str = "", **variables: str) -> Any:
        """Run transferctl with --json and return its one document; it must succeed."""
        done = self.ctl(*arguments, "--json", stdin=stdin, **variables)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return json.loads(done.stdout)

    def curl(self, path: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
        """Send one request; returns the status, and the body where it is JSON."""
        argv = [require_program("curl"), "-sS", "--unix-socket", str(self._socket), "-X", method]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        argv += ["-w", "\n%{http_code}", f"http://transferd{path}"]
        done = self._machine.run(self.person, *argv, check=True)
        text, _, status = done.stdout.rpartition("\n")
        try:
            return int(status), json.loads(text)
        except ValueError:
            return int(status), None

    def python(self, code: str, *arguments: str) -> str:
        """Run Python code with the socket in its environment; returns what it printed."""
        return self._machine.python(self.person, code, *arguments, variables=self._variables)


class SystemService(DaemonProcess):
    """The service of a machine: one state directory and socket, and the daemon at the moment."""

    def __init__(
        self,
        machine: Machine,
        config: str = CONFIG,
        *,
        powers: Sequence[str] | None = POWERS,
        options: Sequence[str] = (),
        name: str = "service",
        network: Network | None = None,
    ) -> None:
        """*powers*: what the daemon's own user gets; None: root starts it, with all there is.

        *options* come before those of `start`; `--config` names a file with *config*. Socket, state
        and log are in a directory of that *name*, which may have been another service's before. It
        runs in *network*, where one is given.
        """
        directory = machine.directory / name
        directory.mkdir(exist_ok=True)
        super().__init__(directory, config)
        self.machine = machine
        self.person = machine.root if powers is None else machine.service
        self._powers = powers
        self._options = options
        self._network = network
        self.socket = self._own("run", 0o755) / "transferd.sock"
        self.state = self._own("state", 0o700)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the daemon."""
        return self.machine.environment(self.person, **{CANARY: "sings"})

    def client(self, person: Person) -> Client:
        """Return somebody who uses the service."""
        return Client(self.machine, person, self.socket)

    def ctl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run transferctl as root to its end."""
        return self.client(self.machine.root).ctl(*arguments, stdin=stdin or "")

    def workers(self, person: Person | None = None) -> list[int]:
        """The ids of worker processes, of one person's or of everybody's."""
        found = super().workers()
        if person is None:
            return found
        return [pid for pid in found if status(pid)["Uid"].split()[0] == str(person.uid)]

    def spawn(
        self,
        *options: str,
        inherit: int | None = None,
        before: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a daemon without waiting for anything."""
        if ready := variables.get("NOTIFY_SOCKET"):
            Path(ready).chmod(0o666)
        network = self._network.command if self._network is not None else ()
        wrapped = [*network, *self.machine.command(), *self._become(), *before]
        more = ("--system", *self._options, *options)
        return super().spawn(*more, inherit=inherit, before=wrapped, **variables)

    def _become(self) -> list[str]:
        if self._powers is None:
            return []
        person, setpriv = self.machine.service, require_program("setpriv")
        powers = ",".join(["-all", *(f"+{power}" for power in self._powers)])
        ids = [f"--reuid={person.uid}", f"--regid={person.gid}", "--clear-groups"]
        return [
            *(setpriv, *ids, f"--inh-caps={powers}", f"--ambient-caps={powers}"),
            *(f"--bounding-set={powers}", "--"),
        ]

    def _own(self, name: str, mode: int) -> Path:
        made = self.directory / name
        made.mkdir(exist_ok=True)
        made.chmod(mode)
        os.chown(made, self.person.uid, self.person.gid)
        return made


def status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process (/proc/PID/status), without the name of the unit."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"(?m)^(\w+):[ \t]*(.*?)[ \t]*$", text))
