"""A real daemon as a child process, and the command line beside it.

Readiness is the daemon's own word on its notify socket, so that nothing here guesses or polls.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_START_SECONDS = 20.0
_STOP_SECONDS = 15.0
#: Short waits, so that tests see retries without waiting for them.
CONFIG = """
[queue]
min_retry_delay_seconds = 1
soon_seconds = 0.05
space_seconds = 0.2
[fleet]
start_spread_seconds = 0
[notices]
redeliver_seconds = 0.5
modification_seconds = 0.05
[network]
connect_timeout_seconds = 5
stall_window_seconds = 5
[durability]
seconds = 0.1
"""
#: What systemd does between fork and exec: the socket is descriptor 3, the variables say so.
_ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class DaemonProcess:
    """One state directory and socket, and the daemon that serves them at the moment, if any."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        self.directory = directory
        self.socket = directory / "transferd.sock"
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self.config = directory / "transferd.toml"
        self.config.write_text(config, encoding="utf-8")
        #: For clients and for the daemon, beside those of the tests.
        self.variables: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._notices: socket.socket | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a client."""
        plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        own = {"TRANSFERD_SOCKET": str(self.socket), "COLUMNS": "100"}
        return plain | own | self.variables

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str, inherit: int | None = None, before: Sequence[str] = ()) -> Self:
        """Start the daemon and wait until it says that it is ready.

        It inherits the listening socket *inherit* as from a service manager, where one is given,
        and is executed by the command *before*.
        """
        ready = self.directory / "notify"
        ready.unlink(missing_ok=True)
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(ready))
        self._notices.settimeout(_START_SECONDS)
        self._process = self.spawn(
            *options, inherit=inherit, before=before, NOTIFY_SOCKET=str(ready)
        )
        try:
            self.hears()
        except TimeoutError:
            self.stop()
            raise AssertionError(f"the daemon did not start:\n{self.logged()}") from None
        return self

    def reload(self, config: str) -> list[str]:
        """Have the daemon read another configuration; what it says of that, to its last word."""
        self.config.write_text(config, encoding="utf-8")
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        return self.hears()

    def hears(self) -> list[str]:
        """Wait until the daemon says that it is ready (again); all that it has said by then."""
        assert self._notices is not None
        heard: list[str] = []
        while "READY=1" not in heard:
            heard += self._notices.recv(4096).decode().split("\n")
        return heard

    def spawn(
        self,
        *options: str,
        inherit: int | None = None,
        before: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a daemon for this state directory without waiting for anything."""
        command = [sys.executable, "-m", "transferd", "--socket", str(self.socket)]
        if inherit is not None:
            command[1:1] = ["-c", _ACTIVATED, str(inherit), sys.executable]
        command += ["--state-dir", str(self.state), "--config", str(self.config), *options]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*before, *command],
                stderr=log,
                stdout=log,
                env=self.environment | variables,
                pass_fds=() if inherit is None else (inherit,),
            )

    def kill(self) -> None:
        """End the daemon as a power cut would: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the daemon as systemd would: SIGTERM. Returns its exit status."""
        return self._end(signal.SIGTERM)

    def leaves(self) -> int:
        """Wait until the daemon ends by itself; returns its exit status."""
        assert self._process is not None
        return self._process.wait(_STOP_SECONDS)

    def workers(self) -> list[int]:
        """The ids of the daemon's worker processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def ctl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run transferctl to its end."""
        return subprocess.run(
            [sys.executable, "-m", "transferd.cli", *arguments],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=100,
            check=False,
        )

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run transferctl with --json and return its one document; it must succeed."""
        done = self.ctl(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{self.logged()}"
        return json.loads(done.stdout)

    def logged(self) -> str:
        """Everything that daemon and workers wrote to their log."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the daemon did not stop:\n{self.logged()}") from None
        finally:
            if self._notices is not None:
                self._notices.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
