"""What is done at a bottleneck, and the figures that it gives.

| scenario | what happens |
|---|---|
| `share` | a foreground alone; a download alone; both; the download alone again |
| `proxied` | the same; and when does a job say that it paces its reads? |
| `late` | a download starts when a foreground has filled the buffer already |
| `requests` | short requests alone, then beside a download |
| `pair` | two downloads of one owner at once |
| `owners` | two downloads of two owners at once |
| `cpu` | a foreground job of transferd, then one of another priority |

Rates are in Mbit/s; delays are medians of echoes, in ms, and what they are more than on the empty
link; requests take ms, other times are in s. A download has yielded when it has less than a tenth
of the link, from the first bytes of the foreground on, and is back when it has nine tenths.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tests.lab.downloads import Download, JobDownload
from tests.lab.recorder import Recorder
from tests.lab.requests import requests
from tests.lab.scene import Scene
from tests.lab.series import Series, jain, latency
from tests.lab.topology import Role

#: Seconds of each part; where a flow starts, its ramp comes on top.
_IDLE, _GAP, _MEASURED, _RETURN = 1.0, 1.0, 5.0, 4.0
_LATE, _REQUESTS, _PAIR, _CPU = 10.0, 8.0, 20.0, 6.0
#: Of a link's capacity: who has less has yielded, who has more is back.
_YIELDED, _BACK = 0.10, 0.90
#: It takes a while until it shows that there is a proxy, and what that does.
_LONGER = 10.0
#: Between two questions why a job is no faster.
_LOOK = 0.1
_STARTED, _PACED = "download starts", "reads are paced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run has shown."""

    figures: Mapping[str, float]
    series: Series


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a run; measured from where its flows have found their rate."""

    begin: float
    measured: float
    end: float


Scenario: TypeAlias = Callable[[Scene, Download], Awaitable[Outcome]]


async def share(scene: Scene, download: Download) -> Outcome:
    """Measure a foreground without and with a download, and the download without it."""
    async with Recorder.running(scene.topology) as record:
        return await _share(scene, record, download)


async def proxied(scene: Scene, download: Download) -> Outcome:
    """Measure the same, and how soon a job says that it paces its reads."""
    async with Recorder.running(scene.topology) as record:
        watching = asyncio.create_task(_mark_paced(record, download))
        try:
            outcome = await _share(scene, record, download, longer=_LONGER)
        finally:
            watching.cancel()
    marks = {what: when for when, what in record.series.marks}
    said = marks.get(_PACED, math.inf) - marks[_STARTED]
    return Outcome(figures={**outcome.figures, "says that it paces in": said}, series=record.series)


async def late(scene: Scene, download: Download) -> Outcome:
    """Measure what a download does that has never seen the link empty."""
    async with Recorder.running(scene.topology) as record:
        await record.wait(_IDLE)
        with scene.foreground():
            record.mark("foreground starts")
            middle = await record.wait(scene.link.ramp + _MEASURED / 2)
            begin = await record.wait(_MEASURED / 2)
            record.mark("download starts")
            await download.start(Role.BACKGROUND)
            last = await record.wait(_LATE - _MEASURED)
            end = await record.wait(_MEASURED)
        await download.stop()
    series, capacity = record.series, scene.link.capacity
    before, after = Span(middle, middle, begin), Span(begin, last, end)
    first, then = (_rate(series, Role.FOREGROUND, span) for span in (before, after))
    arrived = series.began(Role.BACKGROUND, begin)
    figures = {
        "foreground kept": then / first,
        "download beside": _rate(series, Role.BACKGROUND, after),
        "yields for good in": series.settles(
            Role.BACKGROUND, _YIELDED * capacity, min(arrived, end), end
        ),
        "delay by the foreground": _delay(series, before),
        "delay by both": _delay(series, after),
    }
    return Outcome(figures=figures, series=series)


async def browsing(scene: Scene, download: Download) -> Outcome:
    """Measure short requests without and with a download."""
    async with Recorder.running(scene.topology) as record:
        await record.wait(_IDLE)
        alone = await requests(scene.topology, scene.site, _REQUESTS)
        record.mark("download starts")
        await download.start(Role.BACKGROUND)
        await record.wait(scene.link.ramp + _GAP)
        begin = record.mark("requests again")
        beside = await requests(scene.topology, scene.site, _REQUESTS)
        span = Span(begin, begin, record.now)
        await download.stop()
    figures = {
        "p95 beside ÷ alone": latency(beside, 95) / latency(alone, 95),
        "p50 alone": latency(alone, 50),
        "p95 alone": latency(alone, 95),
        "p50 beside": latency(beside, 50),
        "p95 beside": latency(beside, 95),
        "download beside": _rate(record.series, Role.BACKGROUND, span),
        "delay by both": _delay(record.series, span),
    }
    return Outcome(figures=figures, series=record.series)


async def pair(scene: Scene, download: Download) -> Outcome:
    """Measure how fairly two downloads share a link."""
    async with Recorder.running(scene.topology) as record:
        begin = await record.wait(_IDLE)
        await download.start(Role.BACKGROUND)
        await download.start(Role.SECOND)
        record.mark("both have started")
        measured = await record.wait(scene.link.ramp + _GAP)
        span = Span(begin, measured, await record.wait(_PAIR))
        await download.stop()
    rates = [_rate(record.series, role, span) for role in (Role.BACKGROUND, Role.SECOND)]
    figures = {
        "Jain index": jain(rates),
        "first": rates[0],
        "second": rates[1],
        "delay by both": _delay(record.series, span),
    }
    return Outcome(figures=figures, series=record.series)


async def cpu(scene: Scene, download: Download) -> Outcome:
    """Measure what pacing costs a worker."""
    assert isinstance(download, JobDownload), "only transferd's CPU is measured"
    async with Recorder.running(scene.topology) as record:
        await record.wait(_IDLE)
        unpaced = await _cost(scene, record, download, "foreground")
        await record.wait(_GAP)
        paced = await _cost(scene, record, download, None)
    figures = {
        "CPU ÷ that of a foreground job": paced / unpaced,
        "CPU s per GB": paced,
        "CPU s per GB of a foreground job": unpaced,
    }
    return Outcome(figures=figures, series=record.series)


async def _cost(
    scene: Scene, record: Recorder, download: JobDownload, priority: str | None
) -> float:
    await download.start(Role.BACKGROUND, priority)
    begin, used = await record.wait(scene.link.ramp), download.worker_seconds
    end = await record.wait(_CPU)
    used = download.worker_seconds - used
    await download.stop()
    return used / (record.series.rate(Role.BACKGROUND, begin, end) * (end - begin) / 1e9)


async def _share(
    scene: Scene, record: Recorder, download: Download, *, longer: float = 0.0
) -> Outcome:
    await record.wait(_IDLE)
    before = await _foreground(scene, record)
    await record.wait(_GAP)
    begin = record.mark(_STARTED)
    await download.start(Role.BACKGROUND)
    measured = await record.wait(scene.link.ramp)
    alone = Span(begin, measured, await record.wait(_MEASURED + longer))
    beside = await _foreground(scene, record, longer)
    end = await record.wait(_RETURN)
    await download.stop()
    series, capacity = record.series, scene.link.capacity
    arrived = series.began(Role.FOREGROUND, beside.begin)
    yields = series.falls(Role.BACKGROUND, _YIELDED * capacity, arrived, beside.end)
    returns = series.rises(Role.BACKGROUND, _BACK * capacity, beside.end, end)
    first, then = (_rate(series, Role.FOREGROUND, span) for span in (before, beside))
    background = _rate(series, Role.BACKGROUND, alone)
    figures = {
        "foreground kept": then / first,
        "foreground alone": first,
        "foreground beside": then,
        "download alone": background,
        "download beside": _rate(series, Role.BACKGROUND, beside),
        "download ÷ foreground, each alone": background / first,
        "yields in": yields,
        "is back in": returns,
        "delay by the foreground": _delay(series, before),
        "delay by the download": _delay(series, alone),
        "delay by both": _delay(series, beside),
    }
    return Outcome(figures=figures, series=series)


async def _mark_paced(record: Recorder, download: Download) -> None:
    if not isinstance(download, JobDownload):
        return
    while not await download.says("paced_reads"):
        await record.wait(_LOOK)
    record.mark(_PACED)


async def _foreground(scene: Scene, record: Recorder, longer: float = 0.0) -> Span:
    begin = record.mark("foreground starts")
    with scene.foreground():
        measured = await record.wait(scene.link.ramp)
        await record.wait(_MEASURED + longer)
        end = record.mark("foreground ends")
    return Span(begin, measured, end)


def _rate(series: Series, role: Role, span: Span) -> float:
    return series.rate(role, span.measured, span.end) * 8 / 1e6


def _delay(series: Series, span: Span) -> float:
    idle = series.delay(0, _IDLE)
    return (series.delay(span.measured, span.end) - idle) * 1000
