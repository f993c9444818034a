"""Over which interfaces the Internet is reached, as the kernel says (rtnetlink(7)).

The kernel is asked for the route to an address that is certainly elsewhere. That is its own
decision, by all tables and rules: a VPN may leave the default route alone and go before it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

#: Name servers of the root, one of each family. Nothing is sent there.
_ELSEWHERE = ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30"))
#: struct nlmsghdr: length, type, flags, sequence, port.
_HEADER = struct.Struct("=IHHII")
#: struct rtmsg: family, bits of the address, …
_ROUTE = struct.Struct("=BBBBBBBBI")
#: struct rtattr: length, type.
_ATTRIBUTE = struct.Struct("=HH")
_RTM_NEWROUTE, _RTM_GETROUTE, _NLM_F_REQUEST = 24, 26, 1
_RTA_DST, _RTA_OIF = 1, 4
_ANSWER = 65536


def question(family: int, address: bytes) -> bytes:
    """Return the message that asks for the route to an address."""
    wanted = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
    wanted += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _RTA_DST) + address
    return _HEADER.pack(_HEADER.size + len(wanted), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + wanted


def outgoing(answer: bytes) -> int | None:
    """Return the index of the interface that a route leads over; None where there is no route."""
    if len(answer) < _HEADER.size:
        return None
    length, kind, *_ = _HEADER.unpack_from(answer)
    offset, end = _HEADER.size + _ROUTE.size, min(length, len(answer))
    while kind == _RTM_NEWROUTE and offset + _ATTRIBUTE.size <= end:
        size, what = _ATTRIBUTE.unpack_from(answer, offset)
        value = answer[offset + _ATTRIBUTE.size : min(offset + size, end)]
        if what == _RTA_OIF and len(value) == 4:
            return int(struct.unpack("=I", value)[0])
        if size < _ATTRIBUTE.size:
            break
        offset += (size + 3) & ~3
    return None


def interfaces() -> frozenset[str]:
    """Return the names of the interfaces; none where the machine is not connected."""
    return frozenset(name for family, address in _ELSEWHERE if (name := _leads(family, address)))


def _leads(family: int, address: str) -> str | None:
    with suppress(OSError):  # no netlink, or the interface has just gone
        kernel = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        with kernel:
            # The answer is there when the question is sent.
            kernel.setblocking(False)
            kernel.send(question(family, socket.inet_pton(family, address)))
            if index := outgoing(kernel.recv(_ANSWER)):
                return socket.if_indextoname(index)
    return None
