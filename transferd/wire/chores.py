"""What a worker is asked beside its runs, and its answers; `request` pairs the two."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from transferd.model.job import Inode
from transferd.wire.message import Message

# ── daemon → worker ────────────────────────────────────────────────────────────────────────


class Inspect(Message, frozen=True, tag="inspect"):
    """May files be written under these names? Touches nothing."""

    request: int
    paths: tuple[str, ...]
    #: Positions of those that replace nothing: there must be no file of that name yet.
    new: tuple[int, ...] = ()


class Holding(msgspec.Struct, frozen=True):
    """One file of a job that somebody else has had so far."""

    number: int
    local: str
    temporary: str
    #: Which temporary file it has; None: none that the daemon knows of.
    inode: Inode | None = None


class Assume(Message, frozen=True, tag="assume"):
    """Could this worker carry these files on? Touches nothing; answered with Inspected."""

    request: int
    files: tuple[Holding, ...]
    #: Who has chosen where they go.
    former: int


class Publication(msgspec.Struct, frozen=True):
    """One whole temporary file that gets its final name."""

    number: int
    local: str
    temporary: str
    inode: Inode
    #: As in the Settings of its job.
    overwrite: bool
    wary: bool = False


class Publish(Message, frozen=True, tag="publish"):
    """Give files, of any jobs, their final names, durably.

    Idempotent: what is published already is success.
    """

    request: int
    files: tuple[Publication, ...]


class Leftover(msgspec.Struct, frozen=True):
    """A temporary file that nobody wants any more."""

    number: int
    temporary: str


class Discard(Message, frozen=True, tag="discard"):
    """Remove temporary files; one that is not there counts as removed."""

    request: int
    leftovers: tuple[Leftover, ...]


class RunCommand(Message, frozen=True, tag="command"):
    """Run a notification command: no shell, no PATH search, JSON of the notice on its stdin."""

    request: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    stdin: str


class Survey(Message, frozen=True, tag="survey"):
    """Which of our temporary files are in these directories? Touches nothing."""

    request: int
    directories: tuple[str, ...]


Chore: TypeAlias = Inspect | Assume | Publish | Discard | RunCommand | Survey


# ── worker → daemon ────────────────────────────────────────────────────────────────────────


class Refusal(msgspec.Struct, frozen=True):
    """What is wrong with the path or file of that number."""

    number: int
    code: str
    message: str


class Inspected(Message, frozen=True, tag="inspected"):
    """Answer to Inspect, where numbers are positions in its paths, and to Assume."""

    request: int
    refusals: tuple[Refusal, ...] = ()


class Published(Message, frozen=True, tag="published"):
    """Answer to Publish; numbers are those of the files. What is not refused is published."""

    request: int
    refusals: tuple[Refusal, ...] = ()


class Discarded(Message, frozen=True, tag="discarded"):
    """Answer to Discard; numbers are those of the leftovers that could not be removed."""

    request: int
    refusals: tuple[Refusal, ...] = ()


class CommandEnded(Message, frozen=True, tag="command_ended"):
    """Answer to RunCommand; `status` is None when it could not be started or was killed."""

    request: int
    status: int | None
    detail: str = ""


class Surveyed(Message, frozen=True, tag="surveyed"):
    """Answer to Survey: paths of files with the name of a temporary."""

    request: int
    temporaries: tuple[str, ...] = ()


Answer: TypeAlias = Inspected | Published | Discarded | CommandEnded | Surveyed
