"""What a command prints: JSON for programs, short tables for people.

Results go to standard output, remarks to standard error. Colours and lines are for terminals only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
        print(f"transferctl: {message}", file=self._stderr, flush=True)
        if self.json:
            job = error.job if isinstance(error, CommandError) else None
            problem = {"code": code_of(error), "message": message, "exit": int(status_of(error))}
            self.document({"error": problem | ({"job": job} if job else {})})

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; on a terminal it fits the width, elsewhere nothing is cut."""
        clean = [[printable(cell) for cell in row] for row in rows]
        if self.on_terminal:
            self._rich_table(head, clean)
            return
        widths = [max(map(len, column)) for column in zip(head, *clean, strict=True)]
        for row in [head, *clean]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._print("  ".join(cells).rstrip())

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self._print(f"{name:<{width}}  {printable(value)}".rstrip())

    def _rich_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in head:
            fixed = name in ("ID", "STATE", "DONE", "SIZE", "TIME", "KIND")
            table.add_column(name, no_wrap=True, overflow="fold" if fixed else "ellipsis")
        for row in rows:
            table.add_row(*(Text(cell, style=_STATE_STYLES.get(cell, "")) for cell in row))
        Console(file=self._stdout, highlight=False).print(table)

    def _print(self, text: str) -> None:
        print(text, file=self._stdout, flush=True)


def forgive_encodings() -> None:
    """Print what the terminal's character set lacks as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
