"""Kills a service at every step of a change of its key, and looks at what is left; a program.

`python -m tests.support.rotator DIRECTORY` prints after how many steps of a rotation it was killed.
`python -m tests.support.rotator DIRECTORY credential` does so where the key becomes a credential.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.store import ALICE, NOW, PASSWORD, Queue, credential, header, open_queue, spec
from transferd.model.job import JobId, JobSpec
from transferd.model.limits import Quota
from transferd.store import database, rotation

JOBS = 5
_HEADER = "Bearer hunter3"
_QUOTA = Quota(jobs_per_user=1000)


def wishes() -> list[JobSpec]:
    """Jobs with secrets, as the same request would ask for them again."""
    return [
        JobSpec(
            settings=spec().settings,
            files=spec().files,
            id=JobId(f"6f1c9a52-0d6e-4b1b-9b06-{number:012}"),
            fingerprint=b"request %d" % number,
            credentials=(credential(),),
            headers=(header("Authorization", _HEADER),),
        )
        for number in range(JOBS)
    ]


async def check(queue: Queue) -> None:
    """Every secret opens, and every repeated request is recognised."""
    for wish in wishes():
        assert wish.id is not None
        secrets = await queue.jobs.secrets(wish.id, NOW)
        assert [each.password.reveal() for each in secrets.credentials] == [PASSWORD]
        assert [each.value.reveal() for each in secrets.headers] == [_HEADER]
    again = await queue.jobs.create(ALICE, wishes(), NOW, quota=_QUOTA)
    assert not any(each.new for each in again)


class Rotator:
    """A state directory, and a rotation that is cut off."""

    def __init__(self, place: Path, *, credential: bool) -> None:
        self._template = place / "template"
        self._state = place / "state"
        self._credentials = place / "credentials" if credential else None
        asyncio.run(self._fill())
        if self._credentials is not None:
            self._credentials.mkdir()
            (self._credentials / "vault.key").write_bytes(b"c" * 32)
            (self._credentials / "vault.key").chmod(0o400)

    async def _fill(self) -> None:
        async with open_queue(self._template) as queue:
            await queue.jobs.create(ALICE, wishes(), NOW, quota=_QUOTA)

    def run(self) -> int:
        """Cut it off after every number of steps; return how many there are."""
        rotation._BATCH = 2
        steps = 0
        while self._cut_off(steps):
            asyncio.run(self._go_on())
            steps += 1
        asyncio.run(self._check())
        return steps

    def _cut_off(self, steps: int) -> bool:
        """Rotate, and be killed after so many steps; returns whether there were as many."""
        shutil.rmtree(self._state, ignore_errors=True)
        shutil.copytree(self._template, self._state)
        pid = os.fork()
        if pid == 0:
            _die_after(steps)
            asyncio.run(self._rotate())
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status in (0, signal.SIGKILL), status
        return status != 0

    async def _rotate(self) -> None:
        async with open_queue(self._state, credentials=self._credentials) as queue:
            await queue.keys.rotate()

    async def _go_on(self) -> None:
        """What was killed goes on with everything it had, and a repetition leaves one key."""
        async with open_queue(self._state, credentials=self._credentials) as queue:
            await check(queue)
            codes = {finding.code for finding in await queue.keys.findings()}
            assert codes <= {"key_unremoved"}, codes
            if self._credentials is None or codes:
                assert (await queue.keys.rotate()).unreadable == 0
            await check(queue)
        await self._check()

    async def _check(self) -> None:
        async with open_queue(self._state, credentials=self._credentials) as queue:
            await check(queue)
            assert await queue.keys.findings() == ()
        keys = sorted(path.name for path in self._state.iterdir() if "key" in path.name)
        assert keys == ([] if self._credentials else ["vault.key"]), keys


def _die_after(steps: int) -> None:
    """Have this process killed before it changes anything once more."""
    left = steps

    def step() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "unlink"):
        setattr(os, name, stepping(getattr(os, name)))
    transact = database.transact

    def carry(path: Path, connection: Any, operations: Sequence[Any]) -> Any:
        step()
        return transact(path, connection, operations)

    database.transact = carry


def main(place: Path, what: str = "") -> None:
    """Do it all."""
    print(Rotator(place, credential=what == "credential").run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
