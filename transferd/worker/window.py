"""The window that the kernel advertises for one connection, and what it knows of the path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from dataclasses import dataclass
from typing import TypeAlias

from transferd.model.job import Seconds
from transferd.transfer.delay import Look
from transferd.transfer.pacing import LARGEST

_INFO_BYTES = 236
#: Of struct tcp_info (<linux/tcp.h>): both window scales in one byte, segment, RTTs in µs…
_SCALES, _SEGMENT, _RTT, _LEAST_RTT = 6, 20, 68, 148
#: …how long ago bytes came, in ms, the receiver's RTT in µs, how many came, segments out of order,
#: how many bytes may come.
_AGE, _ROUND, _RECEIVED, _DISORDERED, _ADVERTISED = 52, 92, 128, 224, 232
_OPTIONS, _TIMESTAMPS = 5, 1
#: SO_BUF_LOCK (<asm/socket.h>, Linux 5.14): 0 has the kernel choose the sizes of buffers again.
_BUFFER_LOCK = 72
#: Bytes that last until a reader who is held to a rate comes again.
_LITTLE = 512 * 1024
_UNKNOWN = 0xFFFFFFFF
_NUMBER = struct.Struct("=I")
_LONG = struct.Struct("=Q")
_INT = struct.Struct("@i")
#: Of paths that tell nothing.
_USUAL_SEGMENT = 536
_USUAL_RTT: Seconds = 0.05


#: Where a socket is to be opened: family, kind, protocol, name and address.
Place: TypeAlias = tuple[
    socket.AddressFamily | int, socket.SocketKind | int, int, str, tuple[object, ...]
]

#: The codepoint LE of RFC 8622, 000001, above two bits of ECN.
_LOWER_EFFORT = 0b000001 << 2


def open_steerable(place: Place, *, lower_effort: bool = False) -> socket.socket:
    """Open a TCP socket, to be connected, whose window can be steered.

    With *lower_effort* routers may let everybody else's packets pass first.
    """
    sock = open_plain(place)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, LARGEST)
    if lower_effort:
        _mark(sock, _LOWER_EFFORT)
    return sock


def open_plain(place: Place) -> socket.socket:
    """Open a TCP socket, to be connected."""
    family, kind, protocol, _, _ = place
    return socket.socket(family, kind, protocol)


def _mark(sock: socket.socket, mark: int) -> None:
    """Have the packets of *sock* bear a differentiated services field (RFC 2474 3)."""
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, mark)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What the kernel has learned of a path by now."""

    #: The smallest RTT of the last minutes, the handshake's at first.
    rtt: Seconds
    #: Bytes of a full segment that comes.
    segment: int
    #: The scale of the windows that are advertised (RFC 7323 2.3).
    scale: int


class Window:
    """Steers what a connected TCP socket advertises (tcp(7), TCP_WINDOW_CLAMP).

    What was advertised is not taken back: a smaller window takes effect as bytes come in. All
    methods raise OSError when the connection is gone.
    """

    def __init__(self, descriptor: int) -> None:
        """Use a copy of *descriptor*, whatever becomes of that."""
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def path(self) -> Path:
        """Ask the kernel for what it knows."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        info = info.ljust(_INFO_BYTES, b"\0")  # an older kernel tells less
        (rtt,), (least,) = _NUMBER.unpack_from(info, _RTT), _NUMBER.unpack_from(info, _LEAST_RTT)
        known = rtt if least in (0, _UNKNOWN) else least
        (segment,) = _NUMBER.unpack_from(info, _SEGMENT)
        return Path(
            rtt=known / 1e6 or _USUAL_RTT,
            segment=segment or _USUAL_SEGMENT,
            scale=info[_SCALES] >> 4 if sys.byteorder == "little" else info[_SCALES] & 15,
        )

    def look(self) -> Look:
        """Ask the kernel what has come."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        (count,), (age,) = _LONG.unpack_from(info, _RECEIVED), _NUMBER.unpack_from(info, _AGE)
        (rtt,) = _NUMBER.unpack_from(info, _ROUND)
        told = len(info) >= _ADVERTISED + _NUMBER.size
        return Look(
            received=count,
            age=age / 1000,
            advertised=_NUMBER.unpack_from(info, _ADVERTISED)[0] if told else None,
            # Without timestamps it is the least that was ever seen, which says nothing of now.
            rtt=rtt / 1e6 if rtt and info[_OPTIONS] & _TIMESTAMPS else None,
            disordered=_NUMBER.unpack_from(info, _DISORDERED)[0] if told else 0,
        )

    def unread(self) -> int:
        """Return how many bytes have come that nobody has read."""
        (count,) = _INT.unpack(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(_INT.size)))
        return int(count)

    def clamp(self, size: int) -> None:
        """Advertise no more than *size* bytes from now on."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size)

    def store(self, *, little: bool) -> None:
        """Have the kernel keep only little of what nobody reads, or what it thinks right."""
        if little:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LITTLE)
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _BUFFER_LOCK, 0)
        except OSError:
            # An older kernel keeps the size that it was told; then let that be a large one.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGEST)

    def open(self) -> None:
        """Advertise whatever the kernel thinks right, up to what was thought of at the start."""
        self.clamp(LARGEST)

    def mark(self, *, lower_effort: bool) -> None:
        """Let routers treat the connection from now on as `open_steerable` says, or as any."""
        _mark(self._socket, _LOWER_EFFORT if lower_effort else 0)

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()
