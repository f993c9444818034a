"""A download that is killed again and again: worker and daemon, at random moments.

    python -m tests.bench.survival [--mib N] [--kills N] [--rate MIB] [--seed N]

Shows: the bytes are equal; no request asks for a byte below the offset that was durable before it;
one `transferred` notice, acknowledged once, by a client that was killed and started anew meanwhile.
The acceptance test runs it small.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

import transferd
from tests.support.daemon import DaemonProcess
from tests.support.nginx import configured
from tests.support.servers import Server, public_directory

MIB = 1024 * 1024
_CONFIGURATION = """
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    {common}
    log_format range '$msec $request_time $http_range';
    server {{
        listen 127.0.0.1:{port};
        root {root};
        access_log %(log)s range;
        location / {{ limit_rate %(rate)dm; }}
    }}
}}
"""


@dataclass
class Survival:
    """What was seen."""

    worker_kills: int = 0
    daemon_kills: int = 0
    client_kills: int = 0
    #: Moment and durable offset after each kill.
    durable: list[tuple[float, int]] = field(default_factory=list)
    #: Moment and first byte of each request, as the server saw it.
    requests: list[tuple[float, int]] = field(default_factory=list)
    equal: bool = False
    #: Notices that clients said they acknowledged.
    acknowledged: list[str] = field(default_factory=list)
    #: `transferred` notices in the outbox, and how many of them are settled.
    notices: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    @property
    def repeated(self) -> list[tuple[int, int]]:
        """Return (first byte, durable offset) of each request for what was durable before it."""
        found = []
        for began, start in self.requests:
            known = max((offset for moment, offset in self.durable if moment < began), default=0)
            if start < known:
                found.append((start, known))
        return found


def query(state: Path, statement: str) -> tuple[int, ...]:
    """Return the one row of a question to the queue file, as another process sees it."""
    uri = f"file:{state / 'queue.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        row = connection.execute(statement).fetchone()
    return tuple(int(value or 0) for value in row)


@contextlib.contextmanager
def ranged_nginx(root: Path, rate: int, log: Path) -> Iterator[Server]:
    """Serve *root* at *rate* MiB/s a connection, and log which range each request asked for."""
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    configuration = _CONFIGURATION % {"rate": rate, "log": log}
    with configured(configuration, root, authority, identity) as server:
        yield server


def _requests(log: Path) -> list[tuple[float, int]]:
    found = []
    for line in log.read_text(encoding="ascii").splitlines():
        ended, took, asked = line.split(" ", 2)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked.startswith("bytes=") else 0
        found.append((float(ended) - float(took), start))
    return found


class Client:
    """A program with a registered callback, in a process of its own."""

    def __init__(self, daemon: DaemonProcess, job_id: str) -> None:
        self._daemon = daemon
        self._command = [sys.executable, "-m", "tests.bench.survival", "--listen", job_id]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, env=self._daemon.environment, text=True
        )

    def kill(self) -> None:
        """End it at once and start it anew."""
        self._process.kill()
        self._process.communicate()
        self._process = self._start()

    def heard(self) -> list[str]:
        """Wait for its end and return what it acknowledged."""
        out, _ = self._process.communicate(timeout=300)
        return out.split()


async def listen(job_id: str) -> None:
    """Hear of one job until it is transferred, acknowledge, and say which notice it was."""
    done = asyncio.Event()

    async def transferred(_job: transferd.Job, notice: transferd.NoticeAnswer) -> None:
        print(notice.number, flush=True)
        done.set()

    while not done.is_set():
        # The daemon may be dead at this moment; it comes back.
        with contextlib.suppress(transferd.NoDaemon):
            async with transferd.connect() as manager:
                job = await manager.job(job_id)
                await job.set_notify(on_transferred=transferred)
                await done.wait()
        await asyncio.sleep(0.05)


def harry(daemon: DaemonProcess, client: Client, kills: int, chance: random.Random) -> Survival:
    """Kill worker and daemon *kills* times each, in random order and at random moments."""
    seen = Survival()
    order = ["worker"] * kills + ["daemon"] * kills
    chance.shuffle(order)
    dead = 0
    for number, victim in enumerate(order):
        worker = _worker(daemon, but=dead)
        dead = 0
        # A random moment is what is tested; there is nothing to wait for.
        time.sleep(chance.uniform(0.3, 2.0))
        if victim == "worker":
            os.kill(worker, signal.SIGKILL)
            dead = worker
            seen.worker_kills += 1
        else:
            daemon.kill()
            seen.daemon_kills += 1
        (offset,) = query(daemon.state, "SELECT sum(bytes_transferred) FROM jobs")
        seen.durable.append((time.time(), offset))
        if victim == "daemon":
            daemon.start()
        if number % max(1, kills // 2) == 0:
            client.kill()
            seen.client_kills += 1
    return seen


def _worker(daemon: DaemonProcess, but: int) -> int:
    """Return the worker's id, once there is one that was not killed just now."""
    for _ in range(1000):
        if found := [pid for pid in daemon.workers() if pid != but]:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no worker was started:\n{daemon.logged()}")


