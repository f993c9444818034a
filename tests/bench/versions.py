"""The remote file changes in the middle of a download: what do the tools make of it?

    python -m tests.bench.versions

The connection breaks after a third of the file; before the download goes on, the server gets
another version of the same size. `curl -C -` and `aria2c -c` are run again as their users would;
transferd goes on by itself. The outcome is `old`, `new` or, when bytes of both are in one file,
MIXED.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import transferd
from tests.support.daemon import DaemonProcess
from tests.support.origin import DAY_BEFORE, TODAY, Document, Fault, Origin, Version
from tests.support.servers import require_program

SIZE = 6_000_000
CUT = 2_000_000
NEXT_DAY = "Tue, 06 Jan 2026 09:00:00 GMT"

Case: TypeAlias = tuple[str, Version, Version]
Tool: TypeAlias = Callable[[str, Path, Document, Version], Awaitable[str]]


def cases() -> list[Case]:
    """Return a name, the version at first, and the one that takes its place."""
    old, new = os.urandom(SIZE), os.urandom(SIZE)

    def pair(etags: tuple[str | None, str | None], dates: tuple[str | None, str | None]) -> Case:
        return (
            "",
            Version(body=old, etag=etags[0], last_modified=dates[0], date=TODAY),
            Version(body=new, etag=etags[1], last_modified=dates[1], date=TODAY),
        )

    found = {
        "strong ETag": pair(('"v1"', '"v2"'), (DAY_BEFORE, NEXT_DAY)),
        "weak ETag": pair(('W/"v1"', 'W/"v2"'), (DAY_BEFORE, DAY_BEFORE)),
        "Last-Modified only": pair((None, None), (DAY_BEFORE, NEXT_DAY)),
        "no validator": pair((None, None), (None, None)),
    }
    return [(name, before, after) for name, (_, before, after) in found.items()]


async def run(*command: str) -> int:
    """Run a program quietly to its end and return its exit status."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    return await process.wait()


def again(*command: str) -> Tool:
    """Return a tool that is run twice in the same words; {url}, {dir}, {name} are replaced."""

    async def tool(url: str, place: Path, document: Document, after: Version) -> str:
        words = [w.format(url=url, dir=place.parent, name=place.name) for w in command]
        await run(*words)
        document.version = after
        return f"exit {await run(*words)}"

    return tool


async def background(url: str, place: Path, document: Document, after: Version) -> str:
    """Let transferd do it: one job, nothing is repeated by hand."""
    document.faults[0] = Fault(stall=CUT)
    with tempfile.TemporaryDirectory() as directory:
        daemon = await asyncio.to_thread(DaemonProcess(Path(directory)).start)
        try:
            async with transferd.connect(daemon.socket) as manager:
                job = await manager.create_job("versions")
                await job.add_file(url, str(place))
                await job.resume()
                await document.stalled.wait()
                await asyncio.to_thread(daemon.kill)
                document.version = after
                document.go.set()
                await asyncio.to_thread(daemon.start)
                await job.wait(timeout=60)
                await job.complete()
        finally:
            await asyncio.to_thread(daemon.stop)
    return "exit 0"


TOOLS: dict[str, Tool] = {
    "curl -C -": again("curl", "-sS", "-C", "-", "-o", "{dir}/{name}", "{url}"),
    "aria2c -c": again(
        "aria2c", "-q", "-c", "--max-tries=1", "--dir={dir}", "--out={name}", "{url}"
    ),
    "wget2 -c": again("wget2", "-q", "-c", "--tries=1", "-O", "{dir}/{name}", "{url}"),
    "transferd": background,
}


def outcome(place: Path, before: Version, after: Version) -> str:
    """Say whose bytes are in a file."""
    if not place.exists():
        return "no file"
    body = place.read_bytes()
    if body == before.body:
        return "old"
    if body == after.body:
        return "new"
    kind = "MIXED" if body[CUT:] == after.body[CUT:] else "incomplete"
    return f"{kind} ({len(body)} bytes)"


async def compare() -> list[tuple[str, str, str]]:
    """Return (case, tool, outcome) for all of them."""
    rows = []
    for case, before, after in cases():
        for name, tool in TOOLS.items():
            document = Document(version=before)
            document.faults.append(Fault(cut=CUT))
            origin = Origin()
            origin.pages["/file"] = document
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory) / "file"
                async with origin.running():
                    status = await tool(origin.url("/file"), place, document, after)
                rows.append((case, name, f"{outcome(place, before, after)}, {status}"))
    return rows


def main() -> None:
    """Print the table."""
    for program in ("curl", "aria2c", "wget2"):
        require_program(program)
    rows = asyncio.run(compare())
    table = {(case, tool): result for case, tool, result in rows}
    print("| remote file has | " + " | ".join(f"`{tool}`" for tool in TOOLS) + " |")
    print("|---|" + "---|" * len(TOOLS))
    for case in dict.fromkeys(row[0] for row in rows):
        print(f"| {case} | " + " | ".join(table[case, tool] for tool in TOOLS) + " |")
    if any(tool == "transferd" and result.startswith("MIXED") for _, tool, result in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
