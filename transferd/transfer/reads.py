"""How fast a flow reads whose window rules nothing: between it and the bottleneck lies a store.

A proxy on this side of the bottleneck collects with a window of its own until its store is full;
from then on it takes no faster than it is read from. Nothing tells then who else needs the line.
So half of it is left to others, and from time to time it is tried how much there is to be had.
Flows of one machine leave that half together.
"""

from __future__ import annotations

from transferd.model.units import Seconds

#: The part of the best rate that is read when somebody needs the line.
_LEAST = 1 / 16
#: Less than this part of the best rate is had by a flow that is not alone.
_FALLEN = 0.85
#: So much of the best rate is forgotten with each trial.
_FORGOTTEN = 0.1
#: The time from one trial to the next, and after which one that shows nothing is over: the window
#: rules after all.
_HELD: Seconds = 20.0
_TRIAL: Seconds = 5.0


class Reads:
    """The rate of one connection's reads."""

    def __init__(self, least: float) -> None:
        """Begin; *least* is read in a second whatever others need."""
        self._least = least
        self._until: Seconds | None = None
        self._flows = 0
        #: What came at best in a second.
        self.best = 0.0
        #: Bytes that are read in a second; None: as they come, to see how many do.
        self.rate: float | None = None

    @property
    def needed(self) -> bool:
        """Whether it is they that are to leave the line to others, and not the window."""
        return self._until is not None

    def tried(self, now: Seconds, came: float, flows: int = 1) -> None:
        """Decide for a while, so many bytes having come in a second.

        Of so many *flows* of this machine each is tried while the others are held: it gets what
        they leave, and what is left by all is half when each takes one part of `flows + 1`.
        """
        if flows != self._flows:
            self._flows, self.best = flows, 0.0
        alone = came > _FALLEN * self.best
        self.best = max(came, (1 - _FORGOTTEN) * self.best)
        self.rate = max(self._least, self.best / (flows + 1) if alone else _LEAST * self.best)
        self._until = now + _HELD

    def step(self, now: Seconds) -> None:
        """Let time pass."""
        if self._until is None or now < self._until:
            return
        if self.rate is None:
            self._until, self.best = None, 0.0
        else:
            self._until, self.rate = now + _TRIAL, None