def survive(size: int, kills: int, rate: int, seed: int, directory: Path) -> Survival:
    """Download *size* bytes while being killed; everything that was seen."""
    began = time.monotonic()
    place, log = directory / "download", directory / "ranges.log"
    block = random.Random(seed).randbytes(MIB)  # noqa: S311 - content, not a secret
    with public_directory() as root, DaemonProcess(directory) as daemon:
        with (root / "file").open("wb") as file:
            for index in range(0, size, MIB):
                file.write(index.to_bytes(8, "big") + block[: min(MIB, size - index) - 8])
        with ranged_nginx(root, rate, log) as server:
            daemon.start()
            job = daemon.json("create", "survival")["id"]
            daemon.json("add", job, server.url("/file"), str(place))
            daemon.json("resume", job)
            client = Client(daemon, job)
            seen = harry(daemon, client, kills, random.Random(seed))  # noqa: S311
            seen.acknowledged = client.heard()
            daemon.json("complete", job)
            seen.notices = (
                query(daemon.state, "SELECT count(*) FROM notices WHERE kind = 1")[0],
                query(daemon.state, "SELECT count(*) FROM notices WHERE kind = 1 AND settled")[0],
            )
            seen.requests = _requests(log)
        with (root / "file").open("rb") as sent, place.open("rb") as got:
            digests = [hashlib.file_digest(file, "sha256").digest() for file in (sent, got)]
        seen.equal = digests[0] == digests[1]
    seen.seconds = time.monotonic() - began
    return seen


def main() -> None:
    """Run it and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=int, default=24, help="MiB/s of the server")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--listen", metavar="JOB", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.listen:
        asyncio.run(listen(chosen.listen))
        return
    with tempfile.TemporaryDirectory() as directory:
        seen = survive(chosen.mib * MIB, chosen.kills, chosen.rate, chosen.seed, Path(directory))
    print(f"seed {chosen.seed}: {chosen.mib} MiB in {seen.seconds:.0f} s")
    print(
        f"killed: worker {seen.worker_kills} times, daemon {seen.daemon_kills} times,"
        f" client {seen.client_kills} times"
    )
    offsets = ", ".join(f"{offset / MIB:.0f}" for _, offset in seen.durable)
    print(f"durable offsets at the kills (MiB): {offsets}")
    print(f"requests: {len(seen.requests)}, of them below a durable offset: {len(seen.repeated)}")
    print(f"`transferred` notices: {seen.notices[0]}, settled: {seen.notices[1]};", end=" ")
    print(f"acknowledged by the client: {seen.acknowledged}")
    print(f"bytes equal: {seen.equal}")


if __name__ == "__main__":
    main()
