"""How fast transferd is beside curl, aria2c and wget2, on this machine's loopback.

    python -m tests.bench.speed [--pairs N] [--rows NAME…] [--output DIR] [--size MIB] [--markdown]

The work is: a job is submitted to a running daemon, and the clock stops when its client hears that
it is `transferred`, which is when its bytes are on disk. Others are measured from the start of
their process to its end. Programs take turns; ratios are medians over the pairs. Every run goes
into `speed.json`, each figure as a multiple of its bar into `speed.png`. It takes curl, aria2c,
wget2 and nginx, and the extra `bench` for the picture.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec

from tests.bench import (
    bodies,
    command_line,
    footprint,
    latency,
    machine,
    million,
    report,
    small_files,
)
from tests.bench.picture import draw
from tests.bench.result import Result
from tests.bench.site import MIB
from tests.bench.stage import CHECKOUT, Extent, Stage, stage

Row: TypeAlias = Callable[[Stage], Awaitable[Result]]

ROWS: dict[str, Row] = {
    "http": partial(bodies.measure, case=bodies.HTTP),
    "http-disk": partial(bodies.measure, case=bodies.HTTP_DISK),
    "https": partial(bodies.measure, case=bodies.HTTPS),
    "https-two": partial(bodies.measure, case=bodies.TWO_HTTPS),
    "small-files": partial(small_files.one_job, on_disk=False),
    "small-files-disk": partial(small_files.one_job, on_disk=True),
    "jobs": small_files.many_jobs,
    "submit": latency.submissions,
    "callback": latency.callbacks,
    "million": million.measure,
    "idle": footprint.at_rest,
    "command-line": command_line.measure,
    "connections": footprint.connections,
}


async def run(scene: Stage, names: list[str]) -> dict[str, Result]:
    """Measure rows, and print each when it is done."""
    results = {}
    for name in names:
        results[name] = await ROWS[name](scene)
        print(report.text(name, results[name]), end="\n\n", flush=True)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="how often everything is repeated")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--size", type=int, default=2048, help="of a large file, in MiB")
    parser.add_argument("--disk", type=Path, default=CHECKOUT / "build", help="a place on a disk")
    parser.add_argument("--lock", type=Path, help="a file to lock during each run")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write it all."""
    chosen = _arguments()
    # Ended like that, it removes its gigabytes all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    extent = Extent(pairs=chosen.pairs, size=chosen.size * MIB, lock=chosen.lock)
    with stage(extent, chosen.disk) as scene:
        told = machine.describe({"memory": scene.memory, "disk": scene.disk})
        results = asyncio.run(run(scene, chosen.rows))
    chosen.output.mkdir(parents=True, exist_ok=True)
    document = report.document(results, told, extent.pairs, extent.size)
    path = chosen.output / "speed.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    draw(results, told, chosen.output / "speed.png")
    if chosen.markdown:
        print(report.markdown(results, told))


if __name__ == "__main__":
    main()
