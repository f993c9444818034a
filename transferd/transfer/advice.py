"""What a Pacing says: how much to advertise, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """What the window is doing."""

    #: Doubling until the delay first passes the target.
    STARTING = "starting"
    #: Looking for the target.
    CRUISING = "cruising"
    #: Small for a moment, to see the base delay.
    SLOWED = "slowed"
    #: Doubling towards a window that was good before.
    RISING = "rising"
    #: Even the smallest window is too much: reads are paced.
    RESTING = "resting"
    #: The smallest window for a moment, to see whether the others have gone.
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to advertise from now on."""

    #: In bytes, a multiple of the window scale's unit.
    window: int
    #: Read no more bytes than this in a second; None: as they come.
    rate: float | None = None
