"""What the kernel's messages say: that the network is back, and where a route leads."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from transferd.service.network import announces_route
from transferd.service.routes import outgoing, question


def message(kind: int, payload: bytes = b"") -> bytes:
    """Pack one netlink message."""
    raw = struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, 0) + payload
    return raw + bytes(-len(raw) % 4)


def test_a_new_route_is_seen_behind_other_messages() -> None:
    """A datagram holds several messages, each padded to four bytes."""
    assert announces_route(message(20, b"abcde") + message(24))
    assert not announces_route(message(25) + message(16))


@given(st.binary(max_size=200))
def test_any_datagram_is_read_to_an_end(datagram: bytes) -> None:
    """Garbage neither raises nor loops."""
    assert announces_route(datagram) in (True, False)
    outgoing(datagram)


def attribute(kind: int, value: bytes) -> bytes:
    """Pack one attribute of a route."""
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + bytes(-len(raw) % 4)


def test_a_route_tells_its_interface_behind_other_attributes() -> None:
    """RTA_OIF, wherever it stands."""
    before = attribute(15, b"\xfe\0\0\0") + attribute(1, b"odd")
    route = bytes(12) + before + attribute(4, struct.pack("=I", 7))
    assert outgoing(message(24, route)) == 7
    assert outgoing(message(24, bytes(12) + before)) is None
    assert outgoing(message(2, struct.pack("=i", -101) + route)) is None


@given(st.binary(max_size=80))
def test_an_answer_that_makes_no_sense_has_no_interface(rest: bytes) -> None:
    """Neither does a length that is a lie, nor one of zero, which ends the reading."""
    assert outgoing(message(24, rest[:12].ljust(12) + b"\0\0\0\0" + rest)) is None


def test_the_question_is_one_for_an_address() -> None:
    """RTM_GETROUTE with RTA_DST: the kernel decides as for a packet that goes there."""
    asked = question(2, bytes([198, 41, 0, 4]))
    assert struct.unpack_from("=IHHII", asked) == (36, 26, 1, 1, 0)
    assert asked[16:18] == bytes([2, 32])
    assert asked[28:] == attribute(1, bytes([198, 41, 0, 4]))
