"""What a worker says, held against what the daemon knows. Pure.

A worker is another user's process: a parser in it may have been taken over, or its owner may have
replaced it. Whatever it says can harm jobs of its own owner at most. An honest worker breaks none
of these rules (see `wire.bounds`), so that one that breaks any is not to be believed at all.

Raises of all functions: LinkBroken, with what the worker did.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TypeAlias

import msgspec

from transferd.model.errors import LinkBroken
from transferd.model.failures import FAILURES, Failure
from transferd.model.job import File, Inode, Part, Validator, covered
from transferd.model.limits import MOST_STREAMS
from transferd.transfer.retry import LONGEST_RETRY_AFTER
from transferd.wire import bounds, chores, link

Refusals: TypeAlias = chores.Inspected | chores.Published | chores.Discarded
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
    | link.Paced
)

#: Levels of lines for the log.
LEVELS = frozenset({"debug", "info", "warning", "error"})
#: So often a file may begin anew in one run…
_RESETS = 64
#: …and so many may be open at once: as many as a job may have streams.
_OPEN = MOST_STREAMS
_SIGNED, _UNSIGNED = 2**63, 2**64
_EXIT_STATUS = 2**31

#: Of three digits, as HTTP has them.
_HTTP_CODE = re.compile(r"http_[0-9]{3}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_EVENT = re.compile(r"[a-z][a-z0-9_.]{0,63}")
#: Would begin another line, steer a terminal, or show a text as what it is not.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def legible(text: str) -> str:
    """Return a text of a worker's for people: what is not for their eyes is replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


# ── any message by itself ──────────────────────────────────────────────────────────────────


def examine_run(message: RunMessage) -> RunMessage:
    """Check what is said of a run, without knowing the run; returns it with legible texts."""
    match message:
        case link.Opened():
            _check_inode(message.inode)
        case link.Progress():
            _check_bytes(message.received, message.total)
        case link.Sized():
            _check_bytes(0, message.total)
        case link.Durable():
            _check_bytes(message.offset, message.total)
            _check_parts(message.parts, message.offset, message.total)
            _check_validator(message.validator)
        case link.FileDone():
            _check_bytes(message.size, None)
            _check_inode(message.inode)
            _check_status(message.http_status)
        case link.Failed():
            _check_wait(message.retry_after)
            return msgspec.structs.replace(message, failure=_examine_failure(message.failure))
        case link.Audited():
            _check_text("host", message.host, bounds.HOST)
            _check_text("mechanism", message.mechanism or "", bounds.MECHANISM)
        case _:
            pass
    return message


def examine_line(said: link.Said) -> link.Said:
    """Check a line for the log."""
    if said.level not in LEVELS:
        raise LinkBroken("it says a line for the log with a level that is none")
    if not _EVENT.fullmatch(said.event):
        raise LinkBroken("it says a line for the log whose event has no name")
    if len(said.fields) > bounds.FIELDS:
        raise LinkBroken(f"it says a line for the log with {len(said.fields)} fields")
    for name, value in said.fields.items():
        _check_length("name of a field for the log", name, bounds.NAME)
        if isinstance(value, str):
            _check_length("text for the log", value, bounds.VALUE)
        elif isinstance(value, int):
            _check_range("number for the log", value, -_SIGNED, _UNSIGNED)
    return said


def _examine_failure(failure: Failure) -> Failure:
    if failure.code not in FAILURES and not _HTTP_CODE.fullmatch(failure.code):
        raise LinkBroken("it fails with a code that nobody knows")
    _check_status(failure.http_status)
    _check_length("failure", failure.message, bounds.SENTENCE)
    _check_length("path", failure.file or "", bounds.PATH)
    _check_length("advice", failure.advice or "", bounds.SENTENCE)
    return replace(
        failure,
        message=legible(failure.message),
        advice=None if failure.advice is None else legible(failure.advice),
    )


def _check_bytes(offset: int, total: int | None) -> None:
    _check_range("offset", offset, 0, bounds.BYTES + 1)
    if total is not None:
        _check_range("size", total, 0, bounds.BYTES + 1)
        if offset > total:
            raise LinkBroken("it has more bytes of a file than the file has")


