"""What can be measured: a scenario at a link, by a name such as `share-cubic@100M-100ms-20ms`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from typing import Protocol

from tests.lab import scenarios
from tests.lab.downloads import PRIORITIES, TOOLS, Download, download, owners
from tests.lab.link import Link
from tests.lab.scenarios import Scenario
from tests.lab.scene import Scene

_RATES, _BUFFERS, _RTTS = (20, 100, 1000), (20, 100, 400), (1, 20, 100)
_USUAL = Link(rate=100, buffer=100, rtt=20)
_LINKS = [
    Link(rate=rate, buffer=buffer, rtt=rtt)
    for rate, buffer, rtt in product(_RATES, _BUFFERS, _RTTS)
]


class Maker(Protocol):
    """Makes a tool ready in a scene."""

    def __call__(self, tool: str, scene: Scene) -> AbstractAsyncContextManager[Download]:
        """Make it ready until the block ends."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A scenario, and what it is played with."""

    scenario: Scenario
    tools: Sequence[str] = TOOLS
    maker: Maker = download
    #: The server's congestion control.
    foreground: str = "cubic"
    background: str = "cubic"
    tls: bool = False
    #: Background downloads go through a proxy on the client's side of the bottleneck.
    proxied: bool = False


KINDS: dict[str, Kind] = {
    "share-cubic": Kind(scenario=scenarios.share),
    "share-bbr": Kind(scenario=scenarios.share, foreground="bbr"),
    "share-cubic-from-bbr": Kind(scenario=scenarios.share, background="bbr"),
    "share-bbr-from-bbr": Kind(scenario=scenarios.share, foreground="bbr", background="bbr"),
    "share-cubic-tls": Kind(scenario=scenarios.share, tls=True),
    "share-cubic-proxied": Kind(scenario=scenarios.proxied, proxied=True),
    "late-cubic": Kind(scenario=scenarios.late),
    "late-bbr": Kind(scenario=scenarios.late, foreground="bbr"),
    "requests": Kind(scenario=scenarios.browsing),
    "pair": Kind(scenario=scenarios.pair),
    "owners": Kind(scenario=scenarios.pair, maker=owners, tools=tuple(PRIORITIES)),
    "cpu": Kind(scenario=scenarios.cpu, tools=tuple(PRIORITIES)),
    "cpu-tls": Kind(scenario=scenarios.cpu, tools=tuple(PRIORITIES), tls=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A kind of measurement at a link."""

    name: str
    kind: Kind
    link: Link


CELLS = {
    name: Cell(name=name, kind=kind, link=link)
    for prefix, kind in KINDS.items()
    for link in _LINKS
    for name in (f"{prefix}@{link}",)
}
#: Everything at one link, and what matters most where one thing at a time is otherwise.
USUAL = [
    *(f"{name}@{_USUAL}" for name, kind in KINDS.items() if kind.scenario is not scenarios.cpu),
    *(
        f"{name}@{link}"
        for name in ("share-cubic", "share-bbr")
        for link in _LINKS
        if sum((link.rate != 100, link.buffer != 100, link.rtt != 20)) == 1
    ),
    "share-cubic@1000M-100ms-100ms",
    "share-cubic@20M-400ms-1ms",
    "cpu@1000M-100ms-20ms",
    "cpu-tls@1000M-100ms-20ms",
]


def cells(patterns: Sequence[str]) -> list[Cell]:
    """Return those that match patterns as of a shell, in order.

    Raises:
        ValueError: a pattern matches none.
    """
    return list(dict.fromkeys(cell for pattern in patterns for cell in _matching(pattern)))


def tools(names: Sequence[str]) -> list[str]:
    """Return tools by their names; `transferd` is all of its priorities.

    Raises:
        ValueError: there is no such tool.
    """
    chosen: list[str] = []
    for name in names:
        if name != "transferd" and name not in TOOLS:
            raise ValueError(f"no such tool: {name}; there are transferd, {', '.join(TOOLS)}")
        chosen += PRIORITIES if name == "transferd" else [name]
    return list(dict.fromkeys(chosen))


def _matching(pattern: str) -> Iterator[Cell]:
    found = [cell for name, cell in CELLS.items() if fnmatch(name, pattern)]
    if not found:
        raise ValueError(f"no such cell: {pattern}")
    yield from found
