"""How background bodies leave the line to others: each connection advertises what it may take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from transferd.model.job import Seconds
from transferd.transfer.advice import Advice
from transferd.transfer.estimate import AWHILE
from transferd.transfer.growth import INTERVAL
from transferd.worker.flow import PIPE
from transferd.worker.line import Line
from transferd.worker.window import Window

#: A flow that is held to a rate may read the bytes of so long at once, or so many.
_BURST: Seconds = 0.02
_MOUTHFUL = 1448
#: What is advertised between two long bodies, where nothing looks after it: what the kernel begins
#: every connection with. Small files would crawl through the window of a flow that made room.
_BETWEEN = 64 * 1024


class Flows:
    """The background flows of this machine."""

    def __init__(self) -> None:
        self._own = 0
        #: Those of other workers.
        self.others = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._own + self.others

    def come(self) -> None:
        """Take that there is one more of this worker."""
        self._own += 1

    def go(self) -> None:
        """Take that there is one less."""
        self._own -= 1


class Deference:
    """The pace of one body on a line. Fits `pace.Pace`."""

    def __init__(
        self, line: Line, window: Window, flows: Flows, tell: Callable[[bool], None]
    ) -> None:
        """Steer *window*, to be closed with this; *tell*, in any thread, whether it is in vain."""
        self._line = line
        self._window = window
        self._flows = flows
        self._tell = tell
        self._in_vain = False
        flows.come()
        self._clamped: int | None = None
        self._next: Seconds = 0.0
        self._rate: float | None = None
        #: Of a flow that is held to a rate: what it may read, as of when.
        self._allowance = 0.0
        self._counted: Seconds = 0.0
        #: Whether the kernel is to keep no store of what a proxy sends.
        self._little = False

    def room(self, now: Seconds) -> tuple[int, Seconds]:
        """See Pace.room."""
        if now >= self._next:
            self._step(now)
        if self._rate is None:
            return PIPE, self._next - now
        self._allowance += self._rate * (now - self._counted)
        most = max(self._rate * _BURST, _MOUTHFUL)
        self._allowance = min(self._allowance, most)
        self._counted = now
        return int(self._allowance), min(self._next - now, most / self._rate / 2)

    def took(self, now: Seconds, count: int) -> None:
        """See Pace.took."""
        self._allowance -= count
        with contextlib.suppress(OSError):  # gone: the next read tells
            # Said again each time: the kernel grows its buffer, and what it advertises, as it is
            # read from.
            self._clamp(self._line.pacing.saw(now, self._window.look()).window)

    def close(self) -> None:
        """See Pace.close."""
        self._take_heart(in_vain=False)
        with contextlib.suppress(OSError):
            self._window.clamp(max(self._clamped or 0, _BETWEEN))
            self._store(little=False)
        self._flows.go()
        self._window.close()

    def _step(self, now: Seconds) -> None:
        self._next = now + INTERVAL
        with contextlib.suppress(OSError):  # gone: the next read tells
            advice = self._line.pacing.step(
                now,
                self._window.look(),
                limited=self._held(unread := self._window.unread()),
                unread=unread,
                flows=self._flows.count,
            )
            self._clamp(advice.window)
            self._heed(now, advice)
            self._store(little=advice.rate is not None and self._line.pacing.defeated)
        self._take_heart(in_vain=self._line.pacing.defeated)

    def _take_heart(self, *, in_vain: bool) -> None:
        if in_vain is not self._in_vain:
            self._in_vain = in_vain
            self._tell(in_vain)

    def _held(self, unread: int) -> bool:
        """Whether it is we who do not read: a body begins, the disk is slow, there is a limit."""
        # A window or two may have come since the last read, however fast the reader is.
        return self._clamped is None or unread > 2 * self._clamped + AWHILE

    def _clamp(self, size: int) -> None:
        self._window.clamp(size)
        self._clamped = size

    def _store(self, *, little: bool) -> None:
        if little is not self._little:
            self._little = little
            self._window.store(little=little)

    def _heed(self, now: Seconds, advice: Advice) -> None:
        if advice.rate != self._rate:
            self._rate, self._allowance, self._counted = advice.rate, 0.0, now
