"""Moves the body of an answer into a partial file, and knows when to give up waiting for it.

There are two ways. A long body of a known length goes from its connection to its file in a thread,
past the loop and past the HTTP parser (`pump`). Every other one is read through the parser. All
manners are the same on both: what is here becomes durable meanwhile, stalls and breaks are told
apart from slow disks, and whatever ends it, what has arrived stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from time import monotonic

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Seconds
from transferd.worker.answer import Answer
from transferd.worker.caps import Small
from transferd.worker.faults import translate
from transferd.worker.manners import Manners
from transferd.worker.pace import Pace
from transferd.worker.pump import Pump
from transferd.worker.stretch import Stretch

#: The loop looks at a body this often, whether anything comes or not.
_LOOK: Seconds = 0.25


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


@dataclass(slots=True)
class Bodies:
    """The threads in which bodies move: one for each, as long as there are any."""

    threads: Executor
    most: int
    moving: int = field(default=0, init=False)


class Mover:
    """Moves bodies, whichever way is best for each."""

    def __init__(self, bodies: Bodies, manners: Manners) -> None:
        """Let each body move as fast as the *manners* of its run allow."""
        self._bodies = bodies
        self._manners = manners

    @contextlib.asynccontextmanager
    async def small(self) -> AsyncIterator[Small]:
        """Wait until a small file may be asked for, which may come as a whole, and count it."""
        with self._manners.caps.small() as small:
            while wait := small.wait():  # noqa: ASYNC110 - time is what it waits for
                await asyncio.sleep(wait)
            yield small

    async def move(
        self, answer: Answer, stretch: Stretch, measure: Measure, moved: Callable[[], None]
    ) -> None:
        """Append the body of *answer* to *stretch*; *moved* is called when bytes have.

        What has arrived stays, whatever ends the call.

        Raises:
            TransferFailed: `connection_lost`, `stalled`, `protocol_error`, `size_limit`, and the
                local codes.
        """
        with contextlib.ExitStack() as taken:
            pace = self._manners.pace(answer)
            taken.callback(pace.close)
            free = self._bodies.moving < self._bodies.most
            pump = _pump_for(answer, stretch, measure.length, pace) if free else None
            if pump is None:
                return await _read(answer, stretch, measure, moved, pace)
            # Taken before the first wait: a body without a thread would be moved by nobody.
            self._bodies.moving += 1
            taken.callback(self._left)
            await self._pump(answer, stretch, measure, moved, pump, pace, taken)

    async def _pump(
        self,
        answer: Answer,
        stretch: Stretch,
        measure: Measure,
        moved: Callable[[], None],
        pump: Pump,
        pace: Pace,
        taken: contextlib.ExitStack,
    ) -> None:
        """Move a body by a thread; *taken* gives that back, which is not free before it left."""
        end = pump.limit
        await _prime(answer, stretch, pump, pace)
        leaving = stretch.pour(pump, self._bodies.threads)
        free = taken.pop_all()
        leaving.add_done_callback(lambda _: free.close())
        try:
            await _look_on(answer, stretch, measure, moved, pump, leaving)
        finally:
            pump.stop()
        try:
            leaving.result()
        except OSError as error:
            raise translate(error, answer.request.peer) from error
        if pump.ended:
            raise _too_short(answer, pump.limit - stretch.received)
        if pump.limit == end:
            answer.taken()
        else:
            answer.close()

    def _left(self) -> None:
        self._bodies.moving -= 1


def _pump_for(answer: Answer, stretch: Stretch, length: int | None, pace: Pace) -> Pump | None:
    """Return what moves a body of that length past the loop; None: it must be read."""
    flow = None if length is None else answer.lend()
    if flow is None or length is None:
        return None
    try:
        return Pump(flow, stretch.cursor, stretch.received + length, pace)
    except OSError:
        # No more descriptors are to be had.
        flow.close()
        return None


async def _prime(answer: Answer, stretch: Stretch, pump: Pump, pace: Pace) -> None:
    """Write what was read of a body already, before a pump moves the rest."""
    with contextlib.ExitStack() as undo:
        undo.callback(pump.close)
        data = answer.read_now()
        _check_room(answer, stretch.received + len(data), pump.limit, None)
        if data:
            pace.took(monotonic(), len(data))
            await stretch.take(data)
        await stretch.drain()
        undo.pop_all()


async def _look_on(
    answer: Answer,
    stretch: Stretch,
    measure: Measure,
    moved: Callable[[], None],
    pump: Pump,
    leaving: asyncio.Future[None],
) -> None:
    """See to a body that moves in a thread."""
    loop = asyncio.get_running_loop()
    watch = _StallWatch(measure, stretch.received)
    # Not `leaving.done`: the connection is not given back before the pump is closed.
    while stretch.pump is not None:
        look = min(_LOOK, watch.left(pump.waited), stretch.due - loop.time())
        await asyncio.wait([leaving], timeout=max(0.0, look))
        moved()
        watch.check(answer, stretch.received, pump.waited)
        await stretch.tick()


async def _read(
    answer: Answer,
    stretch: Stretch,
    measure: Measure,
    moved: Callable[[], None],
    pace: Pace,
) -> None:
    """Read a body through the HTTP parser."""
    loop = asyncio.get_running_loop()
    end = None if measure.length is None else stretch.received + measure.length
    watch, waited = _StallWatch(measure, stretch.received), 0.0
    while True:
        room, pause = pace.room(monotonic())
        if room > 0:
            began = loop.time()
            # A look now and then: while bytes are on their way to the disk, nothing else is due.
            look = min(_LOOK, watch.left(waited), stretch.due - began, pause)
            data = await _read_until(answer, room, began + look)
            waited += loop.time() - began
            if data == b"":
                break
            if data is not None:
                _check_room(answer, stretch.received + len(data), end, measure.max_size)
                pace.took(monotonic(), len(data))
                await stretch.take(data)
                moved()
            watch.check(answer, stretch.received, waited)
        else:
            await asyncio.sleep(max(0.0, min(pause, stretch.due - loop.time())))
        await stretch.tick()
    if end is not None and stretch.received < end:
        raise _too_short(answer, end - stretch.received)


class _StallWatch:
    """Counts what each window brings; only time in which the server was waited for counts."""

    def __init__(self, measure: Measure, received: int) -> None:
        self._measure = measure
        self._received = received
        self._end: Seconds = measure.stall_window

    def left(self, waited: Seconds) -> Seconds:
        """Return how much longer the present window lasts, after *waited* seconds in all."""
        return max(0.0, self._end - waited)

    def check(self, answer: Answer, received: int, waited: Seconds) -> None:
        """Judge the window, if it is over, and begin the next one."""
        if waited < self._end:
            return
        brought = received - self._received
        if brought < self._measure.stall_bytes:
            window = f"{self._measure.stall_window:g} s"
            raise _failed("stalled", answer, f"only {brought} bytes came in {window}")
        self._received = received
        self._end = waited + self._measure.stall_window


async def _read_until(answer: Answer, most: int, deadline: Seconds) -> bytes | None:
    """Return up to *most* bytes, b"" at the end, None when *deadline* comes first."""
    try:
        async with asyncio.timeout_at(deadline):
            return await answer.read(most)
    except TimeoutError:
        return None


def _check_room(answer: Answer, received: int, end: int | None, max_size: int | None) -> None:
    if end is not None and received > end:
        raise _failed("protocol_error", answer, "it sends more bytes than it announced")
    if max_size is not None and received > max_size:
        raise _failed("size_limit", answer, f"the file is larger than {max_size} bytes")


def _too_short(answer: Answer, missing: int) -> TransferFailed:
    return _failed("connection_lost", answer, f"the body ended {missing} bytes too early")


def _failed(code: str, answer: Answer, reason: str) -> TransferFailed:
    message = f"cannot read from {answer.request.peer}: {reason}"
    return TransferFailed(Failure(code=code, message=message))
