"""An answer of which something may have been read before it is known where it goes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass

from transferd.model.errors import TransferFailed
from transferd.model.job import Checksum, Seconds
from transferd.transfer.resume import Response
from transferd.worker.answer import Answer


@dataclass(slots=True)
class Begun:
    """An answer, and what was read of its body already."""

    answer: Answer
    #: What the answer says, but for its body.
    response: Response
    #: When it was asked for, on the loop's clock.
    at: Seconds
    data: bytes = b""

    async def read_whole(self, total: int, patience: Seconds) -> bool:
        """Read a body of *total* bytes, as long as that takes no more than *patience*.

        False: it is not here yet, or broken; reading on will tell.
        """
        self.data = self.answer.read_now()
        if len(self.data) == total:
            return True
        with contextlib.suppress(TimeoutError, TransferFailed):
            async with asyncio.timeout_at(self.at + patience):
                while len(self.data) < total and (data := await self.answer.read()):
                    self.data += data
        return len(self.data) == total

    def matches(self, expected: Checksum | None) -> bool:
        """Whether what was read has the checksum that is expected, if one is."""
        if expected is None:
            return True
        return hashlib.new(expected.algorithm, self.data).hexdigest() == expected.digest
