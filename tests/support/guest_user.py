"""A user of a guest in front of transferd: the command line, and what it says, as values.

Everything is a coroutine, since the origins that the guest talks to run in the test's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.guest import Done, Guest


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
        return str((await self.json(*arguments))["id"])

    async def gone(self, job: str) -> None:
        """Wait until a job has left the queue, being done; fails when it ends otherwise."""
        done = await self.ctl("wait", job, "--timeout", "60", check=False)
        # Who asks too late hears that there is no such job (4).
        assert done.status in {0, 4}, f"{done.output}{done.complaints}"

    def file(self, name: str) -> Path:
        """Return where the tests find a file of the home."""
        return self.guest.path(self.home / name)

    @contextlib.asynccontextmanager
    async def lines(self, *command: str) -> AsyncIterator[AsyncIterator[str]]:
        """Run a command that does not end, and read its output line by line as it comes."""
        argv = self.guest.command(*command, user=self.name, environment=self._environment)
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            assert process.stdout is not None
            yield _decoded(process.stdout)
        finally:
            # The command itself is a child of what takes it into the guest.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


async def _decoded(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    async for line in stream:
        yield line.decode().rstrip("\n")
