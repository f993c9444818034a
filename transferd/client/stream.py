"""What the daemon says by itself: its event stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from transferd.client.connection import Connection, path
from transferd.client.errors import DaemonFault
from transferd.client.sse import EventParser, ServerSentEvent
from transferd.model.choices import NoticeKind, kind_labels
from transferd.model.errors import NoDaemon, Unavailable
from transferd.model.units import Seconds
from transferd.wire.api import GapAnswer, NoticeAnswer

#: Waits between attempts to open a stream again: the first one, doubling up to the longest.
FIRST_DELAY: Seconds = 0.05
LONGEST_DELAY: Seconds = 5.0
#: Whoever waits for one thing bears a restart of the daemon, and not much more.
PATIENCE: Seconds = 60.0

_KINDS = frozenset(kind.label for kind in NoticeKind)


@dataclass(frozen=True, slots=True)
class Pulse:
    """The stream is (again) open, or has sent its heartbeat: a good moment to look at the job."""


Heard: TypeAlias = NoticeAnswer | GapAnswer | Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What somebody wants to hear."""

    kinds: NoticeKind
    #: None: of all jobs that the caller may see.
    job: str | None = None
    #: Replay from this number on; None: from now on.
    after: int | None = None
    #: Of everybody's jobs, where no job is named.
    all_users: bool = False


async def hear(
    connection: Connection, interest: Interest, *, patience: Seconds | None
) -> AsyncGenerator[Heard, None]:
    """Yield what is heard, for ever.

    A broken stream is opened again behind the last notice that was heard; terminal notices that
    nobody has acknowledged come again then.

    Raises:
        NoDaemon, Unavailable: nobody has answered for *patience* seconds (None: never).
        CallerError, DaemonFault: the stream is refused.
    """
    loop = asyncio.get_running_loop()
    params = {"kinds": ",".join(kind_labels(interest.kinds))}
    if interest.job is not None:
        params["job"] = interest.job
    elif interest.all_users:
        params["all_users"] = "true"
    last, delay, lost = interest.after, FIRST_DELAY, None
    while True:
        try:
            async with connection.stream(path("events"), params, last) as chunks:
                lost = None
                yield Pulse()
                parser = EventParser()
                async for chunk in chunks:
                    delay = FIRST_DELAY
                    events: list[Heard] = [*_decode(parser, chunk)]
                    for event in events or [Pulse()]:
                        last = _cursor(last, event)
                        yield event
        except (NoDaemon, Unavailable):
            lost = lost if lost is not None else loop.time()
            if patience is not None and loop.time() - lost + delay > patience:
                raise
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def _cursor(last: int | None, event: Heard) -> int | None:
    """Return behind which number the stream goes on after *event*."""
    if isinstance(event, GapAnswer):
        return event.oldest - 1  # also downwards: then the queue file is another one
    if isinstance(event, NoticeAnswer) and event.number is not None:
        return max(last or 0, event.number)  # an older one comes again, and moves nothing
    return last


def _decode(parser: EventParser, chunk: bytes) -> Iterator[NoticeAnswer | GapAnswer]:
    try:
        for event in parser.feed(chunk):
            if (answer := _answer(event)) is not None:
                yield answer
    except (ValueError, msgspec.MsgspecError) as error:
        raise DaemonFault(
            f"cannot understand the daemon's events: {error}; "
            "are daemon and client of the same version?"
        ) from error


def _answer(event: ServerSentEvent) -> NoticeAnswer | GapAnswer | None:
    """Read an event; one of a kind that this version does not know is None."""
    if event.kind == "gap":
        return msgspec.json.decode(event.data, type=GapAnswer)
    if event.kind in _KINDS:
        return msgspec.json.decode(event.data, type=NoticeAnswer)
    return None
