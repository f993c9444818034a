"""Server-sent events, however their bytes arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.client import sse
from transferd.client.sse import EventParser, ServerSentEvent

STREAM = (
    b": heartbeat\n\n"
    b"id: 7\nevent: transferred\ndata: {}\n\n"
    b"event: gap\r\ndata: a\r\ndata: b\r\n\r\n"
    b"data:no space\rdata\r\r"
    b"event: nothing to say\n\n"
    b"data: \xc3\xa4\n\n"
    b"data: never dispatched\n"
)
EVENTS = [
    ServerSentEvent("transferred", "{}"),
    ServerSentEvent("gap", "a\nb"),
    ServerSentEvent("message", "no space\n"),
    ServerSentEvent("message", "ä"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_events_do_not_depend_on_where_chunks_are_cut(cuts: list[int]) -> None:
    """WHATWG HTML 9.2.6: lines end in CR, LF or CRLF, and TCP knows no lines."""
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    events = [
        event
        for begin, end in itertools.pairwise(edges)
        for event in parser.feed(STREAM[begin:end])
    ]
    assert events == EVENTS


def test_every_single_byte_may_be_a_chunk() -> None:
    """The smallest chunks are no special case."""
    parser = EventParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers on the socket may be anything; memory is not."""
    monkeypatch.setattr(sse, "MAX_LINE", 100)
    parser = EventParser()
    with pytest.raises(ValueError, match="too long"):
        parser.feed(b"x" * 101)
