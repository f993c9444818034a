"""The medians that a README shows, out of `lab.json`.

python -m tests.lab.summary [DIR] [--tools NAME,NAME…]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab.book import Entry, decode
from tests.lab.cells import tools
from tests.lab.downloads import TOOLS
from tests.lab.link import Link
from tests.lab.report import figure, table

_SHARE = "share-"
#: Column → figure of every cell in which a link is shared.
_SHARED = {
    "foreground kept": "foreground kept",
    "alone ÷ foreground alone": "download ÷ foreground, each alone",
    "added delay alone, ms": "delay by the download",
    "yields in, s": "yields in",
    "is back in, s": "is back in",
}
#: How the names of other kinds begin → the figures that tell most.
_OTHERS = {
    "requests": ("p95 beside ÷ alone",),
    "pair": ("Jain index",),
    "owners": ("Jain index",),
    "late-": ("foreground kept",),
    "cpu": (
        "CPU ÷ that of a foreground job",
        "CPU s per GB",
        "CPU s per GB of a foreground job",
    ),
}


def sharing(entries: Sequence[Entry]) -> str:
    """Return how links are shared: links and foregrounds as rows, figures as columns."""
    rows = [
        [
            _line(entry.link),
            entry.kind.removeprefix(_SHARE),
            entry.tool,
            *(figure(entry, what) for what in _SHARED.values()),
        ]
        for entry in entries
        if entry.kind.startswith(_SHARE)
    ]
    return table(["rate, round trip, buffer", "foreground", "tool", *_SHARED], rows)


def others(entries: Sequence[Entry]) -> str:
    """Return what matters most in all other cells, each figure as a row."""
    rows = [
        [_line(entry.link), entry.kind, entry.tool, what, figure(entry, what)]
        for entry in entries
        for what in _telling(entry.kind)
    ]
    return table(["rate, round trip, buffer", "cell", "tool", "figure", "median"], rows)


def _telling(kind: str) -> Iterator[str]:
    for beginning, figures in _OTHERS.items():
        if kind.startswith(beginning):
            yield from figures


def _line(link: Link) -> str:
    return f"{link.rate} Mbit/s, {link.rtt} ms, {link.buffer} ms"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.summary")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(__file__).parent / "results", metavar="DIR"
    )
    parser.add_argument(
        "--tools", type=lambda names: names.split(","), default=TOOLS, metavar="NAME,NAME…"
    )
    asked = parser.parse_args()
    try:
        chosen = tools(asked.tools)
    except ValueError as error:
        sys.exit(str(error))
    book = decode((asked.directory / "lab.json").read_bytes())
    entries = [entry for entry in book.cells if entry.tool in chosen]
    print(sharing(entries), others(entries), sep="\n\n")


if __name__ == "__main__":
    main()
