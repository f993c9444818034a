"""An origin on a guest's network, with the pages and manners of `tests.support.origin`."""

from __future__ import annotations

import asyncio

from tests.support.netns import Network
from tests.support.origin import HEAD_BYTES, Origin


class GuestOrigin(Origin):
    """A server at 127.0.0.1 of a guest; it outlives the guest's reboots, as the network does."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    async def _listen(self) -> asyncio.Server:
        listening = self._network.listen(self.port)
        return await asyncio.start_server(self._connected, sock=listening, limit=HEAD_BYTES)
