"""A queue of a million jobs: what it costs a daemon to start with it, and to hold it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
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
#: So many of them by the store.
_MADE = 1000
_ID = "00000000-0000-4000-8000-%012x"
#: Nothing is lost that could not be made again.
_BULK = """
PRAGMA synchronous = OFF;
PRAGMA cache_size = -400000;
BEGIN;
"""
#: Nobody listens on the port of `discard`.
_NOWHERE = "http://127.0.0.1:9/never"
#: What a start has left to do is done by then.
_SETTLED_SECONDS = 3.0
_PATIENCE = 60.0
#: What is measured is the start, not the manners of a fleet.
_AT_ONCE = "[fleet]\nstart_spread_seconds = 0\n"


async def measure(stage: Stage) -> Result:
    """Start a daemon whose queue is long, and wait until its first job reaches its server."""
    source = Source(b"", answers=False)
    seen = _Seen()
    async with source.running():
        with stage.directory() as directory, daemon_in(directory, _AT_ONCE) as daemon:
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
        async with asyncio.timeout(_PATIENCE):
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
    wait, now = settings(priority=Priority.LOW), datetime.now(UTC)
    first = FileSpec(remote=url, local=str(directory / "million"))
    other = FileSpec(remote=_NOWHERE, local=str(directory / "never"))
    wishes = [JobSpec(settings=settings(), files=(first,), start=True)]
    wishes += [JobSpec(settings=wait, files=(other,), start=True)] * _MADE
    async with open_store(state, new_id=lambda: JobId(str(uuid4()))) as store:
        await store.jobs.create(os.getuid(), wishes, now, quota=Quota())
    await asyncio.to_thread(_multiply, state / QUEUE_FILE, JOBS - 1)


def _multiply(path: Path, wanted: int) -> None:
    """Repeat all jobs but the first until there are so many: the store would take minutes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_BULK)
        there = _MADE
        while there < wanted:
            new = min(there, wanted - there)
            number = f"number + {there}"
            others = {"number": number, "position": f"position + {there}"}
            others["id"] = f"printf('{_ID}', {number})"
            _repeat(connection, "jobs", others, f"number BETWEEN 2 AND {1 + new}")
            _repeat(connection, "files", {"job": f"job + {there}"}, f"job BETWEEN 2 AND {1 + new}")
            there += new
        connection.execute("UPDATE positions SET last = (SELECT max(position) FROM jobs)")
        connection.execute("COMMIT")


def _repeat(
    connection: sqlite3.Connection, table: str, others: Mapping[str, str], where: str
) -> None:
    """Insert rows of a table again, with other values in some columns."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(others.get(column, column) for column in columns)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {where}"  # noqa: S608
    )
