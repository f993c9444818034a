"""Messages between the daemon and a worker: one JSON object a line over a socket pair.

`run` numbers one dispatch of one job; messages of an earlier run are ignored by the receiver.
Every message names its type in `is`. What a worker does beside its runs is in `chores`.

A run, from the daemon's side:

    Start ─► Connected, Opened, Sized/Recorded, Progress, Durable, Reset/Recorded, FileDone …
          ─► Drained
          Drained ─► Extend (more files, the run goes on) or Finish (the run is over)
          Retune may come at any time.
          Failed ends the run; Stop is answered with Stopped, after the last Durable.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.failures import Failure
from transferd.model.job import File, Inode, JobId, Part, Priority, Seconds, Settings, Validator
from transferd.model.rates import FREE, Rates
from transferd.wire.chores import Answer, Chore
from transferd.wire.conduct import WorkerSettings as WorkerSettings
from transferd.wire.message import Message

# ── daemon → worker ────────────────────────────────────────────────────────────────────────


class Configure(Message, frozen=True, tag="configure"):
    """First message to a worker; may be repeated with other values."""

    settings: WorkerSettings


class LinkCredential(msgspec.Struct, frozen=True):
    """A credential on its way to the worker; without a user the implicit one."""

    target: Target
    scheme: Scheme
    username: str | None
    password: Secret
    age: Seconds = 0.0


class LinkHeader(msgspec.Struct, frozen=True):
    """A secret header on its way to the worker."""

    name: str
    value: Secret


class Start(Message, frozen=True, tag="start"):
    """Carry a job: its files in order, each from its durable offset."""

    job: JobId
    run: int
    settings: Settings
    #: Not completed ones, in order; possibly only the first of many.
    files: tuple[File, ...]
    credentials: tuple[LinkCredential, ...] = ()
    headers: tuple[LinkHeader, ...] = ()
    #: Whether no body is fetched before its size is Recorded: there is a limit on bytes.
    bounded: bool = False


class Extend(Message, frozen=True, tag="extend"):
    """More files for a run that has drained."""

    job: JobId
    run: int
    files: tuple[File, ...]


class Finish(Message, frozen=True, tag="finish"):
    """The run is over; drop its connections and wipe its secrets."""

    job: JobId
    run: int


class Stop(Message, frozen=True, tag="stop"):
    """Leave the job at once: flush, report the last durable offset, answer Stopped."""

    job: JobId
    run: int


class Retune(Message, frozen=True, tag="retune"):
    """The run goes on with another priority, limit and number of connections, at once."""

    job: JobId
    run: int
    priority: Priority
    #: Bytes a second; None: no limit.
    max_rate: int | None = None
    #: Connections; None: as many as the priority has.
    streams: int | None = None


class Terms(Message, frozen=True, tag="terms"):
    """What holds for all runs of the worker together, from now on."""

    #: Its share of what all workers may take. What is 0 limits nothing here.
    rates: Rates = FREE
    #: Background flows of other workers, which leave the line to this one's as well.
    others: int = 0


class Recorded(Message, frozen=True, tag="recorded"):
    """A Reset or Sized is in the queue file: bytes of the file may be written now."""

    job: JobId
    run: int
    file: int


class Ping(Message, frozen=True, tag="ping"):
    """Asked of a worker once in a while: one whose loop does not turn is ended."""

    request: int


ToWorker: TypeAlias = (
    Configure | Start | Extend | Finish | Stop | Retune | Terms | Recorded | Ping | Chore
)


# ── worker → daemon ────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True, tag="hello"):
    """The worker is there."""

    pid: int


class Connected(Message, frozen=True, tag="connected"):
    """The server of a file answered with the file."""

    job: JobId
    run: int


class Opened(Message, frozen=True, tag="opened"):
    """The temporary file of *file* exists."""

    job: JobId
    run: int
    file: int
    inode: Inode


class Progress(Message, frozen=True, tag="progress"):
    """How far a file is; not durable, for people to look at."""

    job: JobId
    run: int
    file: int
    received: int
    total: int | None = None


class Durable(Message, frozen=True, tag="durable"):
    """The first *offset* bytes of a file are on disk and belong to *validator*'s version.

    So are and do its *parts*, which replace those that were told before.
    """

    job: JobId
    run: int
    file: int
    offset: int
    total: int | None = None
    validator: Validator | None = None
    #: As File.parts.
    parts: tuple[Part, ...] = ()


class Sized(Message, frozen=True, tag="sized"):
    """A server has named the size of a file; in a bounded run its body waits for Recorded.

    Where there is no room for it in the queue, Stop comes instead.
    """

    job: JobId
    run: int
    file: int
    total: int


class Reset(Message, frozen=True, tag="reset"):
    """The partial data of a file is worthless. Nothing is overwritten before Recorded."""

    job: JobId
    run: int
    file: int


class FileDone(Message, frozen=True, tag="file_done"):
    """A file is whole, verified and on disk, under its temporary name."""

    job: JobId
    run: int
    file: int
    size: int
    inode: Inode
    length_unverified: bool = False
    #: What the server answered last; None where nothing had to be asked.
    http_status: int | None = None


class Drained(Message, frozen=True, tag="drained"):
    """Every file that the worker knows of is done; it waits for Extend, Finish or Stop."""

    job: JobId
    run: int


class Failed(Message, frozen=True, tag="failed"):
    """The run is over; every durable offset was reported before."""

    job: JobId
    run: int
    failure: Failure
    retry_after: Seconds | None = None


class Stopped(Message, frozen=True, tag="stopped"):
    """The run is over because of Stop; every durable offset was reported before."""

    job: JobId
    run: int


class Audited(Message, frozen=True, tag="audited"):
    """A credential was accepted or rejected (BITS events 203, 204)."""

    job: JobId
    run: int
    accepted: bool
    target: Target
    scheme: Scheme
    host: str
    #: What spoke inside the scheme.
    mechanism: str | None = None


class Paced(Message, frozen=True, tag="paced"):
    """Reads of a run's bodies are held to a rate, or are no more: no window rules what comes."""

    job: JobId
    run: int
    held: bool


class Pong(Message, frozen=True, tag="pong"):
    """Answer to Ping."""

    request: int


class Said(Message, frozen=True, tag="said"):
    """A line for the daemon's log: the link is all that a worker has to say it with.

    `level` is one of `debug`, `info`, `warning`, `error`; `event` is a name like `link.broken`.
    """

    level: str
    event: str
    fields: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)


FromWorker: TypeAlias = (
    Hello
    | Connected
    | Opened
    | Progress
    | Durable
    | Sized
    | Reset
    | FileDone
    | Drained
    | Failed
    | Stopped
    | Audited
    | Paced
    | Pong
    | Answer
    | Said
)
