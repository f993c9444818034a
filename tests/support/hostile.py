"""Workers that do not mean well: real processes that speak the link as a test's script tells them.

A script is Python. It has `hear()` (the next message of the daemon's, a dict), `say(kind, **rest)`,
`raw(data)`, `start` (the latest Start) and `about(**rest)`, which adds its job and run.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from tests.support.service import QUICK, ScriptedWorker, Service, running_service
from transferd.config import Config
from transferd.model.caller import Caller
from transferd.service.workers import Process

ALICE, MALLORY = 70001, 70002
#: Both of them call over the same socket; the service believes it, as it believes the kernel.
CALLERS = {uid: Caller(uid=uid, gid=uid, pid=1, admin=False) for uid in (ALICE, MALLORY)}

_PRELUDE = """
import itertools, json, os, signal, socket, sys, threading, time
link = socket.socket(fileno=os.dup(0))
lines = link.makefile("rb")
start = {}
def raw(data):
    link.sendall(data)
def line(kind, **rest):
    return json.dumps({"is": kind, **rest}).encode() + b"\\n"
def say(kind, **rest):
    raw(line(kind, **rest))
def about(**rest):
    return {"job": start["job"], "run": start["run"], **rest}
def hear(*kinds):
    while True:
        heard = json.loads(lines.readline() or b'{"is": "eof"}')
        if heard["is"] == "start":
            start.update(heard)
        if heard["is"] == "eof":
            raise SystemExit
        if heard["is"] == "inspect" and "inspect" not in kinds:
            say("inspected", request=heard["request"])
        elif heard["is"] == "ping" and "ping" not in kinds:
            say("pong", request=heard["request"])
        elif heard["is"] == "discard" and "discard" not in kinds:
            say("discarded", request=heard["request"])
        elif not kinds or heard["is"] in kinds:
            return heard
def hello():
    say("hello", pid=os.getpid())
def forever():
    while True:
        hear()
"""


def script(text: str) -> str:
    """Return the program of a worker that says hello, and then does as *text* says."""
    return f"{_PRELUDE}\nhello()\n{textwrap.dedent(text)}\nforever()\n"


def rude(text: str) -> str:
    """Return the program of a worker that does as *text* says, and nothing before."""
    return f"{_PRELUDE}\n{textwrap.dedent(text)}\n"


class Gang:
    """Starts the workers of those whose program is known; the others' are scripted, and honest."""

    def __init__(self, programs: Mapping[int, str]) -> None:
        self.programs = dict(programs)
        self.processes: dict[int, list[asyncio.subprocess.Process]] = {}
        self._news = asyncio.Event()
        self.adopt: Callable[[int, ScriptedWorker], None] = lambda owner, worker: None

    async def launch(self, owner: int, end: socket.socket) -> Process:
        """Start a worker. Fits Launch."""
        program = self.programs.get(owner)
        if program is None:
            worker = ScriptedWorker(end.dup())
            worker.task = asyncio.create_task(worker.serve())
            self.adopt(owner, worker)
            return worker
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", program), stdin=end.fileno(), stderr=end.fileno()
        )
        self.processes.setdefault(owner, []).append(process)
        self._news.set()
        return process

    async def ended(self, owner: int, number: int = 0) -> int:
        """Wait for the end of a process, and return its status."""
        async with asyncio.timeout(30):
            while len(self.processes.get(owner, ())) <= number:
                self._news.clear()
                await self._news.wait()
            return await self.processes[owner][number].wait()

    def starts(self, owner: int) -> int:
        """How many processes an owner has got so far."""
        return len(self.processes.get(owner, ()))

    async def end(self) -> None:
        """End whatever is left."""
        for process in (each for several in self.processes.values() for each in several):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def eventually(test: Callable[[], bool]) -> None:
    """Let the loop come round until something is so; it is nobody's duty to tell of it."""
    async with asyncio.timeout(20):
        while not test():  # noqa: ASYNC110
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def machine(
    directory: Path, programs: Mapping[int, str], config: Config = QUICK
) -> AsyncIterator[tuple[Service, Gang]]:
    """Run the service for several users, some of whose workers are programs."""
    gang = Gang(programs)
    try:
        async with running_service(
            directory, config, owner_of=lambda caller: caller.uid, launch=gang.launch
        ) as service:
            gang.adopt = service.adopt
            yield service, gang
    finally:
        await gang.end()