def _check_parts(parts: Sequence[Part], offset: int, total: int | None) -> None:
    if len(parts) > bounds.PARTS:
        raise LinkBroken(f"it has a file in {len(parts)} parts")
    if parts and total is None:
        raise LinkBroken("it has parts of a file whose size it does not know")
    first = offset + 1  # the first byte may be the hole that they are behind
    for part in parts:
        if not first <= part.start < part.end <= (total or 0):
            raise LinkBroken("it has parts of a file that are not behind each other in it")
        first = part.end


def _check_inode(inode: Inode) -> None:
    _check_range("device", inode.device, 0, _UNSIGNED)
    _check_range("inode", inode.number, 0, _UNSIGNED)
    if inode.born is not None:
        _check_range("time of birth", inode.born, -_SIGNED, _SIGNED)


def _check_validator(validator: Validator | None) -> None:
    if validator is not None:
        for text in (validator.etag, validator.last_modified, validator.date):
            _check_length("header", text or "", bounds.VALIDATOR)


def _check_status(status: int | None) -> None:
    if status is not None:
        _check_range("HTTP status", status, 0, 1000)


def _check_wait(seconds: float | None) -> None:
    if seconds is not None and not (isfinite(seconds) and 0 <= seconds <= LONGEST_RETRY_AFTER):
        raise LinkBroken("it wants to wait for a time that is none")


def _check_range(what: str, number: int, first: int, end: int) -> None:
    if not first <= number < end:
        raise LinkBroken(f"it says a number that cannot be the {what}")


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise LinkBroken(f"it says a {what} of {len(text)} characters")


def _check_text(what: str, text: str, most: int) -> None:
    _check_length(what, text, most)
    if _CONTROL.search(text):
        raise LinkBroken(f"it says a {what} with control characters")


# ── answers ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Question:
    """What a worker was asked, as far as it decides which answers there are."""

    kind: type[chores.Answer]
    #: What a refusal may be about.
    numbers: Collection[int] = ()

    @classmethod
    def of(cls, chore: chores.Chore) -> Question:
        """Return the question that is in a message."""
        match chore:
            case chores.Inspect():
                return cls(chores.Inspected, range(len(chore.paths)))
            case chores.Assume():
                return cls(chores.Inspected, frozenset(file.number for file in chore.files))
            case chores.Publish():
                return cls(chores.Published, frozenset(file.number for file in chore.files))
            case chores.Discard():
                return cls(chores.Discarded, frozenset(left.number for left in chore.leftovers))
            case chores.RunCommand():
                return cls(chores.CommandEnded)
            case chores.Survey():
                return cls(chores.Surveyed)


def examine_answer(question: Question | None, answer: chores.Answer) -> chores.Answer:
    """Check an answer to what was asked, or to nothing; returns it with legible texts."""
    if question is None:
        raise LinkBroken("it answers what nobody asked")
    if not isinstance(answer, question.kind):
        raise LinkBroken("it answers another question")
    match answer:
        case chores.CommandEnded(status=status):
            _check_length("detail", answer.detail, bounds.DETAIL)
            if status is not None:
                _check_range("exit status", status, -_EXIT_STATUS, _EXIT_STATUS)
            return msgspec.structs.replace(answer, detail=legible(answer.detail))
        case chores.Surveyed():
            for path in answer.temporaries:
                _check_length("path", path, bounds.PATH)
            return answer
        case _:
            return _examine_refusals(question, answer)


def _examine_refusals(question: Question, answer: Refusals) -> Refusals:
    numbers = {refusal.number for refusal in answer.refusals}
    if len(numbers) < len(answer.refusals) or not all(n in question.numbers for n in numbers):
        raise LinkBroken("it refuses what it was not asked about")
    for refusal in answer.refusals:
        # What keeps a file from its name may become the failure of a job.
        known = not isinstance(answer, chores.Published) or refusal.code in FAILURES
        if not known or not _CODE.fullmatch(refusal.code):
            raise LinkBroken("it refuses with a code that nobody knows")
        _check_length("refusal", refusal.message, bounds.SENTENCE)
    refusals = tuple(
        msgspec.structs.replace(refusal, message=legible(refusal.message))
        for refusal in answer.refusals
    )
    return msgspec.structs.replace(answer, refusals=refusals)


