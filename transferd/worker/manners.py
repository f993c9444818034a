"""How the bodies of one run move beside others: whom they leave the line to, and within which caps.

Both may change while they move.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from time import monotonic

from transferd.auth.flow import Randomness
from transferd.model.job import Priority, Seconds
from transferd.model.origins import is_loopback
from transferd.transfer.pacing import Pacing
from transferd.wire.link import WorkerSettings
from transferd.worker.answer import Answer
from transferd.worker.caps import Capped, Caps, RunCaps
from transferd.worker.deference import Deference, Flows
from transferd.worker.handler import Handler
from transferd.worker.line import Line
from transferd.worker.pace import Pace, Unpaced
from transferd.worker.window import Place, Window, open_plain, open_steerable


def within_machine(connection: socket.socket) -> bool:
    """Whether the other end is on this machine: there is no line to share then.

    Raises:
        OSError: the connection is gone.
    """
    return is_loopback(connection.getpeername()[0])


class Manners:
    """How the bodies of one run behave."""

    def __init__(
        self,
        limits: WorkerSettings,
        flows: Flows,
        caps: Caps,
        randomness: Randomness,
        *,
        priority: Priority,
        max_rate: int | None,
        tell: Callable[[bool], None],
    ) -> None:
        """Take also who is told whether windows of bodies are of no use, in the loop's thread."""
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        #: Bodies whose windows are of no use.
        self._in_vain = 0
        self._limits = limits
        self._flows = flows
        self._randomness = randomness
        self._priority = priority
        self.caps = RunCaps(caps, priority, max_rate)
        self._bodies: set[Conduct] = set()
        #: Whether they have always yielded, or never.
        self.steady = True

    @property
    def priority(self) -> Priority:
        """What the job's is now."""
        return self._priority

    @property
    def yields(self) -> bool:
        """Whether its bodies leave the line to others."""
        return self._target is not None

    @property
    def _target(self) -> Seconds | None:
        return self._limits.delay(self._priority)

    def retune(self, priority: Priority, max_rate: int | None) -> None:
        """Behave otherwise from now on, bodies that are on their way included."""
        yielded = self.yields
        self._priority = priority
        self.caps.retune(priority, max_rate, monotonic())
        self.steady = self.steady and yielded == self.yields
        for body in self._bodies:
            body.change(self._pace)

    def open_socket(self, place: Place) -> socket.socket:
        """Open a socket, to be connected, that suits the bodies."""
        if self.yields:
            return open_steerable(place, lower_effort=self._limits.lower_effort)
        return open_plain(place)

    def pace(self, answer: Answer) -> Pace:
        """Return the pace of the body of *answer*, to be closed after it."""
        handler = answer.handler
        return Conduct(handler, self._pace(handler), self.caps.body(), self._bodies)

    def _pace(self, handler: Handler | None) -> Pace:
        """Return how a body leaves the line to others; when it does not, its window is opened.

        Whatever the connection was opened for, it is marked as suits the body from now on.
        """
        target, marks = self._target, self._limits.lower_effort
        if handler is None or handler.transport is None:
            return Unpaced()
        if target is None and handler.line is None and not marks:
            return Unpaced()
        connection = handler.transport.get_extra_info("socket")
        with contextlib.ExitStack() as undo:
            try:
                window = Window(connection.fileno())
                undo.callback(window.close)
                if marks:
                    window.mark(lower_effort=target is not None)
                if within_machine(connection) and not handler.proxied:
                    return Unpaced()
                if target is None:
                    return self._let_go(handler, window)
                line = handler.line
                if line is None or line.target != target:
                    line = handler.line = Line(self._meet(handler, window, target), target)
            except OSError:
                # No more descriptors are to be had, or no connection: it is about to fail.
                return Unpaced()
            undo.pop_all()
        return Deference(line, window, self._flows, self._note)

    def _note(self, in_vain: bool) -> None:
        """Take from any thread that the window of one more body, or one less, is of no use."""
        self._loop.call_soon_threadsafe(self._count, 1 if in_vain else -1)

    def _count(self, more: int) -> None:
        before, self._in_vain = self._in_vain, self._in_vain + more
        if bool(before) is not bool(self._in_vain):
            self._tell(bool(self._in_vain))

    def _let_go(self, handler: Handler, window: Window) -> Pace:
        if handler.line is not None:
            handler.line = None
            window.open()
        return Unpaced()

    def _meet(self, handler: Handler, window: Window, target: Seconds) -> Pacing:
        path = window.path()
        spread = int.from_bytes(self._randomness(4), "big") / 2**32
        return Pacing(
            target=target,
            now=monotonic(),
            received=window.look().received,
            handshake=path.rtt,
            segment=path.segment,
            scale=path.scale,
            spread=spread,
            proxied=handler.proxied,
        )


class Conduct:
    """The pace of one body: what is left for it by others, within its caps. Fits `pace.Pace`."""

    def __init__(
        self, handler: Handler | None, pace: Pace, capped: Capped, bodies: set[Conduct]
    ) -> None:
        """Begin as one of *bodies*."""
        self.handler = handler
        self._pace = pace
        self._capped = capped
        self._bodies = bodies
        #: A thread moves the body; the loop changes its pace.
        self._lock = threading.Lock()
        bodies.add(self)

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """See Pace.room."""
        with self._lock:
            room, pause = self._pace.room(now)
        if room <= 0:
            return room, pause
        room, wait = self._capped.room(now, room)
        return room, min(pause, wait)

    def took(self, now: Seconds, count: int) -> None:
        """See Pace.took."""
        self._capped.took(now, count)
        with self._lock:
            self._pace.took(now, count)

    def change(self, other: Callable[[Handler | None], Pace]) -> None:
        """Go on otherwise; in the loop's thread."""
        with self._lock:  # or the pace so far would go on to steer what the other one has set
            self._pace.close()
            self._pace = other(self.handler)

    def close(self) -> None:
        """See Pace.close."""
        self._bodies.discard(self)
        self._capped.close()
        self._pace.close()
