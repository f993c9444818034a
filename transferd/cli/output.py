"""What a command prints: JSON for programs, short tables for people.

Results go to standard output, remarks to standard error. Colours and lines are for terminals only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import TextIO

from transferd.cli.outcomes import CommandError, code_of, status_of
from transferd.cli.values import printable

_STATE_STYLES = {
    "transferring": "green",
    "transferred": "bold green",
    "connecting": "cyan",
    "transient_error": "yellow",
    "error": "bold red",
    "suspended": "dim",
}

#: Columns that a column which may be cut keeps at least.
_LEAST_FLEXIBLE = 16
_GAP = 2


class Output:
    """Where results and remarks go."""

    def __init__(self, *, json: bool, stdout: TextIO, stderr: TextIO) -> None:
        self.json = json
        self._stdout = stdout
        self._stderr = stderr

    @property
    def on_terminal(self) -> bool:
        """Whether results go to a terminal."""
        return self._stdout.isatty()

    @property
    def remarks_on_terminal(self) -> bool:
        """Whether remarks go to a terminal that can move its cursor."""
        return self._stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def remarks(self) -> TextIO:
        """Where remarks go."""
        return self._stderr

    def document(self, value: object) -> None:
        """Print one JSON document, on one line unless it goes to a terminal."""
        import msgspec

        encoded = msgspec.json.encode(value)
        if self.on_terminal:
            encoded = msgspec.json.format(encoded, indent=2)
        self._print(encoded.decode())

    def record(self, value: object) -> None:
        """Print one JSON document of many: always one line."""
        import msgspec

        self._print(msgspec.json.encode(value).decode())

    def line(self, text: str) -> None:
        """Print a result; the text is printed as it is."""
        self._print(text)

    def remark(self, text: str) -> None:
        """Say something that is not a result."""
        print(printable(text), file=self._stderr, flush=True)

    def complain(self, error: Exception) -> None:
        """Say why a command ends: a line for people, and a document for programs."""
        message = printable(str(error) or type(error).__name__)
        self.remark(f"transferctl: {message}")
        if isinstance(error, CommandError) and error.advice is not None:
            self.remark(f"transferctl: {error.advice}")
        if self.json:
            problem = {"code": code_of(error), "message": message, "exit": int(status_of(error))}
            if isinstance(error, CommandError):
                more = {"job": error.job, "remedy": error.remedy}
                problem |= {name: value for name, value in more.items() if value is not None}
            self.document({"error": problem})

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], spare: Collection[str] = ()
    ) -> None:
        """Print a table; columns in small letters may be cut on a terminal, *spare* ones left out.

        Where results do not go to a terminal, everything is there.
        """
        clean = [[printable(cell) for cell in row] for row in rows]
        names = [name.upper() for name in head]
        widths = [max(map(len, column)) for column in zip(names, *clean, strict=True)]
        if self.on_terminal:
            self._rich_table(head, clean, widths, spare)
            return
        for row in [names, *clean]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._print("  ".join(cells).rstrip())

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self._print(f"{name:<{width}}  {printable(value)}".rstrip())

    def _rich_table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[int],
        spare: Collection[str],
    ) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=self._stdout, highlight=False)
        kept = _fitting(head, widths, spare, console.width)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        for index, width in kept.items():
            table.add_column(head[index].upper(), no_wrap=True, overflow="ellipsis", width=width)
        for row in rows:
            cells = [row[index] for index in kept]
            table.add_row(
                *(Text(cell, _STATE_STYLES.get(cell, ""), overflow="ellipsis") for cell in cells)
            )
        console.print(table)

    def _print(self, text: str) -> None:
        print(text, file=self._stdout, flush=True)


def _fitting(
    head: Sequence[str], widths: Sequence[int], spare: Collection[str], room: int
) -> dict[int, int]:
    """Return which columns are shown in *room*, and how wide each of them is."""
    least = [
        width if name.isupper() else min(width, _LEAST_FLEXIBLE)
        for name, width in zip(head, widths, strict=True)
    ]
    kept = list(range(len(head)))
    if sum(least) + _GAP * (len(kept) - 1) > room:
        kept = [index for index in kept if head[index] not in spare]
    fitting = {index: least[index] for index in kept}
    rest = room - sum(fitting.values()) - _GAP * (len(kept) - 1)
    for index in sorted(kept, key=lambda index: widths[index] - least[index]):
        wanting = [other for other in kept if fitting[other] < widths[other]]
        more = min(widths[index] - least[index], max(0, rest) // max(1, len(wanting)))
        fitting[index] += more
        rest -= more
    return fitting


def forgive_encodings() -> None:
    """Print what the terminal's character set lacks as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