# ── runs ───────────────────────────────────────────────────────────────────────────────────


class Heed(enum.Enum):
    """What becomes of a message about a run."""

    #: It is bounded by what the worker was given: heard.
    NEWS = enum.auto()
    #: It could be said any number of times: heard, and counted.
    TALK = enum.auto()
    #: It says nothing new: counted.
    NOTHING = enum.auto()


@dataclass(slots=True)
class _Given:
    """A file that the worker was given and has not done."""

    offset: int
    #: Bytes that are durable, those of its parts among them.
    covered: int
    opened: bool = False
    resets: int = 0


class Record:
    """What the worker of one run was given, and how far it has come by its own words."""

    def __init__(self) -> None:
        self._files: dict[int, _Given] = {}
        self._open = 0
        self._connected = False
        #: Before it was given anything there is nothing to be done with.
        self._drained = True
        self._over = False
        #: Whether the worker was told to stop.
        self.stopped = False

    def give(self, files: Iterable[File]) -> None:
        """Take that the worker is told of these files now; before it is."""
        for file in files:
            self._files[file.index] = _Given(file.bytes_transferred, file.bytes_covered)
        self._drained = False

    def hear(self, message: RunMessage) -> Heed:
        """Take a message, in the order in which the worker said them."""
        if self._over:
            return Heed.NOTHING
        match message:
            case link.Connected():
                repeated, self._connected = self._connected, True
                return Heed.NOTHING if repeated else Heed.NEWS
            case link.Drained() | link.Failed() | link.Stopped():
                self._end(message)
                return Heed.NEWS
            case link.Audited() | link.Paced():
                return Heed.TALK
            case _:
                return self._hear_of(self._file(message.file), message)

    def _end(self, message: link.Drained | link.Failed | link.Stopped) -> None:
        match message:
            case link.Drained():
                if self._files or self._drained:
                    raise LinkBroken("it is done with files that it did not report")
                self._drained = True
            case link.Failed():
                self._over = True
            case link.Stopped():
                if not self.stopped:
                    raise LinkBroken("it stops a job that it was not told to stop")
                self._over = True

    def _hear_of(
        self,
        file: _Given,
        message: link.Opened
        | link.Progress
        | link.Durable
        | link.Sized
        | link.Reset
        | link.FileDone,
    ) -> Heed:
        match message:
            case link.Opened():
                return self._take_opening(file)
            case link.Durable(offset=offset):
                _reach(file, offset, covered(offset, message.parts))
                return Heed.TALK
            case link.Reset():
                file.offset = file.covered = 0
                file.resets += 1
                if file.resets > _RESETS:
                    raise LinkBroken("it begins a file anew again and again")
                return Heed.TALK
            case link.FileDone(size=size):
                _reach(file, size, size)
                del self._files[message.file]
                self._open -= file.opened
                return Heed.NEWS
            case _:
                return Heed.TALK

    def _take_opening(self, file: _Given) -> Heed:
        if file.opened:
            return Heed.NOTHING
        file.opened = True
        self._open += 1
        if self._open > _OPEN:
            raise LinkBroken(f"it has more than {_OPEN} files of a job open at once")
        return Heed.NEWS

    def _file(self, index: int) -> _Given:
        file = self._files.get(index)
        if file is None:
            raise LinkBroken("it speaks of a file that it was not given, or has done")
        return file


def _reach(file: _Given, offset: int, count: int) -> None:
    """Take that *count* bytes of a file are durable, of which *offset* are its first ones."""
    if offset < file.offset or count < file.covered:
        raise LinkBroken("it goes back in a file that it did not begin anew")
    file.offset, file.covered = offset, count
