"""What operators ask of the service itself. Fits `api.ports.AdminUseCases`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transferd import __version__
from transferd.model.caller import Caller
from transferd.model.errors import NotFound, OwnerRefused, StoreError
from transferd.model.paths import job_of_temporary
from transferd.model.states import JobState
from transferd.model.upkeep import Finding, Severity
from transferd.service.figures import Figures
from transferd.service.keyring import KeyRing
from transferd.service.ports import Clock, JobStore
from transferd.service.surroundings import (
    Places,
    look_at_clock,
    look_at_files,
    look_at_limits,
    look_at_space,
    resident_memory,
    size_of,
)
from transferd.service.workers import WorkerGone, Workers
from transferd.wire import chores
from transferd.wire.admin import (
    CheckAnswer,
    FindingAnswer,
    RotationAnswer,
    StatusAnswer,
    UserAnswer,
)
from transferd.wire.answers import rfc3339

log = logging.getLogger(__name__)

#: Temporaries that are told of one by one.
_TOLD = 100
#: Directories that a worker is asked about at a time.
_BATCH = 1000
#: Before files that are being removed at the moment are taken for left behind.
_SETTLE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What operators ask about."""

    store: JobStore
    keys: KeyRing
    workers: Workers
    figures: Figures
    clock: Clock
    places: Places
    #: Whose jobs a caller's are.
    owner_of: Callable[[Caller], int]
    #: Name of a user; may wait for the user database.
    name_of: Callable[[int], str]


