"""The daemon among other processes: its memory, and its descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import DaemonProcess
from tests.support.servers import require_program

_OPENED = """
import sys
for pid in sys.argv[1:]:
    for name in ("environ", "mem"):
        try:
            open(f"/proc/{pid}/{name}", "rb").close()
        except PermissionError:
            print(pid, name)
"""
#: Runs the daemon whose command line follows, as one that does not wait for long.
_IMPATIENT = """
import sys
import transferd.daemon
from transferd.__main__ import main
transferd.daemon._LOOK = 0.02
sys.exit(main(sys.argv[4:]))
"""


def powerless() -> list[str]:
    """What to put before a command, so that permissions bind it even if it is root's."""
    if os.geteuid() != 0:
        return []
    return [require_program("setpriv"), "--bounding-set", "-all", "--inh-caps", "-all"]


def refused_to_its_user(*pids: int) -> set[tuple[int, str]]:
    """What another process of this user cannot open of these."""
    command = [*powerless(), sys.executable, "-c", _OPENED, *map(str, pids)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused = (line.split() for line in done.stdout.splitlines())
    return {(int(pid), name) for pid, name in refused}


def test_nobody_reads_the_memory_of_the_daemon_or_its_worker(tmp_path: Path) -> None:
    """There are the key of the vault and passwords in it, and whatever its user runs is near."""
    daemon = DaemonProcess(tmp_path)
    with daemon.start(before=powerless()):
        daemon.json("get", "http://127.0.0.1:9/a", str(tmp_path / "a"), "--detach")
        (worker,) = daemon.workers()
        with subprocess.Popen([*powerless(), "sleep", "100"]) as other:
            try:
                refused = refused_to_its_user(daemon.pid, worker, other.pid)
            finally:
                other.kill()
        hidden = {(pid, name) for pid in (daemon.pid, worker) for name in ("environ", "mem")}
    assert refused - {(other.pid, "mem")} == hidden  # that one by Yama, perhaps


def test_a_daemon_on_demand_leaves_once_its_last_job_has_left(tmp_path: Path) -> None:
    """It waits for that, and does not look for it over and over meanwhile."""
    daemon = DaemonProcess(tmp_path)
    with daemon.start():
        job = daemon.json("create", "waits")["id"]
    with daemon.start("--on-demand", before=[sys.executable, "-c", _IMPATIENT]):
        for _ in range(3):  # each of them takes longer than its patience
            assert len(daemon.json("list")["jobs"]) == 1
        daemon.json("cancel", job)
        assert daemon.leaves() == 0
    assert "daemon.idle" in daemon.logged()


def test_callers_never_take_the_last_descriptor(tmp_path: Path) -> None:
    """More connections than the daemon may have descriptors: it works, and waits for room."""
    daemon = DaemonProcess(tmp_path)
    limited = ["sh", "-c", 'ulimit -n 200; exec "$0" "$@"']
    with daemon.start(before=limited), contextlib.ExitStack() as lines:
        early = lines.enter_context(socket.socket(socket.AF_UNIX))
        early.connect(str(daemon.socket))
        crowd = [lines.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(600)]
        for caller in crowd:
            caller.connect(str(daemon.socket))
        body = (
            b'{"name": "a", "files": [{"remote": "http://127.0.0.1:9/a", "local": "/nowhere/a"}]}'
        )
        early.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = early.recv(65536)
        assert b"local_directory_missing" in answer, (
            answer
        )  # says a worker, which was started for it
        assert daemon.logged().count("warning") == daemon.logged().count("api.full") == 1
        for caller in crowd:
            caller.close()
        assert daemon.json("list") == {"jobs": []}


def test_a_notification_command_gets_the_limit_that_the_daemon_was_started_with(
    tmp_path: Path,
) -> None:
    """The daemon and its workers raise theirs."""
    daemon = DaemonProcess(tmp_path)
    told = tmp_path / "told"
    os.mkfifo(told)
    with daemon.start(before=["sh", "-c", 'ulimit -S -n 300; exec "$0" "$@"']):
        daemon.json("create", "fails", "--no-progress-timeout", "0")
        command = f"/bin/sh -c 'ulimit -S -n > {told}'"
        daemon.json("notify", "fails", "--command", command)
        daemon.json("add", "fails", "http://127.0.0.1:9/a", str(tmp_path / "a"))
        daemon.json("resume", "fails")
        assert told.read_text() == "300\n"
        daemon.json("cancel", "fails")
