"""The ends of worker processes: waited for in the background, by force in the end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from transferd.service.meter import Meter
from transferd.service.worker import Patience, Worker

log = logging.getLogger(__name__)


class Burials:
    """Workers that count as gone, and whose processes may not be."""

    def __init__(self, meter: Meter, patience: Patience) -> None:
        self._meter = meter
        self._patience = patience
        self._grace = patience.grace
        #: Killed processes that have not gone, by owner.
        self._undead: Counter[int] = Counter()
        self._burials: set[asyncio.Task[None]] = set()

    def bury(self, worker: Worker, life: asyncio.Task[None] | None) -> None:
        """See to the end of a worker, and of the task that hears it."""
        burial = asyncio.create_task(self._bury(worker, life), name=f"worker {worker.owner} end")
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    def undead(self, owner: int) -> int:
        """Return how many killed workers of an owner have not gone."""
        return self._undead[owner]

    def hurry(self) -> None:
        """Give those that are to leave by themselves less time: the daemon itself does."""
        self._grace = self._patience.closing_grace

    async def close(self) -> None:
        """Wait until all are gone, or for as long as can be."""
        if self._burials:
            _, stuck = await asyncio.wait(self._burials, timeout=self._patience.close)
            for burial in stuck:
                burial.cancel()
            if stuck:
                await asyncio.wait(stuck)

    async def _bury(self, worker: Worker, life: asyncio.Task[None] | None) -> None:
        if life is not None and not life.done():
            life.cancel()
            await asyncio.wait([life])
        if worker.fault is not None:
            worker.channel.abort()
        await worker.channel.close()
        status = await self._reap(worker)
        self._meter.worker_ended(status)
        fields = {"owner": worker.owner, "pid": worker.process.pid, "status": status}
        log.info("worker.ended", extra={"fields": fields})
        if status is None:
            await self._outwait(worker)

    async def _reap(self, worker: Worker) -> int | None:
        """Return the exit status; None: nothing helps."""
        if worker.fault is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    return await worker.process.wait()
            kill(worker)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience.death):
                return await worker.process.wait()
        return None

    async def _outwait(self, worker: Worker) -> None:
        """Wait for a process that outlives SIGKILL, so that its owner gets not too many of them."""
        self._undead[worker.owner] += 1
        try:
            await worker.process.wait()
        finally:
            self._undead[worker.owner] -= 1


def kill(worker: Worker) -> None:
    """Kill a worker's process, if it is there; what keeps us from it is logged."""
    try:
        worker.process.kill()
    except ProcessLookupError:
        pass
    except OSError as error:
        fields = {"owner": worker.owner, "pid": worker.process.pid, "reason": str(error)}
        log.error("worker.unkillable", extra={"fields": fields})
