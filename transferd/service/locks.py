"""One lock per job, for use cases of several steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from transferd.model.job import JobId


class JobLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[JobId, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, job_id: JobId) -> AsyncIterator[None]:
        """Be the only one who works on the job."""
        async with self._lock(job_id):
            yield

    @asynccontextmanager
    async def hold_all(self, job_ids: Iterable[JobId]) -> AsyncIterator[None]:
        """Be the only one who works on several jobs."""
        # All in one order, or two could wait for ever.
        locks = [self._lock(job_id) for job_id in sorted(set(job_ids))]
        held: list[asyncio.Lock] = []
        try:
            for lock in locks:
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()

    def _lock(self, job_id: JobId) -> asyncio.Lock:
        lock = self._locks.get(job_id)
        if lock is None:
            lock = self._locks[job_id] = asyncio.Lock()
        return lock

    def held(self, job_id: JobId) -> bool:
        """Whether somebody works on the job."""
        lock = self._locks.get(job_id)
        return lock is not None and lock.locked()
