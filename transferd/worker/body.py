"""Moves the body of an answer into a partial file, and knows when to give up waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Seconds
from transferd.worker.answer import Answer
from transferd.worker.sink import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How much a body may, and must, bring."""

    #: Bytes of this body; None: nobody knows.
    length: int | None
    #: Largest file that the owner wants, in bytes.
    max_size: int | None
    stall_window: Seconds
    #: Fewer bytes in a window, and the body counts as stalled.
    stall_bytes: int


class Mover(Protocol):
    """A way to move a body."""

    async def move(
        self, answer: Answer, sink: Sink, measure: Measure, moved: Callable[[int], None]
    ) -> None:
        """Append the body of *answer* to *sink*; *moved* is told how many bytes of the file
        are here.

        What has arrived stays in the sink, whatever ends the call.

        Raises:
            TransferFailed: `connection_lost`, `stalled`, `protocol_error`, `size_limit`, and the
                local codes.
        """
        ...


class BufferedMover:
    """Reads through the HTTP parser; works for every body."""

    async def move(
        self, answer: Answer, sink: Sink, measure: Measure, moved: Callable[[int], None]
    ) -> None:
        """Append the body of *answer* to *sink*; see Mover.move."""
        end = None if measure.length is None else sink.received + measure.length
        watch = _StallWatch(sink.received, measure)
        while (data := await _read_until(answer, min(watch.deadline, sink.due))) != b"":
            if data is not None:
                _check_room(answer, sink.received + len(data), end, measure.max_size)
                with watch.excused():
                    await sink.take(data)
                moved(sink.received)
            watch.check(answer, sink.received)
            with watch.excused():
                await sink.tick()
        if end is not None and sink.received < end:
            missing = end - sink.received
            raise _failed("connection_lost", answer, f"the body ended {missing} bytes too early")


class _StallWatch:
    """Counts what each window brings; time spent waiting for the disk is not the server's."""

    def __init__(self, received: int, measure: Measure) -> None:
        self._loop = asyncio.get_running_loop()
        self._measure = measure
        self._received = received
        self._began: Seconds = 0.0
        #: When the present window ends, on the loop's clock.
        self.deadline = self._loop.time() + measure.stall_window

    def check(self, answer: Answer, received: int) -> None:
        """Judge the window, if it is over, and begin the next one."""
        now = self._loop.time()
        if now < self.deadline:
            return
        brought = received - self._received
        if brought < self._measure.stall_bytes:
            window = f"{self._measure.stall_window:g} s"
            raise _failed("stalled", answer, f"only {brought} bytes came in {window}")
        self._received = received
        self.deadline = now + self._measure.stall_window

    def excused(self) -> _StallWatch:
        """Within the block, the clock stands still."""
        return self

    def __enter__(self) -> None:
        self._began = self._loop.time()

    def __exit__(self, *_: object) -> None:
        self.deadline += self._loop.time() - self._began


async def _read_until(answer: Answer, deadline: Seconds) -> bytes | None:
    """Return some bytes, b"" at the end, None when *deadline* comes first."""
    try:
        async with asyncio.timeout_at(deadline):
            return await answer.read()
    except TimeoutError:
        return None


def _check_room(answer: Answer, received: int, end: int | None, max_size: int | None) -> None:
    if end is not None and received > end:
        raise _failed("protocol_error", answer, "it sends more bytes than it announced")
    if max_size is not None and received > max_size:
        raise _failed("size_limit", answer, f"the file is larger than {max_size} bytes")


def _failed(code: str, answer: Answer, reason: str) -> TransferFailed:
    message = f"cannot read from {answer.request.peer}: {reason}"
    return TransferFailed(Failure(code=code, message=message))
