"""One dispatch of one job, and what is said about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TypeAlias

from transferd.model.credentials import PassportOptions
from transferd.model.job import File, Job
from transferd.model.limits import Quota
from transferd.service.chronicle import Chronicle
from transferd.service.ports import Runnable, Secrets
from transferd.service.progress import Progress
from transferd.service.workers import Worker
from transferd.wire import link

RunMessage: TypeAlias = (
    link.Connected
    | link.Opened
    | link.Progress
    | link.Durable
    | link.Sized
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

    def __init__(self, number: int, claim: Runnable, chronicle: Chronicle) -> None:
        self.number = number
        self.claim = claim
        self.chronicle = chronicle
        self.inbox: asyncio.Queue[RunMessage | Lost] = asyncio.Queue()
        self.progress = Progress.fresh()
        #: What its owner may fill of the queue.
        self.quota = Quota()
        self.moved_bytes = False
        self.connected = False
        self.stopping = False
        #: Whether the worker still has something to say of it.
        self.live = False
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()


def start_message(
    run: Run,
    job: Job,
    files: tuple[File, ...],
    secrets: Secrets,
    passport: PassportOptions,
) -> link.Start:
    """Return what hands a run's job over to a worker; *passport* counts where it says nothing."""
    settings = replace(job.settings, passport=job.settings.passport.over(passport))
    return link.Start(
        job=job.id,
        run=run.number,
        settings=settings,
        files=files,
        credentials=tuple(
            link.LinkCredential(c.target, c.scheme, c.username, c.password, c.age)
            for c in secrets.credentials
        ),
        headers=tuple(link.LinkHeader(h.name, h.value) for h in secrets.headers),
        bounded=run.quota.bounds_bytes,
    )
