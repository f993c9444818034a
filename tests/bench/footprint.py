"""What the daemon and its worker take: at rest, and with many connections."""

from __future__ import annotations

import asyncio
import time

from tests.bench.client import Client
from tests.bench.measure import Memory, Peak, exact_cpu_seconds, memory, voluntary_switches
from tests.bench.result import Bar, Figure, Result, at_most
from tests.bench.site import MIB
from tests.bench.stage import Stage, Subject
from tests.support.daemon import DaemonProcess

_LEAVES = "[worker]\nidle_seconds = 1\n"
_REST_SECONDS = 60.0
#: What a download has left to do is done by then.
_SETTLED_SECONDS = 3.0

CONNECTIONS = 64
_PACED_BYTES = 6 * MIB


# ── at rest ────────────────────────────────────────────────────────────────────────────────


async def at_rest(stage: Stage) -> Result:
    """Look at a daemon for a minute that has worked and has nothing to do."""
    with stage.daemon(_LEAVES) as daemon:
        async with Client.open(daemon.socket) as client:
            url = stage.url(stage.files.body("warm", MIB))
            await Subject(daemon, client, {}).warm_up(url, stage.memory)
        gone = await asyncio.to_thread(_left, daemon)
        await asyncio.sleep(_SETTLED_SECONDS)
        used, switches = exact_cpu_seconds(daemon.pid), voluntary_switches(daemon.pid)
        await asyncio.sleep(_REST_SECONDS)
        used = exact_cpu_seconds(daemon.pid) - used
        switches = voluntary_switches(daemon.pid) - switches
        taken = memory(daemon.pid)
    return Result(
        title="a daemon with nothing to do",
        figures=[
            *memory_figures("memory of the daemon", taken, shared=at_most(45.0)),
            Figure(what="CPU in a minute", value=used * 1000, unit="ms", bar=at_most(20.0)),
            Figure(what="waits in a minute", value=switches),
            Figure(what="the worker leaves after", value=gone, unit="s"),
        ],
    )


def _left(daemon: DaemonProcess) -> float:
    """Wait until the worker has left; returns after how many seconds."""
    began = time.monotonic()
    while daemon.workers():
        time.sleep(0.05)
    return time.monotonic() - began


# ── many connections ───────────────────────────────────────────────────────────────────────


async def connections(stage: Stage) -> Result:
    """Carry many jobs over https at once, each on one slow connection."""
    url = stage.url(stage.files.body("paced", _PACED_BYTES), tls=True, place="/paced/")
    places = [stage.memory / f"paced-{number}" for number in range(CONNECTIONS)]
    async with stage.subject(tls=True) as subject:
        before = memory(subject.daemon.workers()[0])
        peak = Peak(subject.daemon)
        async with stage.quiet():
            peak.start()
            downloads = asyncio.create_task(
                subject.download(*([(url, place)] for place in places), streams=1)
            )
            most = 0
            while not downloads.done():
                most = max(most, (await subject.client.states())["transferring"])
                await asyncio.sleep(0.1)
            peak.stop()
        await subject.finish((await downloads)[1])
    for place in places:
        place.unlink()
    limit = at_most(120.0)
    return Result(
        title=f"{CONNECTIONS} jobs over https at once, one connection each",
        figures=[
            *memory_figures("worker at its most", peak.worker_most, resident=limit, shared=limit),
            *memory_figures("worker before", before),
            *memory_figures("daemon at its most", peak.daemon_most),
            Figure(what="jobs that moved at once", value=most),
        ],
    )


def memory_figures(
    what: str, taken: Memory, *, resident: Bar | None = None, shared: Bar | None = None
) -> list[Figure]:
    """Return both ways of counting memory, the second one where it could be read."""
    counts = [(f"{what}, VmRSS", taken.resident, resident)]
    if taken.proportional is not None:
        counts.append((f"{what}, Pss", taken.proportional, shared))
    return [Figure(what=name, value=value, unit="MiB", bar=bar) for name, value, bar in counts]
