"""How soon the daemon answers while it works, and how soon its client hears that work is done."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import transferd
from tests.bench.client import Line, job
from tests.bench.measure import percentile
from tests.bench.result import Figure, Result, at_most, median
from tests.bench.site import MIB
from tests.bench.source import Source
from tests.bench.stage import Stage, Subject

#: Seconds between two submissions.
_PACE = 0.02
#: Samples for each pair.
_SUBMISSIONS = 100
_CALLBACKS = 10
_CALLBACK_BYTES = 4 * MIB
#: A job that fails calls nobody back.
_PATIENCE = 60.0


# ── submissions ────────────────────────────────────────────────────────────────────────────


async def submissions(stage: Stage) -> Result:
    """Make suspended jobs of one file, at a steady pace, while a large body moves."""
    samples: list[float] = []
    url = stage.url(stage.body())
    async with stage.subject() as subject:
        while len(samples) < _SUBMISSIONS * stage.extent.pairs:
            place = stage.memory / "moving"
            async with stage.quiet():
                samples += await _submit_beside(subject, url, place)
            place.unlink()
    return Result(
        title="submitting a job while a body moves at full speed",
        figures=[
            _percentile("answer, p50", samples, 50, limit=3.0),
            _percentile("answer, p99", samples, 99, limit=15.0),
            Figure(what="answer, slowest", value=max(samples), unit="ms"),
        ],
    )


async def _submit_beside(subject: Subject, url: str, place: Path) -> list[float]:
    """Submit until a download is over; returns milliseconds, in the end all jobs are gone."""
    client, moving = subject.client, job([(url, place)])
    line = await Line.open(subject.daemon.socket)
    download = asyncio.create_task(client.submit([moving]))
    samples: list[float] = []
    made: list[str] = []
    due = time.monotonic()
    while not download.done():
        wish = job([(url, place.with_name(f"never-{len(made)}"))], start=False)
        body = msgspec.json.encode(wish)
        began = time.monotonic()
        await line.ask("POST", "/v1/jobs", body)
        samples.append((time.monotonic() - began) * 1000)
        made.append(str(wish.id))
        due = max(due + _PACE, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    line.close()
    await subject.finish(await download)
    for job_id in made:
        await client.act(job_id, "cancel")
    return samples


# ── callbacks ──────────────────────────────────────────────────────────────────────────────


async def callbacks(stage: Stage) -> Result:
    """Time from a file's last byte to its job's callback, and how much of it a sync takes."""
    samples, syncs = await _called_back(stage, stage.disk)
    beyond = [late - sync for late, sync in zip(samples, syncs, strict=True)]
    in_memory, _ = await _called_back(stage, stage.memory)
    return Result(
        title=f"from the last byte of {_CALLBACK_BYTES // MIB} MiB to the callback",
        figures=[
            Figure(
                what="on disk, beyond the file's fsync, p50",
                value=percentile(samples, 50) - percentile(syncs, 50),
                unit="ms",
                bar=at_most(10.0),
                values=tuple(beyond),
            ),
            median("on disk, all of it, p50", samples, unit="ms"),
            _percentile("on disk, all of it, p99", samples, 99),
            median("an fsync of that much, p50", syncs, unit="ms"),
            median("in memory, p50", in_memory, unit="ms"),
        ],
    )


async def _called_back(stage: Stage, directory: Path) -> tuple[list[float], list[float]]:
    """Return milliseconds of downloads, and those of syncing as much as each."""
    source = Source(os.urandom(_CALLBACK_BYTES))
    samples, syncs = [], []
    async with (
        source.running(),
        stage.subject() as subject,
        transferd.connect(subject.daemon.socket) as manager,
    ):
        for _ in range(_CALLBACKS * stage.extent.pairs):
            async with stage.quiet():
                samples.append(await _call_back(manager, source, directory / "file"))
                syncs.append(_sync(directory / "synced"))
    return samples, syncs


async def _call_back(manager: transferd.Manager, source: Source, place: Path) -> float:
    called: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def callback(job: transferd.Job, notice: transferd.NoticeAnswer) -> None:
        if not called.done():
            called.set_result(time.monotonic())

    source.forget()
    made = await manager.create_job("callback", priority="foreground")
    await made.add_file(source.url, place)
    await made.set_notify(on_transferred=callback)
    await made.resume()
    async with asyncio.timeout(_PATIENCE):
        late = (await called - source.last_byte) * 1000
    await made.complete()
    return late


def _sync(path: Path) -> float:
    with path.open("wb") as file:
        file.write(os.urandom(_CALLBACK_BYTES))
        file.flush()
        began = time.monotonic()
        os.fsync(file.fileno())
        took = time.monotonic() - began
    path.unlink()
    return took * 1000


def _percentile(
    what: str, values: Sequence[float], percent: int, limit: float | None = None
) -> Figure:
    return Figure(
        what=what,
        value=percentile(values, percent),
        unit="ms",
        bar=None if limit is None else at_most(limit),
        values=tuple(values),
    )
