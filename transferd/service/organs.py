"""What the use cases stand on."""

from __future__ import annotations

from dataclasses import dataclass

from transferd.service.closing import Closing
from transferd.service.locks import JobLocks
from transferd.service.outcomes import Outcomes
from transferd.service.ports import Clock, JobStore
from transferd.service.quotas import Quotas
from transferd.service.runs import Runs
from transferd.service.scheduler import Scheduler
from transferd.service.stagger import Stagger
from transferd.service.windows import Windows
from transferd.service.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """Everything that a use case may need of the service."""

    store: JobStore
    runs: Runs
    scheduler: Scheduler
    workers: Workers
    closing: Closing
    outcomes: Outcomes
    locks: JobLocks
    quotas: Quotas
    windows: Windows
    stagger: Stagger
    clock: Clock
