"""What a million machines do to one server, with and without the manners of `[fleet]`.

    python -m tests.bench.fleet [--machines N] [--output DIR] [--vary]

A simulation, second by second, of the product's own retry policy, breaker and spread start, with
their defaults. Each machine has three jobs. "Without" is the retry policy alone, with no spread
behind its waits. What is seen goes into `fleet.json` and `fleet.png`. With `--vary` other settings
are shown beside the defaults, and nothing is written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from tests.bench.fleet_picture import Panel, draw
from tests.bench.herd import Herd, Manners, Server, Story, Times
from tests.bench.result import TIMES, Figure, number
from transferd.assembly import breaker_policy, default_timers, retry_times
from transferd.config import Config
from transferd.sections import Fleet

_MACHINES = 1_000_000
_JOBS = 3
_HOUR = 3600
_HORIZON = 12 * _HOUR
_SEED = 20260131


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens, to a fleet of any size."""

    title: str
    #: Within what time machines begin whatever their manners are.
    begin: float
    #: Whether the spread start holds for these jobs.
    background: bool
    #: Requests a second for each million machines.
    capacity: int
    retry_after: float = 0.0
    outage: tuple[int, int] = (0, 0)
    download: float = 0.0

    def server(self, machines: int) -> Server:
        """Return the server of such a fleet."""
        return Server(
            capacity=max(1, self.capacity * machines // 1_000_000),
            retry_after=self.retry_after,
            outage=self.outage,
            download=self.download,
        )


SCENARIOS: Mapping[str, Scenario] = {
    "outage": Scenario(
        title="ten minutes without the server, in an hour of even load; downloads take 5 minutes",
        begin=_HOUR,
        background=False,
        capacity=2500,
        outage=(1200, 1800),
        download=300,
    ),
    # Such as after a blackout, or when a network is back. It can serve all of them in 5 minutes.
    "release": Scenario(
        title="every machine is to start its background jobs at the same moment",
        begin=0,
        background=True,
        capacity=10_000,
    ),
    "retry-after": Scenario(
        title="somebody starts every job at one moment; 503 with Retry-After: 120 beyond capacity",
        begin=0,
        background=False,
        capacity=5000,
        retry_after=120,
    ),
}


def manners(fleet: Fleet) -> Manners:
    """Return how machines behave that are configured so."""
    config = msgspec.structs.replace(Config(), fleet=fleet)
    # Nobody is given up while the simulation lasts.
    timers = replace(default_timers(config), no_progress_timeout=1e9)
    return Manners(
        retry=retry_times(config).policy(timers),
        breaker=breaker_policy(config),
        start_spread=fleet.start_spread_seconds,
    )


def without() -> Manners:
    """Return how they would behave without any of it."""
    plain = manners(msgspec.structs.replace(Fleet(), retry_spread=0.0, start_spread_seconds=0.0))
    return replace(plain, breaker=None)


def simulate(scenario: Scenario, behave: Manners, machines: int) -> Story:
    """Let a fleet live through a scenario."""
    random = np.random.default_rng(_SEED)
    starts: Times = random.random(machines) * scenario.begin
    if scenario.background:
        starts = starts + random.random(machines) * behave.start_spread
    return Herd(machines, _JOBS, behave, scenario.server(machines), _SEED).run(starts, _HORIZON)


def figures(story: Story, jobs: int) -> list[Figure]:
    """Return what matters of a story."""
    done = np.cumsum(story.served)
    lasted = len(story.requests)
    peak, total = int(story.requests.max()), int(story.requests.sum())
    return [
        Figure(what="peak", value=peak, unit="requests/s"),
        Figure(what="peak after a minute", value=int(story.requests[60:].max()), unit="requests/s"),
        Figure(what="peak ÷ mean", value=peak / (total / lasted), unit=TIMES),
        Figure(what="requests for each download", value=total / jobs),
        Figure(what="99 % are done", value=_reached(done, 0.99 * jobs), unit="s"),
        Figure(what="all are done", value=_reached(done, jobs), unit="s"),
    ]


def _reached(done: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: float) -> float:
    """Return after how many seconds so many were done for good."""
    short = np.flatnonzero(done < wanted)
    return float(short[-1] + 1) if len(short) else 0.0


def compare(machines: int) -> tuple[dict[str, object], list[Panel]]:
    """Run every scenario with and without manners, and print what is seen."""
    rows: dict[str, object] = {}
    panels = []
    ways = {"without": without(), "with": manners(Fleet())}
    for name, scenario in SCENARIOS.items():
        print(f"{name}: {scenario.title}")
        stories, seen = {}, {}
        for way, behave in ways.items():
            stories[way] = simulate(scenario, behave, machines)
            found = figures(stories[way], machines * _JOBS)
            _print(way, found)
            seen[way] = {figure.what: figure.value for figure in found}
        rows[name] = {"title": scenario.title, "server": scenario.server(machines), **seen}
        panels.append(
            Panel(
                title=f"{name}: {scenario.title}",
                capacity=scenario.server(machines).capacity,
                outage=scenario.outage,
                requests={way: story.requests for way, story in stories.items()},
            )
        )
    return rows, panels


def _print(way: str, found: Sequence[Figure]) -> None:
    cells = [f"{figure.what} {number(figure.value)} {figure.unit}".rstrip() for figure in found]
    print(f"  {way:<28}{'; '.join(cells)}", flush=True)


#: What the defaults were chosen from: each differs from them in one thing.
_OTHERS: Mapping[str, Sequence[float]] = {
    "start_spread_seconds": (0, 60, 120, 600, 900),
    "retry_spread": (0, 0.25, 0.5, 2),
    "rest_failures": (0, 3, 10),
    "rest_window_seconds": (300, 1200),
    "rest_seconds": (30, 120, 300),
    "max_rest_seconds": (600, 1800),
}


def vary(machines: int) -> None:
    """Print what other settings would do."""
    for name, scenario in SCENARIOS.items():
        print(f"{name}: {scenario.title}")
        jobs = machines * _JOBS
        _print("without", figures(simulate(scenario, without(), machines), jobs))
        _print("defaults", figures(simulate(scenario, manners(Fleet()), machines), jobs))
        for key, values in _OTHERS.items():
            for value in values:
                if key == "start_spread_seconds" and not scenario.background:
                    continue
                behave = manners(msgspec.structs.replace(Fleet(), **{key: value}))
                label = f"{key.removesuffix('_seconds')} {value:g}"
                _print(label, figures(simulate(scenario, behave, machines), jobs))


def main() -> None:
    """Simulate, print and write it all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=_MACHINES)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--vary", action="store_true", help="show other settings, write nothing")
    chosen = parser.parse_args()
    if chosen.vary:
        vary(chosen.machines)
        return
    began = time.monotonic()
    rows, panels = compare(chosen.machines)
    chosen.output.mkdir(parents=True, exist_ok=True)
    document = {
        "machines": chosen.machines,
        "jobs of each": _JOBS,
        "seed": _SEED,
        "fleet": Fleet(),
        "scenarios": rows,
    }
    encoded = msgspec.json.format(msgspec.json.encode(document))
    (chosen.output / "fleet.json").write_bytes(encoded + b"\n")
    draw(panels, chosen.machines * _JOBS, chosen.output / "fleet.png")
    print(f"{chosen.machines:,} machines in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