class Administration:
    """The use cases of operators."""

    def __init__(self, subjects: Subjects, configuration: Path | None) -> None:
        """Take the file that the *configuration* comes from; None: the defaults."""
        self._subjects = subjects
        self._configuration = configuration
        self._refused: str | None = None
        self._started = self._configured = subjects.clock.now()

    def configured(self, configuration: Path | None) -> None:
        """Take note that the configuration was read again."""
        self._configuration = configuration
        self._refused = None
        self._configured = self._subjects.clock.now()

    def refused(self, reason: str) -> None:
        """Take note that the configuration was to be read again, and why it was not taken."""
        self._refused = reason

    async def status(self) -> StatusAnswer:
        """Say how the service is, in detail."""
        subjects = self._subjects
        tallies = await subjects.store.tallies()
        places, pid = subjects.places, os.getpid()
        return StatusAnswer(
            version=__version__,
            pid=pid,
            system=places.system,
            started=rfc3339(self._started),
            configured=rfc3339(self._configured),
            configuration=None if self._configuration is None else str(self._configuration),
            key=subjects.keys.source,
            socket=str(places.socket),
            state_directory=str(places.state),
            queue_bytes=size_of(places.queue_files[:2]),
            memory=resident_memory(pid) or 0,
            connections=subjects.figures.connections,
            jobs=_labelled(await subjects.store.counts()),
            users=await asyncio.to_thread(self._users, tallies, dict(subjects.workers.pids)),
            errors=dict(await subjects.store.error_codes()),
        )

    def _users(
        self, tallies: Mapping[int, Mapping[JobState, int]], pids: Mapping[int, int]
    ) -> list[UserAnswer]:
        return [
            UserAnswer(
                uid=uid,
                name=self._subjects.name_of(uid),
                jobs=_labelled(tallies.get(uid, {})),
                worker_pid=pids.get(uid),
                worker_memory=resident_memory(pids[uid]) if uid in pids else None,
            )
            for uid in sorted({*tallies, *pids})
        ]

    async def figures(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        from transferd.service import exposition  # most daemons are never asked

        subjects = self._subjects
        counts = await subjects.store.counts()
        return exposition.render(subjects.figures, counts, len(subjects.workers))

    async def rotate_key(self) -> RotationAnswer:
        """Seal every secret under a new key."""
        done = await self._subjects.keys.rotate()
        answer = RotationAnswer(key=done.key, resealed=done.resealed, unreadable=done.unreadable)
        fields = {"key": done.key, "resealed": done.resealed, "unreadable": done.unreadable}
        log.info("key.rotated", extra={"fields": fields})
        return answer

    # ── what is wrong ────────────────────────────────────────────────────────────────────

    async def check(self, caller: Caller) -> CheckAnswer:
        """Look for what is wrong, and change nothing."""
        subjects, clock = self._subjects, self._subjects.clock
        looks: dict[str, Callable[[], Awaitable[Iterable[Finding]]]] = {
            "configuration": self._configuration_findings,
            "queue": self._queue,
            "key": subjects.keys.findings,
            "files": partial(
                asyncio.to_thread,
                look_at_files,
                subjects.places,
                self._configuration,
                os.geteuid(),
            ),
            "space": partial(asyncio.to_thread, look_at_space, subjects.places.state),
            "limits": partial(asyncio.to_thread, look_at_limits),
            "clock": partial(asyncio.to_thread, look_at_clock, clock.now(), clock.steady()),
            "worker": partial(self._worker, caller),
            "temporaries": self._temporaries,
        }
        findings: list[Finding] = []
        for look in looks.values():
            try:
                findings += await look()
            except StoreError as error:
                findings.append(_damaged(str(error)))
        told = [
            FindingAnswer(
                code=finding.code,
                severity=finding.severity.value,
                text=finding.text,
                remedy=finding.remedy,
            )
            for finding in findings
        ]
        return CheckAnswer(checked=list(looks), findings=told)

    async def _configuration_findings(self) -> list[Finding]:
        if self._refused is None:
            return []
        return [
            Finding(
                code="configuration_refused",
                severity=Severity.ERROR,
                text=f"the configuration was not taken at the last reload: {self._refused}",
                remedy="mend it and reload; the service would not start with it",
            )
        ]

    async def _queue(self) -> list[Finding]:
        return [_damaged(fault) for fault in await self._subjects.store.verify()]

    async def _worker(self, caller: Caller) -> list[Finding]:
        owner = self._subjects.owner_of(caller)
        try:
            await self._survey(owner, ())
        except (WorkerGone, OwnerRefused) as error:
            return [
                Finding(
                    code="worker_failed",
                    severity=Severity.ERROR,
                    text=f"no worker runs for uid {owner}: {error}",
                    remedy="mend what the log says; jobs of that user are tried again meanwhile",
                )
            ]
        return []

    async def _temporaries(self) -> list[Finding]:
        """Look for partial data that nobody will remove by himself."""
        kept = await self._strays()
        if kept:
            await self._subjects.clock.sleep(_SETTLE)
            kept &= await self._strays()
        found = [_orphan(path, "its job is gone, and it could not be removed") for path in kept]
        for owner, directories in (await self._subjects.store.directories()).items():
            try:
                paths = await self._survey(owner, directories)
            except (WorkerGone, OwnerRefused) as error:
                found.append(_unseen(owner, error))
                continue
            for path in paths:
                if len(found) < _TOLD and path not in kept and not await self._known(path):
                    found.append(_orphan(path, "this queue knows no such job"))
        return sorted(found[:_TOLD], key=lambda finding: finding.text)

    async def _strays(self) -> set[str]:
        return {stray.temporary for stray in await self._subjects.store.strays(_TOLD)}

    async def _survey(self, owner: int, directories: Sequence[str]) -> list[str]:
        """Have the owner's worker look; what lies elsewhere is no answer.

        Raises:
            WorkerGone, OwnerRefused: it could not be asked.
        """
        found: list[str] = []
        for start in range(0, max(1, len(directories)), _BATCH):
            batch = tuple(directories[start : start + _BATCH])
            question = partial(chores.Survey, directories=batch)
            answer = await self._subjects.workers.ask(owner, question, chores.Surveyed)
            places = {os.path.join(directory, "") for directory in batch}
            found += [
                path
                for path in answer.temporaries
                if os.path.join(os.path.dirname(path), "") in places
            ]
        return found

    async def _known(self, path: str) -> bool:
        job_id = job_of_temporary(path)
        if job_id is None:
            return True  # no temporary of ours
        try:
            await self._subjects.store.job(job_id)
        except NotFound:
            return False
        return True


def _labelled(counts: Mapping[JobState, int]) -> dict[str, int]:
    return {state.label: count for state, count in counts.items()}


def _damaged(fault: str) -> Finding:
    return Finding(
        code="queue_damaged",
        severity=Severity.ERROR,
        text=f"the queue file is damaged: {fault}",
        remedy="stop the service, move the queue file away and put a backup in its place",
    )


def _orphan(path: str, reason: str) -> Finding:
    return Finding(
        code="temporary_orphaned",
        severity=Severity.WARNING,
        text=f"partial data lies in {path}: {reason}",
        remedy="remove it, unless another transferd of its owner's fetches it",
    )


def _unseen(owner: int, error: Exception) -> Finding:
    return Finding(
        code="temporaries_unseen",
        severity=Severity.WARNING,
        text=f"cannot look for partial data of uid {owner}: {error}",
        remedy="see why no worker runs for that user",
    )
