"""A user of a guest in front of transferd: the command line, and what it says, as values.

Everything is a coroutine, since the origins that the guest talks to run in the test's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.guest import Done, Guest, kill_command

#: Sends a request with what comes from standard input as its body.
_ASK = """
import http.client, json, socket, sys
connection = http.client.HTTPConnection("transferd")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/transferd/transferd.sock")
headers = {"Content-Type": "application/json"}
connection.request(sys.argv[1], sys.argv[2], json.load(sys.stdin), headers)
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read() or b"null")]))
"""
#: Prints how many bytes of a job are durable, as root sees it in the queue.
_DURABLE = """
import contextlib, sqlite3, sys
uri = "file:/var/lib/transferd/queue.db?mode=ro"
with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as queue:
    found = queue.execute("SELECT bytes_transferred FROM jobs WHERE id = ?", sys.argv[1:])
    print(found.fetchone()[0])
"""


class User:
    """One account of a guest."""

    def __init__(
        self, guest: Guest, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """*environment*: variables for every command."""
        self.guest = guest
        self.name = name
        self.home = Path("/root" if name == "root" else f"/home/{name}")
        self._environment = environment

    async def run(
        self, *command: str, say: str = "", check: bool = True, seconds: float = 60.0
    ) -> Done:
        """Run a command as `Guest.run` does."""
        return await asyncio.to_thread(
            self.guest.run,
            *command,
            user=self.name,
            say=say,
            environment=self._environment,
            check=check,
            seconds=seconds,
        )

    async def python(self, code: str, *arguments: str) -> str:
        """Run Python *code* with the guest's interpreter; returns what it printed."""
        return (await self.run("python3", "-c", code, *arguments)).output

    async def ctl(self, *arguments: str, check: bool = True, say: str = "") -> Done:
        """Run transferctl."""
        return await self.run("transferctl", *arguments, check=check, say=say)

    async def json(self, *arguments: str) -> Any:
        """Run transferctl with --json, and return the one document that it prints."""
        return json.loads((await self.ctl(*arguments, "--json")).output)

    async def fetch(self, url: str, name: str, *options: str) -> str:
        """Have *url* downloaded in the background to a file in the home; returns the job's id."""
        arguments = ("get", url, str(self.home / name), "--detach", *options)
        return (await self.ctl(*arguments)).output.strip()

    async def gone(self, job: str) -> None:
        """Wait until a job has left the queue, being done; fails when it ends otherwise."""
        done = await self.ctl("wait", job, "--timeout", "60", check=False)
        # Who asks too late hears that there is no such job (4).
        assert done.status in {0, 4}, f"{done.output}{done.complaints}"

    async def reach(self, job: str, offset: int) -> int:
        """Wait until so many bytes of a job are durable, or more; returns how many."""
        async with self.lines("transferctl", "events", job, "--json") as events:
            # What the events tell is ahead of what is durable; another one follows when it is.
            async for _ in events:
                reached = await asyncio.to_thread(self._durable, job)
                if reached >= offset:
                    return reached
        raise AssertionError(f"the job {job} is gone before it has {offset} durable bytes")

    def _durable(self, job: str) -> int:
        return int(self.guest.run("python3", "-c", _DURABLE, job).output)

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request to the system's socket, and return status and document of the answer."""
        told = json.dumps(None if body is None else json.dumps(body))
        said = await self.run("python3", "-c", _ASK, method, path, say=told)
        return tuple(json.loads(said.output))

    def file(self, name: str) -> Path:
        """Return where the tests find a file of the home."""
        return self.guest.path(self.home / name)

    @contextlib.asynccontextmanager
    async def lines(self, *command: str) -> AsyncIterator[AsyncIterator[str]]:
        """Run a command that does not end, and read its output line by line as it comes."""
        argv = self.guest.command(*command, user=self.name, environment=self._environment)
        process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            yield _decoded(process.stdout)
        finally:
            if process.returncode is None:
                kill_command(process.pid)
            await process.communicate()


async def _decoded(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    async for line in stream:
        yield line.decode().rstrip("\n")
