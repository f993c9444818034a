"""A queue of a million jobs: what it costs a daemon to start with it, and to hold it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from tests.bench.footprint import memory_figures
from tests.bench.measure import Memory, memory, most, peak_resident
from tests.bench.result import Figure, Result, at_most, median
from tests.bench.site import MIB
from tests.bench.source import Source
from tests.bench.stage import Stage, daemon_in
from tests.support.daemon import DaemonProcess
from tests.support.store import settings
from transferd.model.job import FileSpec, JobId, JobSpec, Priority
from transferd.model.limits import Quota
from transferd.store.opening import QUEUE_FILE, open_store

JOBS = 1_000_000
_JOBS_IN_TRANSACTION = 5_000
#: Nobody listens on the port of `discard`.
_NOWHERE = "http://127.0.0.1:9"
#: What a start has left to do is done by then.
_SETTLED_SECONDS = 3.0


async def measure(stage: Stage) -> Result:
    """Start a daemon whose queue is long, and wait until its first job reaches its server."""
    source = Source(b"", answers=False)
    seen = _Seen()
    async with source.running():
        with stage.directory() as directory, daemon_in(directory) as daemon:
            began = time.monotonic()
            await _fill(daemon.state, source.url, stage.memory)
            filled = time.monotonic() - began
            for _ in range(stage.extent.pairs):
                await _start_and_stop(stage, daemon, source, seen)
            size = (daemon.state / QUEUE_FILE).stat().st_size
    limit = at_most(80.0)
    return Result(
        title=f"a queue of {JOBS:,} jobs",
        figures=[
            median("from the start to the first request", seen.starts, unit="s", bar=at_most(1.0)),
            *memory_figures("memory of the daemon", most(seen.taken), resident=limit, shared=limit),
            Figure(what="memory of the daemon, VmHWM", value=max(seen.peaks), unit="MiB"),
            median("an orderly stop", seen.stops, unit="s"),
            Figure(what="filling the queue", value=filled, unit="s"),
            Figure(what="the queue file", value=size / MIB, unit="MiB"),
        ],
    )


@dataclass
class _Seen:
    """What starts and stops have shown."""

    starts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    taken: list[Memory] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


async def _start_and_stop(stage: Stage, daemon: DaemonProcess, source: Source, seen: _Seen) -> None:
    source.forget()
    async with stage.quiet():
        began = time.monotonic()
        await asyncio.to_thread(daemon.start)
        await source.asked.wait()
        seen.starts.append(source.first_request - began)
        await asyncio.sleep(_SETTLED_SECONDS)
    seen.taken.append(memory(daemon.pid))
    seen.peaks.append(peak_resident(daemon.pid))
    began = time.monotonic()
    await asyncio.to_thread(daemon.stop)
    seen.stops.append(time.monotonic() - began)


async def _fill(state: Path, url: str, directory: Path) -> None:
    """Queue one job that can go on, and behind it jobs that wait until it is over.

    A lower priority gets nothing while a higher one has a job.
    """
    wait, none = settings(priority=Priority.LOW), Quota()
    async with open_store(state, new_id=lambda: JobId(str(uuid4()))) as store:
        first = FileSpec(remote=url, local=str(directory / "million"))
        wish = JobSpec(settings=settings(), files=(first,), start=True)
        now = datetime.now(UTC)
        await store.jobs.create(os.getuid(), [wish], now, quota=none)
        for begin in range(1, JOBS, _JOBS_IN_TRANSACTION):
            wishes = [
                JobSpec(settings=wait, files=(_nowhere(number, directory),), start=True)
                for number in range(begin, min(begin + _JOBS_IN_TRANSACTION, JOBS))
            ]
            await store.jobs.create(os.getuid(), wishes, now, quota=none)


def _nowhere(number: int, directory: Path) -> FileSpec:
    return FileSpec(remote=f"{_NOWHERE}/{number}", local=str(directory / f"never-{number}"))
