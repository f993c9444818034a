"""The queue against a model of it: any sequence of requests, restarts in between."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from tests.support.store import (
    ALICE,
    BOB,
    EVERY_KIND,
    MISSING,
    NOW,
    Queue,
    done,
    file_specs,
    offset,
    open_queue,
    spec,
    stumble,
)
from transferd.model.errors import Conflict, NotFound
from transferd.model.job import JobId, Part, Priority
from transferd.model.limits import Quota
from transferd.model.notices import NoticeKind
from transferd.model.queue import Change
from transferd.model.reports import Reset, Sized
from transferd.model.states import TRANSITIONS, JobEvent, JobState
from transferd.store.opening import QUEUE_FILE

_OF_STATE = {JobState.TRANSFERRED: NoticeKind.TRANSFERRED, JobState.ERROR: NoticeKind.ERROR}
_CHANGES = {
    JobEvent.STUMBLE: stumble(),
    JobEvent.FAIL: Change(failure=MISSING),
}
_ALL = NoticeKind(0x1FF)
_MOST_BYTES = 20


@dataclass
class ModelFile:
    """What is known of a file."""

    #: Those of its parts among them.
    bytes: int = 0
    total: int | None = None
    completed: bool = False


@dataclass
class ModelJob:
    """What is known of a job."""

    owner: int
    state: JobState
    files: list[ModelFile]
    #: When it was queued last.
    position: int
    error_count: int = 0
    attempts: int = 0
    open_notices: list[int] = field(default_factory=list)


class QueueMachine(RuleBasedStateMachine):
    """Does to the queue and to the model what hypothesis thinks of."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="queue-model-"))
        self.runner = asyncio.Runner()
        self.model: dict[JobId, ModelJob] = {}
        self.notices: list[tuple[NoticeKind, JobId]] = []
        #: Open notices of jobs that the daemon itself has ended.
        self.orphans: list[int] = []
        self.made = 0
        self.positions = itertools.count()
        self.stack = AsyncExitStack()
        self.queue = self._open()

    def _open(self) -> Queue:
        opening = self.stack.enter_async_context(open_queue(self.directory))
        return self.runner.run(opening)

    def teardown(self) -> None:
        """Close everything."""
        self.runner.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.directory)

    # ── what happens ─────────────────────────────────────────────────────────────────────

    @rule(
        target=jobs,
        owner=st.sampled_from([ALICE, BOB]),
        files=st.lists(st.integers(0, 3), min_size=1, max_size=3),
        start=st.booleans(),
    )
    def create(self, owner: int, files: list[int], start: bool) -> object:
        """Make several jobs; all of them, or none when one is empty and is to start."""
        ids = [self._new_id() for _ in files]
        wishes = [
            spec(count, start=start, job_id=job_id)
            for count, job_id in zip(files, ids, strict=True)
        ]
        making = self.queue.jobs.create(owner, wishes, NOW, quota=Quota(jobs_per_user=1000))
        if start and not all(files):
            self._refused(making, Conflict)
            return multiple()
        self.runner.run(making)
        for count, job_id in zip(files, ids, strict=True):
            state = JobState.QUEUED if start else JobState.SUSPENDED
            files_made = [ModelFile() for _ in range(count)]
            self.model[job_id] = ModelJob(owner, state, files_made, next(self.positions))
        return multiple(*ids)

    def _new_id(self) -> JobId:
        self.made += 1
        return JobId(f"model-{self.made:04}")

    @rule(job=jobs, count=st.integers(1, 2))
    def add_files(self, job: JobId, count: int) -> None:
        """Append files."""
        known = self.model.get(job)
        first = len(known.files) if known else 0
        adding = self.queue.jobs.add_files(
            job, file_specs(count, first=first), NOW, files_per_job=1000, quota=Quota()
        )
        if known is None:
            self._refused(adding, NotFound)
            return
        self.runner.run(adding)
        known.files += [ModelFile() for _ in range(count)]

    @rule(job=jobs, event=st.sampled_from(JobEvent), of_the_daemon=st.booleans())
    def apply(self, job: JobId, event: JobEvent, of_the_daemon: bool) -> None:
        """Apply an event, legal or not."""
        change = _CHANGES.get(event, Change() if of_the_daemon else None)
        moving = self.queue.jobs.apply(job, event, NOW, change)
        known = self.model.get(job)
        if known is None:
            self._refused(moving, NotFound)
            return
        after = TRANSITIONS[known.state].get(event)
        empty = event is JobEvent.RESUME and not known.files
        if after is None or empty:
            self._refused(moving, Conflict)
            return
        moved = self.runner.run(moving)
        assert (moved.before, moved.job.state) == (known.state, after)
        if after is not known.state:
            self._move(job, known, event, after, settle=change is None)

    def _move(
        self, job: JobId, known: ModelJob, event: JobEvent, after: JobState, *, settle: bool
    ) -> None:
        if after is JobState.QUEUED:
            known.position = next(self.positions)
        known.state = after
        known.error_count += event in _CHANGES
        known.attempts += event is JobEvent.STUMBLE
        if event in (JobEvent.RESUME, JobEvent.REOPEN):
            known.attempts = 0
            known.open_notices.clear()
        if after.final:
            self._tell(NoticeKind.ENDED, job)
            if not settle:
                self.orphans += known.open_notices
            del self.model[job]
        elif after in _OF_STATE:
            known.open_notices.append(self._tell(_OF_STATE[after], job))

    def _tell(self, kind: NoticeKind, job: JobId) -> int:
        self.notices.append((kind, job))
        return len(self.notices)

    @rule(
        job=jobs,
        file=st.integers(0, 3),
        prefix=st.integers(0, 5),
        part=st.integers(0, 3),
        total=st.none() | st.just(9),
    )
    def checkpoint(self, job: JobId, file: int, prefix: int, part: int, total: int | None) -> None:
        """Some bytes are on disk, and some behind them."""
        parts = (Part(start=6, end=6 + part),) if part else ()
        reaching = self.queue.report(job, offset(prefix, *parts, file=file, total=total))
        known = self.model.get(job)
        if known is None or file >= len(known.files):
            self._refused(reaching, NotFound)
            return
        self.runner.run(reaching)
        now = known.files[file]
        if now.completed:
            return
        if prefix + part > now.bytes and known.state not in (
            JobState.ERROR,
            JobState.TRANSIENT_ERROR,
        ):
            known.attempts = 0
        now.bytes, now.total = prefix + part, total

    @rule(job=jobs, file=st.integers(0, 3), total=st.integers(1, 9))
    def size(self, job: JobId, file: int, total: int) -> None:
        """A server names a size; here, nobody may have more than so many bytes."""
        quota = Quota(bytes_per_user=_MOST_BYTES)
        sizing = self.queue.report(job, Sized(file=file, total=total), quota=quota)
        known = self.model.get(job)
        if known is None or file >= len(known.files):
            self._refused(sizing, NotFound)
            return
        there = known.files[file]
        if there.completed or there.total == total:
            self.runner.run(sizing)
            return
        others = [each for each in self.model.values() if each.owner == known.owner]
        before = sum(each.total or 0 for other in others for each in other.files)
        refusal = self.runner.run(sizing).refusal
        if before - (there.total or 0) + total > _MOST_BYTES:
            assert refusal is not None
        else:
            assert refusal is None
            there.total = total

    @rule(job=jobs, file=st.integers(0, 3), size=st.integers(0, 9))
    def file_done(self, job: JobId, file: int, size: int) -> None:
        """A file is whole."""
        doing = self.queue.report(job, done(file, size=size))
        known = self.model.get(job)
        if known is None or file >= len(known.files):
            self._refused(doing, NotFound)
            return
        notices = self.runner.run(doing).moved.notices
        assert len(notices) == (not known.files[file].completed)
        if not known.files[file].completed:
            known.files[file] = ModelFile(size, size, completed=True)
            if known.state not in (JobState.ERROR, JobState.TRANSIENT_ERROR):
                known.attempts = 0
            self._tell(NoticeKind.FILE_TRANSFERRED, job)

    @rule(job=jobs, file=st.integers(0, 3))
    def reset_file(self, job: JobId, file: int) -> None:
        """A file has to be fetched anew."""
        resetting = self.queue.report(job, Reset(file=file))
        known = self.model.get(job)
        if known is None or file >= len(known.files):
            self._refused(resetting, NotFound)
            return
        self.runner.run(resetting)
        known.files[file] = ModelFile()

    @rule(number=st.integers(1, 20))
    def settle(self, number: int) -> None:
        """Somebody acknowledges a notice."""
        settling = self.queue.notices.settle(number)
        if number > len(self.notices):
            self._refused(settling, NotFound)
            return
        assert self.runner.run(settling).settled
        for numbers in (self.orphans, *(job.open_notices for job in self.model.values())):
            if number in numbers:
                numbers.remove(number)

    @rule(job=consumes(jobs))
    def use_id_again(self, job: JobId) -> None:
        """An id stays used, whether its job is there or not."""
        making = self.queue.jobs.create(
            BOB, [spec(3, job_id=job)], NOW, quota=Quota(jobs_per_user=1000)
        )
        known = self.model.get(job)
        if known is not None and known.owner == BOB:
            (created,) = self.runner.run(making)
            assert not created.new
        else:
            self._refused(making, Conflict)

    @rule()
    def restart(self) -> None:
        """The daemon ends and starts again."""
        self.runner.run(self.stack.aclose())
        self.queue = self._open()
        running = [job for job, known in self.model.items() if known.state.running]
        assert self.runner.run(self.queue.jobs.recover(0.0)) == len(running)
        for job in running:
            self.model[job].state = JobState.QUEUED

    def _refused(self, attempt: Coroutine[Any, Any, object], error: type[Exception]) -> None:
        with pytest.raises(error):
            self.runner.run(attempt)

    # ── what must hold ───────────────────────────────────────────────────────────────────

    @invariant()
    def jobs_are_those_of_the_model(self) -> None:
        """States and sums of every job."""
        page = self.runner.run(self.queue.jobs.jobs(owner=None, states=None, after=0, limit=1000))
        assert {job.id for job in page.jobs} == set(self.model)
        for job in page.jobs:
            known = self.model[job.id]
            totals = [file.total for file in known.files]
            assert (job.owner, job.state) == (known.owner, known.state)
            assert job.files_total == len(known.files)
            assert job.files_transferred == sum(file.completed for file in known.files)
            assert job.bytes_transferred == sum(file.bytes for file in known.files)
            assert job.bytes_total == (None if None in totals else sum(t or 0 for t in totals))
            assert (job.error_count, job.attempts) == (known.error_count, known.attempts)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        """The tallies."""
        counts = self.runner.run(self.queue.jobs.counts())
        states = [known.state for known in self.model.values()]
        assert counts == {state: states.count(state) for state in counts}
        tallies = self.runner.run(self.queue.jobs.tallies())
        each = {(owner, state): n for owner, of in tallies.items() for state, n in of.items()}
        assert each == Counter((known.owner, known.state) for known in self.model.values())

    @invariant()
    def bytes_are_those_of_the_model(self) -> None:
        """What limits are held against: known sizes, of each owner and of all."""
        owned: Counter[int] = Counter()
        for known in self.model.values():
            owned[known.owner] += sum(file.total or 0 for file in known.files)
        with closing(sqlite3.connect(self.directory / QUEUE_FILE)) as cx:
            each = dict(cx.execute("SELECT owner, sum(bytes) FROM tallies GROUP BY owner"))
            everybody = cx.execute("SELECT jobs, bytes FROM machine").fetchone()
        assert {owner: each.get(owner, 0) for owner in (ALICE, BOB)} == {
            owner: owned[owner] for owner in (ALICE, BOB)
        }
        assert everybody == (len(self.model), owned.total())

    @invariant()
    def the_queue_has_the_order_of_the_model(self) -> None:
        """Who runs next."""
        runnable = self.runner.run(self.queue.runnable(Priority.NORMAL, 1000))
        queued = [job for job, known in self.model.items() if known.state is JobState.QUEUED]
        assert runnable == self._in_turn(queued)

    def _in_turn(self, queued: list[JobId]) -> list[JobId]:
        """Everybody's first in the order of their positions, everybody's second…"""
        met: Counter[int] = Counter()
        ranked: list[tuple[int, int, JobId]] = []
        for job in sorted(queued, key=lambda job: self.model[job].position):
            known = self.model[job]
            met[known.owner] += 1
            ranked.append((met[known.owner], known.position, job))
        return [job for _, _, job in sorted(ranked)]

    @invariant()
    def notices_are_those_of_the_model(self) -> None:
        """The outbox: all that was told, and what waits for an acknowledgement."""
        every = self.runner.run(
            self.queue.notices.replay(after=0, owner=None, job_id=None, kinds=_ALL, limit=1000)
        )
        assert [(notice.kind, notice.job_id) for notice in every] == self.notices
        assert [notice.number for notice in every] == list(range(1, len(every) + 1))
        waiting = self.runner.run(
            self.queue.notices.unsettled(
                owner=None, job_id=None, kinds=EVERY_KIND, after=0, limit=1000
            )
        )
        expected = sorted(
            [*self.orphans, *(n for job in self.model.values() for n in job.open_notices)]
        )
        assert [notice.number for notice in waiting] == expected


TestQueueModel = QueueMachine.TestCase
TestQueueModel.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
