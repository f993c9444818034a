"""Completion: whole files get their names and their jobs leave the queue, many jobs at a time.

Whatever waits for one owner shares a question to his worker and a transaction: one flush of his
directories and one of the queue file, for all of it. A crash in between leaves jobs that can be
completed again: what has its name already counts as published (BITS.md K4).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from transferd.model.errors import Conflict, Unavailable
from transferd.model.job import Inode, Job
from transferd.model.paths import temporary_path
from transferd.service.gate import Gate
from transferd.service.ports import Change, Clock, Ending, JobStore, Moved, Whole
from transferd.service.workers import WorkerGone, WorkerRefused, Workers
from transferd.wire import chores
from transferd.wire.bounds import QUESTION_ITEMS, QUESTION_NAMES, questions

#: Groups of one owner that are under way at once; another owner's slow files hold up nobody else's.
_HANDS = 4
#: Jobs of a group: others' changes wait for a few thousandths of a second.
GROUP = 64


@dataclass(frozen=True, slots=True)
class _Whole:
    """A file that is to get its name."""

    index: int
    local: str
    temporary: str
    inode: Inode

    @property
    def names(self) -> int:
        """Bytes of both names."""
        return len(self.local.encode()) + len(self.temporary.encode())


@dataclass(slots=True, eq=False)
class _Leaving:
    """A job that waits to be completed, and what has become of its files."""

    job: Job
    files: Sequence[_Whole]
    change: Change | None
    left: asyncio.Future[Moved]
    published: list[int] = field(default_factory=list)
    refused: list[chores.Refusal] = field(default_factory=list)

    @property
    def names(self) -> int:
        """Bytes of all names of its files."""
        return sum(file.names for file in self.files)

    def ask(self, number: int, file: _Whole) -> chores.Publication:
        """Return what its owner's worker is asked about a file."""
        settings = self.job.settings
        return chores.Publication(
            number, file.local, file.temporary, file.inode, settings.overwrite, settings.wary
        )

    def fail(self, error: Exception) -> None:
        """Say that the job stays."""
        if not self.left.done():
            self.left.set_exception(error)


class Completion:
    """Completes jobs that stand still."""

    def __init__(self, store: JobStore, workers: Workers, clock: Clock, gate: Gate) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._gate = gate
        self._waiting: dict[int, deque[_Leaving]] = {}
        self._busy: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, whole: Whole, change: Change | None) -> asyncio.Future[Moved]:
        """Publish the files of a job and take it out of the queue.

        The caller sees to it that nothing of the job moves until the future is done. It raises

            Conflict: a file could not get its name; the code is that of the failure, and the job
                stays. `owner_refused`: no worker runs as its owner.
            Unavailable: `worker_lost`, try again.
        """
        loop, owner = asyncio.get_running_loop(), whole.job.owner
        leaving = _Leaving(whole.job, _files(whole), change, loop.create_future())
        if owner not in self._waiting:
            self._waiting[owner] = deque()
            # What is begun in one turn of the loop leaves together.
            loop.call_soon(self._put_to_work, owner)
        self._waiting[owner].append(leaving)
        return leaving.left

    def _put_to_work(self, owner: int) -> None:
        waiting = self._waiting.get(owner)
        while waiting and self._busy[owner] < _HANDS:
            self._busy[owner] += 1
            work = self._carry(owner, _group(waiting))
            task = asyncio.get_running_loop().create_task(work, name=f"completion for {owner}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not waiting:
            self._waiting.pop(owner, None)

    async def _carry(self, owner: int, group: Sequence[_Leaving]) -> None:
        try:
            await self._publish(owner, group)
            await self._leave(group)
        except WorkerRefused as error:
            for each in group:
                each.fail(Conflict("owner_refused", f"cannot complete the job: {error}"))
        except WorkerGone as error:
            detail = f"cannot complete the job now: {error}; complete it again"
            for each in group:
                each.fail(Unavailable("worker_lost", detail))
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            for each in group:
                each.fail(error)
        finally:
            self._busy[owner] -= 1
            self._put_to_work(owner)

    async def _publish(self, owner: int, group: Sequence[_Leaving]) -> None:
        """Let the owner's worker give the files their names, and note what it says of each."""
        wanted = [(each, file) for each in group for file in each.files]
        batches = list(questions(wanted, lambda one: one[1].names))
        for batch in batches:
            files = tuple(each.ask(number, file) for number, (each, file) in enumerate(batch))
            answer = await self._workers.ask(
                owner, partial(chores.Publish, files=files), chores.Published
            )
            refusals = {refusal.number: refusal for refusal in answer.refusals}
            for number, (each, file) in enumerate(batch):
                if number in refusals:
                    each.refused.append(refusals[number])
                else:
                    each.published.append(file.index)
            if len(batches) > 1:  # of one job, with so many files that it may be long until its end
                await self._mark(group)

    async def _leave(self, group: Sequence[_Leaving]) -> None:
        """Take out of the queue whose files all have their names."""
        refused = [each for each in group if each.refused]
        await self._mark(refused)
        for each in refused:
            more = f" (and {len(each.refused) - 1} more files)" if len(each.refused) > 1 else ""
            each.fail(Conflict(each.refused[0].code, each.refused[0].message + more))
        leaving = [each for each in group if not each.refused]
        if not leaving:
            return
        endings = [
            Ending(job_id=each.job.id, published=tuple(each.published), change=each.change)
            for each in leaving
        ]
        async with self._gate.passing(*(each.job for each in leaving)):
            outcomes = await self._store.complete(endings, self._clock.now())
        for each, outcome in zip(leaving, outcomes, strict=True):
            if isinstance(outcome, Exception):
                each.fail(outcome)
            elif not each.left.done():
                each.left.set_result(outcome)

    async def _mark(self, group: Iterable[_Leaving]) -> None:
        for each in group:
            if each.published:
                await self._store.mark_published(each.job.id, each.published)
                each.published.clear()


def _group(waiting: deque[_Leaving]) -> list[_Leaving]:
    """Take the first of those who wait, and as many others as fit into one question with him."""
    group = [waiting.popleft()]
    items, names = len(group[0].files), group[0].names
    while waiting and len(group) < GROUP:
        items, names = items + len(waiting[0].files), names + waiting[0].names
        if items > QUESTION_ITEMS or names > QUESTION_NAMES:
            break
        group.append(waiting.popleft())
    return group


def _files(whole: Whole) -> list[_Whole]:
    return [
        _Whole(
            file.index, file.spec.local, temporary_path(file.spec.local, whole.job.id), file.inode
        )
        for file in whole.files
        if file.inode is not None
    ]
