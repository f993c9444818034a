"""How much a worker may say: it keeps to this by itself, and the daemon insists on it.

A worker is another user's process. What it sends is bounded so that nothing that it could say
fills the daemon's memory, its log or the queue file; what servers have sent is cut to fit before
it is said, so that no server can get an honest worker into trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec

from transferd.wire import chores, link
from transferd.wire.message import Message

T = TypeVar("T")

#: The longest line, with a margin: the largest honest one refuses everything in a question of
#: QUESTION_NAMES bytes of names, each named twice and each byte escaped in six.
LINE = 1024 * 1024
#: How many files a question is about at most…
QUESTION_ITEMS = 1000
#: …and how many bytes their names have together, unless it is about one file only.
QUESTION_NAMES = 32 * 1024

#: Parts of a file behind its first hole.
PARTS = 64
#: Of a file. Sums over a hundred thousand of them fit into the integers of the queue file.
BYTES = 2**46
#: Characters of a sentence for people; it may hold a URL and a path.
SENTENCE = 16 * 1024
#: Characters of a path.
PATH = 4096
#: Characters of a header that tells versions apart; a longer one is as good as none.
VALIDATOR = 1024
#: Characters of `host:port`, and of a mechanism's name.
HOST, MECHANISM = 300, 64
#: Characters of what a command wrote.
DETAIL = 4096
#: Fields of a line for the log, and characters of a name and of a value.
FIELDS, NAME, VALUE = 16, 64, 4096


def questions(items: Sequence[T], names: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Split what a worker is to be asked about, so that its answer is not too long.

    *names* returns the bytes of all names of an item.
    """
    start = size = 0
    for position, item in enumerate(items):
        more = names(item)
        full = position - start == QUESTION_ITEMS or size + more > QUESTION_NAMES
        if full and position > start:
            yield items[start:position]
            start, size = position, 0
        size += more
    if start < len(items):
        yield items[start:]


def bounded(message: Message) -> Message:
    """Return what a worker sends of *message*: its texts are cut to what the daemon takes."""
    match message:
        case link.Failed(failure=failure):
            failure = replace(
                failure,
                message=cut(failure.message, SENTENCE),
                file=None if failure.file is None else failure.file[:PATH],
                advice=None if failure.advice is None else cut(failure.advice, SENTENCE),
            )
            return msgspec.structs.replace(message, failure=failure)
        case chores.Inspected() | chores.Published() | chores.Discarded():
            return _bounded_answer(message)
        case chores.Surveyed():
            return msgspec.structs.replace(message, temporaries=_fitting(message.temporaries))
        case chores.CommandEnded():
            return msgspec.structs.replace(message, detail=cut(message.detail, DETAIL))
        case link.Audited(mechanism=mechanism):
            return msgspec.structs.replace(
                message,
                host=cut(message.host, HOST),
                mechanism=None if mechanism is None else cut(mechanism, MECHANISM),
            )
        case link.Said():
            return _bounded_line(message)
        case _:
            return message


def cut(text: str, most: int) -> str:
    """Return *text* with at most so many characters; the end of a longer one is `…`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _bounded_answer(
    answer: chores.Inspected | chores.Published | chores.Discarded,
) -> chores.Inspected | chores.Published | chores.Discarded:
    refusals = tuple(
        msgspec.structs.replace(refusal, message=cut(refusal.message, SENTENCE))
        for refusal in answer.refusals
    )
    return msgspec.structs.replace(answer, refusals=refusals)


def _fitting(paths: Sequence[str]) -> tuple[str, ...]:
    """Return as many paths as a line has room for."""
    size, kept = 0, []
    for path in paths:
        size += len(msgspec.json.encode(path)) + 1
        if size > LINE // 2:
            break
        kept.append(path)
    return tuple(kept)


def _bounded_line(said: link.Said) -> link.Said:
    fields = {
        name[:NAME]: cut(value, VALUE) if isinstance(value, str) else value
        for name, value in list(said.fields.items())[:FIELDS]
    }
    return msgspec.structs.replace(said, fields=fields)
