"""Many small files: one job of them all beside aria2c and wget2, and one job for each of them."""

from __future__ import annotations

import asyncio
import filecmp
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import tools
from tests.bench.client import Client, Notice, job
from tests.bench.measure import cpu_seconds
from tests.bench.pairs import OURS, Contender, Spent, alternate, rate, speed_ratio
from tests.bench.result import Result, Run, Work, at_least
from tests.bench.stage import Stage, Subject
from tests.bench.tools import Tool

COUNT = 10_000
#: Connections of one job, and of aria2c and wget2.
_STREAMS = 16
#: As many as the daemon takes.
_JOBS_IN_REQUEST = 1000
#: Without competitors nothing is paired, and it takes long.
_REPETITIONS = 3


class _Downloads:
    """The same small files again and again, by different programs."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        names = stage.files.small(COUNT)
        self._sent = stage.files.root / "small"
        self._directory = directory
        self._urls = [stage.url(stage.files.root / name) for name in names]
        self._list = stage.memory / "list"
        self._list.write_text("\n".join(self._urls) + "\n")
        self._compared: set[str] = set()

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Every URL and its place."""
        return [(url, self._directory / Path(url).name) for url in self._urls]

    def prepare(self) -> None:
        """Make the directory; what an earlier run has left to be written is not this one's."""
        self._directory.mkdir()
        os.sync()

    async def check(self, name: str) -> None:
        """Compare all bytes when a program has run for the first time, and remove the files.

        Raises:
            AssertionError: something is missing, too much or wrong.
        """
        if name not in self._compared:
            await asyncio.to_thread(self._compare)
            self._compared.add(name)
        shutil.rmtree(self._directory)

    def _compare(self) -> None:
        names = sorted(os.listdir(self._sent))
        if sorted(os.listdir(self._directory)) != names:
            raise AssertionError("other files are there than were served")
        _, wrong, missing = filecmp.cmpfiles(self._sent, self._directory, names, shallow=False)
        if wrong or missing:
            raise AssertionError(f"{len(wrong) + len(missing)} files are not what was served")

    def contenders(self, subject: Subject, programs: Sequence[Tool]) -> Mapping[str, Contender]:
        """Return who downloads all of them, ours first."""
        return {OURS: self._by_daemon(subject)} | {
            program.name: self._by_tool(program) for program in programs
        }

    def _by_daemon(self, subject: Subject) -> Contender:
        async def download() -> Spent:
            self.prepare()
            spent, notices = await subject.download(self.files, streams=_STREAMS)
            began = time.monotonic()
            await subject.finish(notices)
            named = time.monotonic() - began
            await self.check(OURS)
            beside = {"to complete (s)": named}
            return Spent(seconds=spent.seconds, cpu_seconds=spent.cpu_seconds, beside=beside)

        return download

    def _by_tool(self, program: Tool) -> Contender:
        async def download() -> Spent:
            self.prepare()
            spent = await program.run({"directory": self._directory, "list": self._list})
            await self.check(program.name)
            return spent

        return download


async def one_job(stage: Stage, *, on_disk: bool) -> Result:
    """Download all files by one job, which syncs them, and by programs that do not."""
    programs = tools.tools(tools.MANY_FILES)
    downloads = _Downloads(stage, (stage.disk if on_disk else stage.memory) / "small")
    async with stage.subject() as subject:
        runs = await alternate(
            downloads.contenders(subject, programs), stage.extent.pairs, stage.quiet
        )
    return Result(
        title=f"one job of {COUNT} files of 10 KiB, to {'disk' if on_disk else 'memory'}",
        figures=[
            speed_ratio(runs, "aria2c", at_least(0.7), "files a second"),
            speed_ratio(runs, "wget2", None, "files a second"),
        ],
        runs=runs,
        work=Work(amount=COUNT, unit="files/s"),
        commands=tools.MANY_FILES,
    )


async def many_jobs(stage: Stage) -> Result:
    """Make a job for each file, hear of every one and acknowledge it, until the queue is empty."""
    downloads = _Downloads(stage, stage.memory / "small")
    runs: list[Run] = []
    async with stage.subject() as subject:
        contenders = {OURS: _jobs(subject, downloads)}
        repetitions = min(_REPETITIONS, stage.extent.pairs)
        runs = await alternate(contenders, repetitions, stage.quiet)
    work = Work(amount=COUNT, unit="jobs/s")
    return Result(
        title=f"{COUNT} jobs of one file of 10 KiB each, heard and acknowledged",
        figures=[rate("jobs a second", runs, work, at_least(1000))],
        runs=runs,
        work=work,
    )


def _jobs(subject: Subject, downloads: _Downloads) -> Contender:
    async def carry() -> Spent:
        downloads.prepare()
        wishes = [job([file], auto_complete=True) for file in downloads.files]
        pids = subject.pids
        used, ours, began = cpu_seconds(pids), time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for first in range(0, COUNT, _JOBS_IN_REQUEST):
                batch = wishes[first : first + _JOBS_IN_REQUEST]
                for wish in batch:
                    outcome = subject.client.outcome(str(wish.id))
                    group.create_task(_settle(subject.client, outcome))
                await subject.client.create(batch)
            made = time.monotonic() - began
        heard = time.monotonic() - began
        await subject.client.emptied()
        seconds = time.monotonic() - began
        beside = {
            "made after (s)": made,
            "acknowledged after (s)": heard,
            "CPU of the client (s)": time.process_time() - ours,
        }
        used = cpu_seconds(pids) - used
        await downloads.check(OURS)
        return Spent(seconds=seconds, cpu_seconds=used, beside=beside)

    return carry


async def _settle(client: Client, outcome: asyncio.Future[Notice]) -> None:
    await client.acknowledge([await outcome])
