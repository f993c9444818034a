"""One dispatch of one job, and what is said about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from transferd.service.ports import (
    Runnable,
)
from transferd.service.progress import Progress
from transferd.service.workers import Worker
from transferd.wire import link

RunMessage: TypeAlias = (
    link.Connected
    | link.Opened
    | link.Progress
    | link.Durable
    | link.Reset
    | link.FileDone
    | link.Drained
    | link.Failed
    | link.Stopped
    | link.Audited
)


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died."""


class Run:
    """One dispatch of one job."""

    def __init__(self, number: int, claim: Runnable) -> None:
        self.number = number
        self.claim = claim
        self.inbox: asyncio.Queue[RunMessage | Lost] = asyncio.Queue()
        self.progress = Progress.fresh()
        self.moved_bytes = False
        self.connected = False
        self.stopping = False
        #: Whether the worker still has something to say of it.
        self.live = False
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
