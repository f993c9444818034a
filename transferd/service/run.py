"""One dispatch of one job, and what is said about it."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, replace

from transferd.model.credentials import PassportOptions
from transferd.model.job import File, Job, Priority, Settings
from transferd.model.limits import Quota
from transferd.model.origins import Origin, origin
from transferd.service.chronicle import Chronicle
from transferd.service.inbox import Inbox
from transferd.service.ports import Runnable, Secrets
from transferd.service.progress import Progress
from transferd.service.testimony import Record
from transferd.service.worker import Worker
from transferd.wire import link


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a job's settings a run takes up at once."""

    priority: Priority
    max_rate: int | None
    streams: int | None

    @classmethod
    def of(cls, settings: Settings) -> Tuning:
        """Return that of *settings*."""
        return cls(settings.priority, settings.max_rate, settings.streams)

    def over(self, settings: Settings) -> Settings:
        """Return *settings* with this instead."""
        return replace(
            settings, priority=self.priority, max_rate=self.max_rate, streams=self.streams
        )


class Run:
    """One dispatch of one job."""

    def __init__(self, number: int, claim: Runnable, chronicle: Chronicle) -> None:
        self.number = number
        self.claim = claim
        self.chronicle = chronicle
        self.inbox = Inbox()
        #: Those that its worker was told of last, or is to be told of, by index.
        self.files: tuple[File, ...] = ()
        #: What its worker may speak of.
        self.record = Record()
        #: Of its job, for people.
        self.name = ""
        self.progress = Progress.fresh()
        #: What its owner may fill of the queue.
        self.quota = Quota()
        self.moved_bytes = False
        #: How many connections it may have.
        self.flows = 1
        #: How it is to go on since its job was dispatched, and what its worker knows of that.
        self.tuning: Tuning | None = None
        self.told: Tuning | None = None
        #: See link.Paced.
        self.held = False
        self.stopping = False
        #: Whether its worker was given all files that there were.
        self.complete = False
        #: Whether its worker has done them all: the slot is free before that is written down.
        self.finishing = False
        #: Whether the worker still has something to say of it.
        self.live = False
        #: Whether the worker has been told of it: what is said before that would overtake it.
        self.started = False
        self.worker: Worker | None = None
        #: Whether it waits for a worker to be started, and can be left at once.
        self.waiting = False
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()

    def adopt(self, settings: Settings) -> None:
        """Go by the settings of its job, which may be newer than the claim."""
        self.name = settings.name
        self.claim = replace(self.claim, priority=settings.priority, cost=settings.cost)

    def retune(self, settings: Settings) -> None:
        """Go on by other settings of its job than it was dispatched with."""
        self.adopt(settings)
        self.tuning = Tuning.of(settings)
        self.flows = _connections(settings, self.files)

    def origin_of(self, file: File | None) -> Origin:
        """Return where a file comes from; None: the next one."""
        return origin((file or self.files[0]).spec.remote)

    def file_at(self, local: str | None) -> File | None:
        """Return the file with a destination, where its worker was told of it."""
        return next((file for file in self.files if file.spec.local == local), None)

    def file_numbered(self, index: int) -> File | None:
        """Return the file with an index, where its worker was told of it."""
        place = bisect_left(self.files, index, key=lambda file: file.index)
        found = self.files[place : place + 1]
        return found[0] if found and found[0].index == index else None


def _connections(settings: Settings, files: tuple[File, ...]) -> int:
    """Return how many a job in the background may have."""
    return min(settings.streams or 1, len(files))


def start_message(
    run: Run,
    job: Job,
    files: tuple[File, ...],
    secrets: Secrets,
    passport: PassportOptions,
) -> link.Start:
    """Return what hands a run's job over to a worker; *passport* counts where it says nothing."""
    settings, options = job.settings, job.settings.passport.over(passport)
    if options != settings.passport:
        settings = replace(settings, passport=options)
    if run.tuning is not None:
        settings = run.tuning.over(settings)
    run.told = Tuning.of(settings)
    run.flows = _connections(settings, files)
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
