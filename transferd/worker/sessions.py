"""TLS sessions of earlier connections: the next one to the same server begins with less work."""

from __future__ import annotations

import ssl
from typing import TypeAlias
from weakref import WeakKeyDictionary

#: A server, as host and port.
Place: TypeAlias = tuple[str, int]

#: Servers of whom a session is kept, for each set of believed certificates.
_MOST = 256


class Sessions:
    """The last session with each server.

    A session counts only with the context that it was made with: what is believed of a server then
    is what was verified at its first handshake, under its name and by the same certificates.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[ssl.SSLContext, dict[Place, ssl.SSLSession]] = (
            WeakKeyDictionary()
        )

    def find(self, context: ssl.SSLContext, place: Place) -> ssl.SSLSession | None:
        """Return a session to resume."""
        return self._kept.get(context, {}).get(place)

    def keep(self, context: ssl.SSLContext, place: Place, session: ssl.SSLSession | None) -> None:
        """Remember the session of a connection that has proved good."""
        if session is None or not session.has_ticket:
            return
        kept = self._kept.setdefault(context, {})
        kept.pop(place, None)
        kept[place] = session
        if len(kept) > _MOST:
            del kept[next(iter(kept))]
