"""How long people wait for transferctl."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.client import Client, job
from tests.bench.result import Result, at_most, median
from tests.bench.stage import Stage
from tests.support.daemon import DaemonProcess
from transferd.wire.bodies import JobBody

_LISTED = 10
#: Of each command, for each pair.
_CALLS = 3
#: What the installed script does.
_SCRIPT = "import sys; from transferd.cli.__main__ import main; sys.exit(main())"


async def measure(stage: Stage) -> Result:
    """Call it for its help, for a list, and call Python for nothing, in turn."""
    calls: dict[str, tuple[str, ...]] = {
        "help": (_SCRIPT, "--help"),
        "list": (_SCRIPT, "list"),
        "nothing": ("pass",),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    with stage.daemon() as daemon:
        async with Client.open(daemon.socket) as client:
            await client.create([_waiting(stage.memory, number) for number in range(_LISTED)])
            for _ in range(1 + _CALLS * stage.extent.pairs):
                async with stage.quiet():
                    for name, call in calls.items():
                        took[name].append(await asyncio.to_thread(_call, daemon, call))
    # The first ones write what Python keeps compiled.
    help_, list_, nothing = (values[1:] for values in took.values())
    return Result(
        title="the command line",
        figures=[
            median("transferctl --help", help_, unit="ms", bar=at_most(120.0)),
            median(f"transferctl list, {_LISTED} jobs", list_, unit="ms", bar=at_most(200.0)),
            median("python -c pass", nothing, unit="ms"),
        ],
    )


def _waiting(directory: Path, number: int) -> JobBody:
    return job([(f"http://localhost/{number}", directory / f"never-{number}")], start=False)


def _call(daemon: DaemonProcess, call: tuple[str, ...]) -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", *call], stdout=subprocess.DEVNULL, env=daemon.environment, check=True
    )
    return (time.monotonic() - began) * 1000
