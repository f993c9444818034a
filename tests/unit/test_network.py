"""Which messages of the kernel mean that the network is back."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from transferd.service.network import announces_route


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
