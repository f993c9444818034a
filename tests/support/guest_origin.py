"""An origin on a guest's network, with the pages and manners of `tests.support.origin`."""

from __future__ import annotations

import asyncio
import os
from collections import deque

from tests.support.netns import Network
from tests.support.origin import HEAD_BYTES, Document, Fault, Origin, Version

#: What is downloaded, and where an answer may be held.
BODY = os.urandom(3_000_000)
HALF = 2_000_000


class GuestOrigin(Origin):
    """A server at 127.0.0.1 of a guest; it outlives the guest's reboots, as the network does."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    def serve(self, path: str, *, held: bool = False, slow: bool = False) -> Document:
        """Serve BODY; its first answer is *held* at HALF until the document's `go` is set.

        A *slow* one takes half a minute, or until its `drip` is set to 0.
        """
        faults = deque([Fault(stall=HALF)] if held else [])
        document = Document(version=Version(body=BODY), faults=faults, drip_bytes=10_000)
        document.drip = 0.1 if slow else 0.0
        self.pages[path] = document
        return document

    def starts(self, path: str) -> list[int | None]:
        """Where the requests for a path began, in order; None without a range."""
        return [seen.range_start for seen in self.requests(path)]

    async def _listen(self) -> asyncio.Server:
        listening = self._network.listen(self.port)
        return await asyncio.start_server(self._connected, sock=listening, limit=HEAD_BYTES)
