"""One line about one job that moves: drawn on a terminal, absent elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from transferd.cli.output import Output
from transferd.cli.values import (
    printable,
    seconds_until,
    shown_clock,
    shown_duration,
    shown_size,
    wall_clock,
)
from transferd.client.crew import Crew
from transferd.client.job import Job
from transferd.client.manager import Manager
from transferd.model.states import JobState
from transferd.wire.api import JobAnswer, NoticeAnswer

if TYPE_CHECKING:
    from rich.table import Table

#: Weight of the newest measurement in the mean.
_FRESH = 0.3
_NAME_COLUMNS = 24
_LEAST_BAR = 6
_DRAWS_PER_SECOND = 4.0

_MOVING = frozenset({JobState.TRANSFERRING.label})
_PLAIN = {
    JobState.QUEUED.label: "waiting for its turn",
    JobState.CONNECTING.label: "connecting",
    JobState.SUSPENDED.label: "suspended; `transferctl resume` goes on",
    JobState.TRANSFERRED.label: "transferred",
    JobState.ACKNOWLEDGED.label: "completed",
    JobState.CANCELLED.label: "cancelled",
}


class Speed:
    """Bytes per second, as a moving mean."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._mean: float | None = None

    def measure(self, at: float, count: int) -> None:
        """Note that *count* bytes were there at monotonic time *at*."""
        if self._last is not None:
            elapsed, grown = at - self._last[0], count - self._last[1]
            if elapsed <= 0:
                return
            if grown < 0:  # a file began anew
                self._mean = None
            else:
                rate = grown / elapsed
                mean = rate if self._mean is None else self._mean
                self._mean = mean + _FRESH * (rate - mean)
        self._last = (at, count)

    @property
    def value(self) -> float | None:
        """The mean; None before two measurements."""
        return self._mean


@dataclass(frozen=True, slots=True)
class Line:
    """What stands in the line: a name, a bar (a share, or None) and words."""

    name: str
    share: float | None
    words: str


def line_for(answer: JobAnswer, speed: float | None, now: datetime, width: int) -> Line:
    """Say in *width* columns how a job is."""
    room = min(_NAME_COLUMNS, width // 3)
    name = _cut(printable(answer.name), room)
    if answer.state in _MOVING:
        return Line(name, _share(answer), _numbers(answer, speed, width))
    left = width - len(name) - 2
    return Line(name, None, _cut(_waiting(answer, now, left), left))


def _share(answer: JobAnswer) -> float | None:
    if not answer.bytes_total:
        return None
    return min(1.0, answer.bytes_transferred / answer.bytes_total)


def _numbers(answer: JobAnswer, speed: float | None, width: int) -> str:
    done, total = answer.bytes_transferred, answer.bytes_total
    words = [shown_size(done) if total is None else f"{shown_size(done)} of {shown_size(total)}"]
    if answer.files_total > 1:
        words.insert(0, f"{answer.files_transferred}/{answer.files_total}")
    if speed is not None:
        words.append(f"{shown_size(speed)}/s")
        if total is not None and speed > 0:
            words.append(shown_clock((total - done) / speed))
    while len(words) > 1 and len("  ".join(words)) > width * 2 // 3:
        words.pop(0)
    return "  ".join(words)


def _waiting(answer: JobAnswer, now: datetime, width: int) -> str:
    """Say why a job does not move; the reason is cut before the time of the next try is."""
    if answer.state in _PLAIN or answer.error is None:
        return _PLAIN.get(answer.state, answer.state)
    if answer.state == JobState.ERROR.label:
        return f"error: {printable(answer.error.message)}"
    left = seconds_until(answer.retry_at, now)
    until = "" if left is None else f", next try in {shown_duration(round(left))}"
    reason = f"waiting: {printable(answer.error.message)}"
    return _cut(reason, max(len("waiting: …"), width - len(until))) + until


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


class Bar:
    """The line on a terminal, drawn again a few times a second; gone when it is closed."""

    def __init__(self, answer: JobAnswer, stream: TextIO, width: int | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._answer = answer
        self._speed = Speed()
        self._console = Console(file=stream, highlight=False, width=width)
        self._live = Live(
            console=self._console,
            get_renderable=self.drawn,
            refresh_per_second=_DRAWS_PER_SECOND,
            transient=True,
        )

    def show(self, answer: JobAnswer, at: float) -> None:
        """Take over how the job is at monotonic time *at*."""
        self._speed.measure(at, answer.bytes_transferred)
        self._answer = answer

    def drawn(self) -> Table:
        """Return the line as it is now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = self._console.width
        line = line_for(self._answer, self._speed.value, wall_clock(), width)
        table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        cells: list[Text | ProgressBar] = [Text(line.name, style="bold", no_wrap=True)]
        room = width - len(line.name) - len(line.words) - 4
        if line.share is not None and room >= _LEAST_BAR:
            cells.append(ProgressBar(total=1.0, completed=line.share, width=min(room, 40)))
        cells.append(Text(line.words, no_wrap=True))
        table.add_row(*cells)
        return table

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


@contextlib.asynccontextmanager
async def following(
    manager: Manager,
    job: Job,
    output: Output,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[None]:
    """Show how *job* goes on, where somebody looks."""
    if output.json or not output.remarks_on_terminal:
        yield
        return
    crew = Crew()
    with Bar(job.answer, output.remarks) as bar:
        crew.start(_follow(manager, job, bar, clock), "progress")
        try:
            yield
        finally:
            await crew.close()


async def _follow(manager: Manager, job: Job, bar: Bar, clock: Callable[[], float]) -> None:
    async for event in manager.events(job=job.id, kinds=["modification"]):
        if isinstance(event, NoticeAnswer):
            bar.show(event.job, clock())
