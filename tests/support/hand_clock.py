"""A clock that a test moves by hand, and jobs that nobody has stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from transferd.model.job import Job, JobId, JobType, Priority, Settings, Timers
from transferd.model.states import JobState

_BEGIN = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
_TIMERS = Timers(min_retry_delay=60, no_progress_timeout=1000, max_download_time=0)


class HandClock:
    """Fits `service.ports.Clock`; nobody waits by it."""

    def __init__(self, moment: float = 1000.0) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return _BEGIN + timedelta(seconds=self.moment)

    def steady(self) -> float:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        self.moment += seconds


def queued_job(
    name: str = "job", *, owner: int = 1000, priority: Priority = Priority.NORMAL, **changes: Any
) -> Job:
    """Return a job that was just created and started."""
    given: dict[str, Any] = {
        "id": JobId(name),
        "owner": owner,
        "type": JobType.DOWNLOAD,
        "settings": Settings(name=name, timers=_TIMERS, priority=priority),
        "state": JobState.QUEUED,
        "files_total": 1,
        "files_transferred": 0,
        "bytes_total": None,
        "bytes_transferred": 0,
        "credentials": (),
        "error": None,
        "error_count": 0,
        "created": _BEGIN,
        "modified": _BEGIN,
        "transferred_at": None,
    }
    return Job(**given | changes)
