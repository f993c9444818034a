"""What is known of one connection by whoever paces its bodies."""

from __future__ import annotations

from dataclasses import dataclass

from transferd.model.job import Seconds
from transferd.transfer.pacing import Pacing


@dataclass(slots=True)
class Line:
    """One connection, from one body to the next."""

    pacing: Pacing
    #: The queueing delay that it looks for.
    target: Seconds
