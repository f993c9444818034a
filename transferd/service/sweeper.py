"""Removes temporaries of jobs that have left the queue, once a worker of their owner's can.

They are remembered as strays until then: by the queue file, whatever happens meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from transferd.model.errors import StoreError
from transferd.model.job import Seconds
from transferd.service.ports import Clock, JobStore, Stray
from transferd.service.workers import WorkerGone, Workers
from transferd.wire import chores
from transferd.wire.bounds import questions

log = logging.getLogger(__name__)

_BATCH = 1000
#: Strays that are remembered for an owner whose worker does not answer, and how long.
_KEPT = 10_000
_AGAIN: Seconds = 600.0


class Sweeper:
    """Knows which strays nobody has been asked to remove yet."""

    def __init__(self, store: JobStore, workers: Workers, clock: Clock) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        #: Strays up to this number have been found, and those of whom nobody has been asked yet.
        self._swept = 0
        self._found: dict[int, list[Stray]] = {}
        self._finding = asyncio.Lock()

    async def sweep(self, owner: int) -> None:
        """Remove temporaries of the owner's jobs that are gone.

        Those of whom no worker could be asked wait for the next time, or a while; what a worker
        cannot remove waits for a restart.
        """
        try:
            answers = True
            while await self._find():
                answers = answers and await self._discard(owner)
            if answers:
                await self._discard(owner)
        except StoreError as error:
            # Their jobs have left the queue all the same.
            log.warning("stray.kept", extra={"fields": {"reason": str(error)}})

    async def run(self) -> None:
        """Remove what earlier daemons have left over, for every owner whose worker answers.

        For the others, and for those whose workers fail later, it is tried again now and then,
        until cancelled.
        """
        await self._sweep_found()
        while True:
            await self._clock.sleep(_AGAIN)
            await self._sweep_found()

    async def _sweep_found(self) -> None:
        hopeless: set[int] = set()

        async def discard(owner: int) -> None:
            if not await self._discard(owner):
                hopeless.add(owner)

        try:
            more = True
            while more:
                more = await self._find()
                async with asyncio.TaskGroup() as group:
                    for owner in self._found.keys() - hopeless:
                        group.create_task(discard(owner))
                for owner in hopeless & self._found.keys():
                    del self._found[owner][_KEPT:]
        except* StoreError as failed:
            reason = str(failed.exceptions[0])
            log.warning("stray.kept", extra={"fields": {"reason": reason}})

    async def _find(self) -> bool:
        """Look for strays that nobody has found yet; whether there were any."""
        async with self._finding:
            strays = await self._store.strays(_BATCH, after=self._swept)
            for stray in strays:
                self._found.setdefault(stray.owner, []).append(stray)
                self._swept = max(self._swept, stray.number)
        return bool(strays)

    async def _discard(self, owner: int) -> bool:
        """Have the owner's worker remove what was found; whether there was one to ask."""
        found, asked = self._found.pop(owner, []), 0
        for batch in questions(found, lambda s: len(s.temporary.encode())):
            leftovers = tuple(chores.Leftover(stray.number, stray.temporary) for stray in batch)
            question = partial(chores.Discard, leftovers=leftovers)
            try:
                answer = await self._workers.ask(owner, question, chores.Discarded)
                await self._forget(batch, answer)
            except WorkerGone as error:
                fields = {"owner": owner, "files": len(batch), "reason": str(error)}
                log.warning("stray.kept", extra={"fields": fields})
                self._put_off(owner, found[asked:])
                return False
            except StoreError:
                # Those that are removed by now are no trouble when they are asked for again.
                self._put_off(owner, found[asked:])
                raise
            asked += len(batch)
        return True

    def _put_off(self, owner: int, strays: Sequence[Stray]) -> None:
        self._found[owner] = [*strays, *self._found.get(owner, ())][:_KEPT]

    async def _forget(self, strays: Sequence[Stray], answer: chores.Discarded) -> None:
        kept = {refusal.number for refusal in answer.refusals}
        for refusal in answer.refusals:
            log.warning("stray.kept", extra={"fields": {"reason": refusal.message}})
        await self._store.forget_strays([s.number for s in strays if s.number not in kept])
