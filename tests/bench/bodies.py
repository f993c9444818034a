"""Large files, one or two at once: throughput and CPU beside curl, aria2c and wget2."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import tools
from tests.bench.pairs import OURS, Contender, Spent, alternate, cpu_ratio, speed_ratio
from tests.bench.result import Bar, Result, at_least, at_most, megabytes
from tests.bench.site import MIB
from tests.bench.stage import Stage, Subject, check_equal
from tests.bench.tools import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of download."""

    title: str
    #: How others are called; the first that is named is curl.
    templates: Mapping[str, str]
    speed: Bar
    cpu: Bar | None = None
    tls: bool = False
    on_disk: bool = False
    #: Jobs of one file that are submitted together.
    jobs: int = 1


HTTP = Case(
    title="one file over http, to memory",
    templates=tools.ONE_FILE,
    speed=at_least(1.25),
    cpu=at_most(0.85),
)
HTTP_DISK = Case(
    title="one file over http, to disk, synced",
    templates=tools.ONE_FILE_SYNCED,
    speed=at_least(1.0),
    on_disk=True,
)
HTTPS = Case(
    title="one file over https, to memory",
    templates=tools.ONE_FILE_TLS,
    speed=at_least(0.95),
    cpu=at_most(1.15),
    tls=True,
)
TWO_HTTPS = Case(
    title="two files over https at once, to memory",
    templates=tools.TWO_FILES_TLS,
    speed=at_least(1.0),
    tls=True,
    jobs=2,
)


class _Downloads:
    """The same files again and again, by different programs."""

    def __init__(self, stage: Stage, case: Case) -> None:
        body = stage.body()
        self._case = case
        self._sent = body
        self._sources = [body]
        if case.jobs > 1:
            self._sources = [stage.files.twin(body, f"twin-{n}") for n in range(case.jobs)]
        self._directory = (stage.disk if case.on_disk else stage.memory) / "got"
        self._place = self._directory / "file"
        self._urls = [stage.url(source, tls=case.tls) for source in self._sources]
        self._words: dict[str, str | Path] = {
            "url": self._urls[0].removesuffix("-0"),
            "place": self._place,
            "directory": self._directory,
            "name": self._place.name,
            "cacert": stage.server.cacert or "",
        }
        self._compared: set[str] = set()

    def contenders(self, subject: Subject, programs: Sequence[Tool]) -> Mapping[str, Contender]:
        """Return who does the work, ours first."""
        return {OURS: self._by_daemon(subject)} | {
            program.name: self._by_tool(program) for program in programs
        }

    def _by_daemon(self, subject: Subject) -> Contender:
        async def download() -> Spent:
            self._prepare()
            jobs = [[file] for file in zip(self._urls, self._places, strict=True)]
            spent, notices = await subject.download(*jobs)
            await subject.finish(notices)
            return await self._checked(OURS, spent)

        return download

    def _by_tool(self, program: Tool) -> Contender:
        async def download() -> Spent:
            self._prepare()
            return await self._checked(program.name, await program.run(self._words))

        return download

    @property
    def _places(self) -> list[Path]:
        if self._case.jobs == 1:
            return [self._place]
        return [Path(f"{self._place}-{number}") for number in range(self._case.jobs)]

    def _prepare(self) -> None:
        self._directory.mkdir(exist_ok=True)
        if self._case.on_disk:
            # What an earlier run has left to be written is not this one's.
            os.sync()

    async def _checked(self, name: str, spent: Spent) -> Spent:
        """Compare the bytes when a program has run for the first time, and remove them."""
        for place in self._places:
            if name not in self._compared:
                await check_equal(self._sent, place)
            place.unlink()
        self._compared.add(name)
        return spent


async def measure(stage: Stage, case: Case) -> Result:
    """Let all programs download."""
    programs = tools.tools(case.templates)
    downloads = _Downloads(stage, case)
    async with stage.subject(tls=case.tls) as subject:
        contenders = downloads.contenders(subject, programs)
        # Whoever is the first to use memory that a virtual machine has not had yet waits for it.
        async with stage.quiet():
            await contenders["curl"]()
        runs = await alternate(contenders, stage.extent.pairs, stage.quiet)
    figures = [speed_ratio(runs, "curl", case.speed)]
    if case.cpu is not None:
        figures.append(cpu_ratio(runs, "curl", case.cpu))
    figures += [speed_ratio(runs, tool.name, None) for tool in programs if tool.name != "curl"]
    size = stage.extent.size
    return Result(
        title=f"{case.title}; {size // MIB} MiB{' each' if case.jobs > 1 else ''}",
        figures=figures,
        runs=runs,
        work=megabytes(size * case.jobs),
        commands=case.templates,
    )
