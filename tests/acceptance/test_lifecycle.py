"""The daemon as a process: one per state directory, clean stops, dirty ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import transferd
from tests.bench.survival import MIB, query, survive
from tests.support.daemon import DaemonProcess
from tests.support.origin import Document, Fault, Origin, Version

#: Of the one job in the queue.
OFFSET = "SELECT bytes_transferred FROM jobs"
BODY = os.urandom(3_000_000)
#: What the first three descriptors are once the daemon has begun, told to the tenth. (Those of a
#: running one are nobody's business but root's.)
_DESCRIPTORS = """
import contextlib, os
from transferd.__main__ import main
with contextlib.suppress(SystemExit):
    main(["--version"])
os.write(9, " ".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)).encode())
"""
#: Where the daemon would listen and keep its state, and its working directory.
_DIRECTORIES = """
import os, sys
import transferd.__main__ as program
class Daemon:
    def __init__(self, options, *_):
        print(options.socket, options.state)
    async def run(self):
        print(os.getcwd())
program.Daemon = Daemon
program.main(sys.argv[1:])
"""


def test_a_second_daemon_on_one_state_directory_refuses(daemon: DaemonProcess) -> None:
    """Two daemons would both dispatch every job."""
    second = daemon.spawn()
    assert second.wait(20) == 3
    assert f"another daemon (pid {daemon.pid}) holds" in daemon.logged()
    assert daemon.json("list") == {"jobs": []}


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that a dead daemon left behind is no obstacle; a clean stop leaves none."""
    daemon = DaemonProcess(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(daemon.socket))
    with daemon.start():
        assert daemon.json("list") == {"jobs": []}
    assert not daemon.socket.exists()


def test_a_damaged_queue_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Never an empty queue in place of a broken one."""
    daemon = DaemonProcess(tmp_path)
    with daemon.start():
        daemon.json("create", "precious")
    queue = daemon.state / "queue.db"
    damaged = b"\0" * 200 + queue.read_bytes()[200:]
    queue.write_bytes(damaged)
    assert daemon.spawn().wait(20) == 1
    assert str(queue) in daemon.logged()
    assert queue.read_bytes() == damaged


def test_the_socket_can_be_inherited(tmp_path: Path) -> None:
    """Socket activation: the manager's socket is served, and is not removed at the end."""
    daemon = DaemonProcess(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(daemon.socket))
        listening.listen()
        os.set_inheritable(listening.fileno(), True)
        with daemon.start(inherit=listening.fileno()):
            assert daemon.json("list") == {"jobs": []}
        assert daemon.socket.exists()


def test_closed_standard_streams_are_no_obstacle(tmp_path: Path) -> None:
    """Nothing that the daemon opens gets the numbers 0 to 2, where a stray line would go."""
    daemon = DaemonProcess(tmp_path)
    closed = ["sh", "-c", 'exec "$0" "$@" 9>&1 <&- >&- 2>&-']
    with daemon.start(before=closed):
        assert daemon.json("list") == {"jobs": []}
    done = subprocess.run(
        [*closed, sys.executable, "-c", _DESCRIPTORS],
        env=daemon.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["/dev/null"] * 3


def test_the_daemon_leaves_the_directory_that_it_was_started_in(tmp_path: Path) -> None:
    """It may be removed or unmounted; names in the command line are relative to it all the same."""
    done = subprocess.run(
        [sys.executable, "-c", _DIRECTORIES, "--socket", "a", "--state-dir", "b"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "a"), str(tmp_path / "b"), "/"]


async def test_a_clean_stop_keeps_every_byte_that_had_arrived(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """SIGTERM: offsets are durable when the daemon has ended, within five seconds."""
    document = Document(version=Version(body=BODY))
    document.faults.append(Fault(stall=2_000_000))
    origin = Origin()
    origin.pages["/file"] = document
    async with origin.running(), transferd.connect(daemon.socket) as manager:
        job = await manager.create_job("stop")
        await job.add_file(origin.url("/file"), str(tmp_path / "file"))
        await job.resume()
        async for event in manager.events(kinds=["modification"], after=0):
            assert isinstance(event, transferd.NoticeAnswer)
            if event.job.bytes_transferred == 2_000_000:
                break
        status = await asyncio.wait_for(asyncio.to_thread(daemon.stop), 5)
        assert status == 0
        assert query(daemon.state, OFFSET) == (2_000_000,)
        document.go.set()
        await asyncio.to_thread(daemon.start)
        await job.wait(timeout=30)
        await job.complete()
    assert [seen.range_start for seen in origin.requests("/file")] == [None, 2_000_000]
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("victim", ["worker", "daemon"])
async def test_nothing_durable_is_asked_for_again_after_a_kill(
    daemon: DaemonProcess, tmp_path: Path, victim: str
) -> None:
    """Promise 2, 3: the final name appears when the file is whole, and not before."""
    document = Document(version=Version(body=BODY))
    document.faults.append(Fault(stall=2_000_000))
    origin = Origin()
    origin.pages["/file"] = document
    async with origin.running(), transferd.connect(daemon.socket) as manager:
        job = await manager.create_job("kill")
        await job.add_file(origin.url("/file"), str(tmp_path / "file"))
        await job.resume()
        await document.stalled.wait()
        async for _ in manager.events(kinds=["modification"], after=0):
            # What the events tell is ahead of what is durable.
            if query(daemon.state, OFFSET) == (2_000_000,):
                break
        if victim == "worker":
            os.kill(daemon.workers()[0], signal.SIGKILL)
        else:
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
        document.go.set()
        await job.wait(timeout=30)
        assert not (tmp_path / "file").exists()
        await job.complete()
    starts = [seen.range_start for seen in origin.requests("/file")]
    assert starts == [None, 2_000_000]
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.server("nginx")
@pytest.mark.timeout(180)
def test_a_download_survives_being_killed_again_and_again(tmp_path: Path) -> None:
    """The small form of tests/bench/survival.py."""
    seen = survive(size=30 * MIB, kills=2, rate=8, seed=7, directory=tmp_path)
    assert (seen.worker_kills, seen.daemon_kills) == (2, 2)
    assert seen.equal
    assert not seen.repeated
    assert len(seen.acknowledged) == 1
    assert seen.notices == (1, 1)
