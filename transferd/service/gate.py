"""The way out of the queue: one owner's large jobs leave one after the other.

With many files a job takes a while to leave, and everybody's changes wait for it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AbstractAsyncContextManager, nullcontext

from transferd.model.job import Job

#: Files of a job that is not large.
_LARGE = 1000


class Gate:
    """Lets jobs out."""

    def __init__(self) -> None:
        self._large: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def passing(self, *jobs: Job) -> AbstractAsyncContextManager[None]:
        """Return the block in which jobs of one owner leave together."""
        if any(job.files_total > _LARGE for job in jobs):
            return self._large[jobs[0].owner]
        return nullcontext()
