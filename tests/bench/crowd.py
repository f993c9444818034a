"""Many jobs at once from several clients.

    python -m tests.bench.crowd [--jobs N] [--clients N] [--kib SIZE]

Each client makes its share of the jobs as fast as the daemon answers, hears through its event
stream which are transferred, and completes them. Printed: how long it took, the latency of the API
as clients saw it, and the memory of daemon and worker before, at its most, and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import transferd
from tests.bench.measure import Peak, memory, percentiles
from tests.support.daemon import DaemonProcess
from tests.support.nginx import nginx
from tests.support.servers import public_directory

T = TypeVar("T")


async def client(number: int, jobs: int, url: str, directory: str) -> dict[str, list[float]]:
    """Make, follow and complete *jobs* jobs; returns latencies in milliseconds."""
    made: list[float] = []
    completed: list[float] = []
    waiting: dict[str, transferd.Job] = {}
    everything_made = asyncio.Event()
    finished = asyncio.Event()

    async def timed(call: Awaitable[T], into: list[float]) -> T:
        began = time.perf_counter()
        result = await call
        into.append((time.perf_counter() - began) * 1000)
        return result

    async with transferd.connect() as manager:

        async def follow() -> None:
            async for event in manager.events(kinds=["transferred"], after=0):
                if not isinstance(event, transferd.NoticeAnswer):
                    continue
                await everything_made.wait()
                job = waiting.pop(event.job.id, None)
                if job is not None:
                    await timed(job.complete(), completed)
                if not waiting:
                    finished.set()
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(follow())
            for index in range(jobs):
                local = f"{directory}/{number}-{index}"
                job = await timed(
                    manager.create_job(
                        f"crowd {number}-{index}",
                        files=[transferd.FileBody(remote=url, local=local)],
                        priority="foreground",
                        start=True,
                    ),
                    made,
                )
                waiting[job.id] = job
            everything_made.set()
            await finished.wait()
    return {"create": made, "complete": completed}


def main() -> None:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--kib", type=int, default=64)
    parser.add_argument("--one", nargs=3, metavar=("NUMBER", "URL", "DIR"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    share = chosen.jobs // chosen.clients
    if chosen.one:
        number, url, directory = chosen.one
        print(json.dumps(asyncio.run(client(int(number), share, url, directory))))
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        public_directory() as root,
        nginx(root) as server,
        DaemonProcess(Path(directory), config="") as daemon,
    ):
        body = os.urandom(chosen.kib * 1024)
        url = server.url(server.put(body))
        daemon.start()
        first = daemon.ctl("get", url, f"{directory}/first")
        assert first.returncode == 0, first.stderr
        before = (memory(daemon.pid).resident, memory(daemon.workers()[0]).resident)
        peak = Peak(daemon)
        peak.start()
        began = time.monotonic()
        base = [sys.executable, "-m", "tests.bench.crowd"]
        base += ["--jobs", str(chosen.jobs), "--clients", str(chosen.clients)]
        clients = [
            subprocess.Popen(
                [*base, "--one", str(number), url, directory],
                stdout=subprocess.PIPE,
                env=daemon.environment,
            )
            for number in range(chosen.clients)
        ]
        answers = [json.loads(process.communicate(timeout=500)[0]) for process in clients]
        took = time.monotonic() - began
        peak.stop()
        whole = sum(
            Path(f"{directory}/{number}-{index}").read_bytes() == body
            for number in range(chosen.clients)
            for index in range(share)
        )
        left = daemon.json("list")["jobs"]
        after = (memory(daemon.pid).resident, memory(daemon.workers()[0]).resident)
    made = [value for answer in answers for value in answer["create"]]
    completed = [value for answer in answers for value in answer["complete"]]
    print(f"{len(made)} jobs of {chosen.kib} KiB by {chosen.clients} clients in {took:.1f} s")
    print(f"whole files: {whole}; jobs left in the queue: {len(left)}")
    print(f"create:   {percentiles(made)}")
    print(f"complete: {percentiles(completed)}")
    for name, index, most in (("daemon", 0, peak.daemon_most), ("worker", 1, peak.worker_most)):
        print(
            f"memory of the {name}: {before[index]:.0f} MiB before,"
            f" {most.resident:.0f} at most, {after[index]:.0f} after"
        )


if __name__ == "__main__":
    main()
