"""What has to be done once in a while: old notices go, jobs that nobody touches are cancelled."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from transferd.model.errors import InvalidTransition, NotFound, StoreError
from transferd.model.job import Seconds
from transferd.service.closing import Closing
from transferd.service.outbox import NoticeStore
from transferd.service.ports import Clock, JobStore

log = logging.getLogger(__name__)

_INTERVAL: Seconds = 3600.0
_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How long things stay."""

    notices: timedelta
    #: Since the last change or byte of a job (BITS.md Y8, K10).
    inactivity: timedelta


class Housekeeper:
    """Tidies at the start and every hour."""

    def __init__(
        self, jobs: JobStore, notices: NoticeStore, closing: Closing, ages: Ages, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._notices = notices
        self._closing = closing
        self._ages = ages
        self._clock = clock

    def configure(self, ages: Ages) -> None:
        """Keep things for other times, from the next tidying on."""
        self._ages = ages

    async def run(self) -> None:
        """Tidy until cancelled."""
        while True:
            try:
                await self.tidy()
            except StoreError as error:
                log.error("store.failed", extra={"fields": {"reason": str(error)}})
            await self._clock.sleep(_INTERVAL)

    async def tidy(self) -> None:
        """Tidy once."""
        # Not the wall clock alone: stepped ahead by months, it would make everything old at once.
        steady = datetime.fromtimestamp(self._clock.steady(), UTC)
        now = min(steady, self._clock.now())
        await self._notices.prune(now - self._ages.notices)
        while stale := await self._jobs.untouched_since(now - self._ages.inactivity, _BATCH):
            for job_id in stale:
                with suppress(NotFound, InvalidTransition):
                    await self._closing.expire(job_id)
                    log.info("job.expired", extra={"fields": {"job": job_id}})
