"""One line about one job that moves: drawn on a terminal, absent elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from transferd.cli.output import Output
from transferd.cli.reasons import brief_reason, until
from transferd.cli.values import (
    printable,
    seconds_until,
    shown_clock,
    shown_duration,
    shown_size,
    wall_clock,
)
from transferd.client.job import Job
from transferd.model.states import JobState
from transferd.wire.api import JobAnswer

if TYPE_CHECKING:
    from rich.table import Table

#: Weight of the newest measurement in the mean.
_FRESH = 0.3
_GAP = "  "
_NAME_COLUMNS, _LEAST_NAME = 24, 8
_LARGEST_BAR, _USUAL_BAR, _LEAST_BAR = 40, 10, 4
_DRAWS_PER_SECOND = 4.0
#: Seconds by which two times of the same try may differ.
_SAME_TRY = 0.5

#: States of a job that has not failed, and does not move.
_HELD_UP = frozenset({JobState.QUEUED.label, JobState.SUSPENDED.label})
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
    name = printable(answer.name)
    if answer.state in _MOVING:
        words = _numbers(answer, speed, width)
        room = width - len(words) - _USUAL_BAR - 2 * len(_GAP)
        return Line(_cut(name, min(_NAME_COLUMNS, max(_LEAST_NAME, room))), _share(answer), words)
    name = _cut(name, min(_NAME_COLUMNS, max(_LEAST_NAME, width // 3)))
    left = width - len(name) - len(_GAP)
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
    """Say why a job does not move: in whole sentences, or in few words where room is scarce."""
    if answer.state == JobState.QUEUED.label and answer.blockers:
        blocker = answer.blockers[0]
        whole = f"waiting: {printable(brief_reason(blocker, now))}"
        short = f"waiting: {blocker.code.replace('_', ' ')}{until(blocker, now)}"
        return whole if len(whole) <= width else short
    if answer.state in _PLAIN or answer.error is None:
        return _PLAIN.get(answer.state, answer.state)
    if answer.state == JobState.ERROR.label:
        return f"error: {printable(answer.error.message)}"
    left = seconds_until(answer.retry_at, now)
    again = "" if left is None else f", next try in {shown_duration(round(left))}"
    whole = f"waiting: {printable(answer.error.message)}{again}"
    return (
        whole if len(whole) <= width else f"waiting: {answer.error.code.replace('_', ' ')}{again}"
    )


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


class Bar:
    """The line on a terminal, drawn again a few times a second; gone when it is closed.

    *look* tells how the job is, *trouble* why nobody knows; the thread that draws asks them.
    """

    def __init__(
        self,
        look: Callable[[], JobAnswer],
        trouble: Callable[[], str | None],
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._look = look
        self._trouble = trouble
        self._clock = clock
        self._speed = Speed()
        self._seen: JobAnswer | None = None
        self._console = Console(file=stream, highlight=False, width=width)
        self._live = Live(
            console=self._console,
            get_renderable=self.drawn,
            refresh_per_second=_DRAWS_PER_SECOND,
            transient=True,
        )

    def drawn(self) -> Table:
        """Return the line as it is now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        answer, width = self._look(), self._console.width
        if answer is not self._seen:
            self._speed.measure(self._clock(), answer.bytes_transferred)
            self._seen = answer
        line = line_for(answer, self._speed.value, wall_clock(), width)
        if (trouble := self._trouble()) is not None:
            line = Line(line.name, None, _cut(trouble, width - len(line.name) - len(_GAP)))
        table = Table.grid(padding=(0, len(_GAP), 0, 0), pad_edge=False)
        cells: list[Text | ProgressBar] = [Text(line.name, style="bold", no_wrap=True)]
        room = width - len(line.name) - len(line.words) - 2 * len(_GAP)
        if line.share is not None and room >= _LEAST_BAR:
            bar = min(room, _LARGEST_BAR)
            cells.append(ProgressBar(total=1.0, completed=line.share, width=bar))
        cells.append(Text(line.words, no_wrap=True))
        table.add_row(*cells)
        return table

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


@contextlib.contextmanager
def showing(job: Job, output: Output) -> Iterator[None]:
    """Show how a job goes on while it is waited for, where somebody looks."""
    if output.json or not output.remarks_on_terminal:
        with _telling(job, output):
            yield
        return
    # `wait` looks at the job whenever it has changed; what it saw last is what is shown.
    with Bar(lambda: job.answer, lambda: _trouble(job), output.remarks):
        yield


@contextlib.contextmanager
def _telling(job: Job, output: Output) -> Iterator[None]:
    """Say in a line that the job waits, once for each reason and try, where there is no bar."""
    loop = asyncio.get_running_loop()
    told: _Reason | None = None
    tick: asyncio.Handle

    def look() -> None:
        nonlocal told, tick
        reason = _reason(job)
        if reason is not None and not reason.same(told):
            told = reason
            output.remark(f"transferctl: {reason.line}")
        tick = loop.call_later(1 / _DRAWS_PER_SECOND, look)

    tick = loop.call_soon(look)
    try:
        yield
    finally:
        tick.cancel()


@dataclass(frozen=True, slots=True)
class _Reason:
    """What keeps a job waiting, until when, and how that is told."""

    message: str
    until: str | None
    line: str

    def same(self, other: _Reason | None) -> bool:
        """Tell whether nobody would learn anything from this one who has heard the other."""
        if other is None or self.message != other.message:
            return False
        if self.until is None or other.until is None:
            return self.until == other.until
        # The daemon reckons the time of day anew for each answer.
        between = datetime.fromisoformat(self.until) - datetime.fromisoformat(other.until)
        return abs(between.total_seconds()) < _SAME_TRY


def _reason(job: Job) -> _Reason | None:
    """Return what keeps the job waiting; None: nothing does."""
    if (trouble := _trouble(job)) is not None:
        return _Reason(trouble, None, trouble)
    answer = job.answer
    line = _waiting(answer, wall_clock(), sys.maxsize)
    if answer.state == JobState.TRANSIENT_ERROR.label and answer.error is not None:
        return _Reason(answer.error.message, answer.retry_at, line)
    if answer.state in _HELD_UP and answer.blockers:
        return _Reason(answer.blockers[0].text, answer.blockers[0].until, line)
    return None


def _trouble(job: Job) -> str | None:
    if job.answered:
        return None
    return f"no daemon answers; {'starting it' if job.starts else 'waiting for it'}…"
