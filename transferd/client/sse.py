"""Server-sent events, from bytes: WHATWG HTML, section 9.2.6 "Interpreting an event stream"."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: More than this without an end of line is not an event stream of ours.
MAX_LINE = 64 * 1024 * 1024

# A lone CR ends a line too, unless it is the last byte so far: an LF may follow.
_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. Its `id:` is left out: our events carry their number in the data."""

    kind: str
    data: str


class EventParser:
    """Takes a stream apart, wherever its chunks are cut."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that *chunk* completes.

        Raises:
            ValueError: a line is longer than MAX_LINE.
        """
        # Only what has not been looked at is searched: a long line in many chunks stays linear.
        begin = max(0, len(self._rest) - 1)
        self._rest += chunk
        done = 0
        events = []
        for end in _END.finditer(self._rest, begin):
            line = self._rest[done : end.start()].decode("utf-8", "replace")
            done = end.end()
            if (event := self._take(line)) is not None:
                events.append(event)
        del self._rest[:done]
        if len(self._rest) > MAX_LINE:
            raise ValueError("a line of the event stream is too long")
        return events

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._kind = value
        elif field == "data":
            self._data.append(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data = "", []
        if not data:
            return None
        return ServerSentEvent(kind, "\n".join(data))
