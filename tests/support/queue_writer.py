"""Carries jobs through their lives and says what was acknowledged; run as a process of its own.

Prints `JOB STEP` after each step that the store has acknowledged, several jobs at a time.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from tests.support.store import Queue, offset, open_queue, spec
from transferd.model.job import JobId
from transferd.model.states import JobEvent

#: What a job goes through; the number of a step is its place here.
STEPS = ("create", "dispatch", "connect", "half", "done", "finish", "complete")
_AT_ONCE = 8


async def step(queue: Queue, job_id: JobId, name: str) -> None:
    """Take one step."""
    match name:
        case "create":
            await queue.make(spec(job_id=job_id))
        case "half":
            await queue.report(job_id, offset(50))
        case "done":
            await queue.done(job_id)
        case _:
            await queue.apply(job_id, JobEvent(name))


async def _carry(queue: Queue) -> None:
    while True:
        job_id = JobId(str(uuid.uuid4()))
        for number, name in enumerate(STEPS):
            await step(queue, job_id, name)
            sys.stdout.write(f"{job_id} {number}\n")
            sys.stdout.flush()


async def main(directory: Path) -> None:
    """Go on until killed."""
    async with open_queue(directory) as queue, asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(_carry(queue))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
