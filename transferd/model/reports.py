"""What becomes of a running job, as its run reports it to the queue: one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from transferd.model.errors import Conflict, InvalidTransition
from transferd.model.job import File, Inode, Part, Validator
from transferd.model.queue import Moved


@dataclass(frozen=True, slots=True)
class Connected:
    """The server of a file has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file has this temporary file."""

    file: int
    inode: Inode


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is durable of one file."""

    file: int
    offset: int
    total: int | None
    validator: Validator | None
    #: As File.parts.
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """The size that a server has named for a file, before the first byte of it."""

    file: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Offset, parts, total, validator and completion of a file count for nothing any more."""

    file: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A file is whole; of one that was before it says nothing new."""

    file: int
    size: int
    inode: Inode
    length_unverified: bool


Report: TypeAlias = Connected | Opened | Checkpoint | Sized | Reset | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the queue has made of some reports."""

    #: The job after them, and what was written to the outbox.
    moved: Moved
    #: The first of its files that are not completed, where they were asked for and there are any.
    files: tuple[File, ...] = ()
    #: Why a size was not kept, nor any after it.
    refusal: Conflict | None = None
    #: Why the job did not move: somebody else was faster.
    overtaken: InvalidTransition | None = None
