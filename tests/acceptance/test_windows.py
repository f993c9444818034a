"""A real daemon waits for another link and for another hour, and says so.

The NetworkManager is a fake: see tests/support/bus.py.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import transferd
from tests.support.bus import network_manager, private_bus
from tests.support.daemon import CONFIG, DaemonProcess
from tests.support.origin import Document, Origin, Version

BODY = b"worth waiting for\n"
#: Closed all week, but for an hour that is not near.
_CLOSED = """
[schedule]
time_zone = "UTC"
[[schedule.periods]]
kind = "work"
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
from = "{start:%H:%M}"
to = "{end:%H:%M}"
[schedule.other]
low_bytes_per_second = 0
"""


def origin_of(*names: str) -> Origin:
    """A server of small files."""
    origin = Origin()
    for name in names:
        origin.pages[f"/{name}"] = Document(version=Version(body=BODY))
    return origin


async def test_a_background_job_waits_for_a_link_that_costs_nothing(tmp_path: Path) -> None:
    """BITS B8, end to end: by D-Bus, to the word of `why` and the first byte."""
    origin = origin_of("back", "front")
    async with (
        private_bus(tmp_path) as bus,
        network_manager(bus.address, 3) as manager_of_networks,
        origin.running(),
    ):
        with DaemonProcess(tmp_path) as daemon:
            daemon.variables["DBUS_SYSTEM_BUS_ADDRESS"] = bus.address
            await asyncio.to_thread(daemon.start)
            async with transferd.connect(daemon.socket) as manager:
                back = await manager.create_job("back", auto_complete=True)
                await back.add_file(origin.url("/back"), str(tmp_path / "back.txt"))
                await back.resume()
                front = await manager.create_job("front", priority="foreground")
                await front.add_file(origin.url("/front"), str(tmp_path / "front.txt"))
                await front.resume()
                await front.wait(timeout=20)
                told = await asyncio.to_thread(daemon.ctl, "why", "back")
                assert told.stdout.startswith("metered: the connection is metered")
                assert origin.requests("/back") == []
                await manager_of_networks.become(4)
                await back.wait(timeout=20, until="ended")
    assert (tmp_path / "back.txt").read_bytes() == BODY


async def test_a_schedule_that_is_read_again_opens_at_once(tmp_path: Path) -> None:
    """BITS B5: `why` names the hour; a reload that lifts the limit is not waited for."""
    now = datetime.now(UTC)
    opens = now + timedelta(hours=2)
    closed = CONFIG + _CLOSED.format(start=opens, end=opens + timedelta(hours=1))
    origin = origin_of("night")
    with DaemonProcess(tmp_path, closed) as daemon:
        await asyncio.to_thread(daemon.start)
        async with origin.running(), transferd.connect(daemon.socket) as manager:
            job = await manager.create_job("night", priority="low", auto_complete=True)
            await job.add_file(origin.url("/night"), str(tmp_path / "night.txt"))
            await job.resume()
            (blocker,) = await job.why()
            assert blocker.code == "schedule_closed"
            assert blocker.until == f"{opens:%Y-%m-%dT%H:%M}:00.000Z"
            await asyncio.to_thread(daemon.reload, CONFIG)
            await job.wait(timeout=20, until="ended")
    assert (tmp_path / "night.txt").read_bytes() == BODY
