"""A server of TLS 1.2 that wishes to negotiate anew, and may be long about it.

Python's library cannot ask for that; OpenSSL's own test server does (s_server(1)).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator

OPENSSL = shutil.which("openssl")


class Renegotiator:
    """Answers one connection by hand, through a relay."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._says, self._hears = process.stdin, process.stdout
        self.port = 0
        #: Cleared, it hears nothing of the client until it is set again.
        self.hears = asyncio.Event()
        self.hears.set()
        #: Set when there is something that it did not hear.
        self.ignores = asyncio.Event()

    async def answer(self, body: bytes) -> None:
        """Wait for a request and answer it."""
        await self._hears.readuntil(b"\r\n\r\n")
        await self._say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def renegotiate(self) -> None:
        """Ask the client to negotiate anew, and be deaf to its answer."""
        self.hears.clear()
        await self._say(b"r\n")
        await self.ignores.wait()

    async def serve(self, listening: asyncio.Event) -> None:
        """Let one client come."""
        line = await self._hears.readuntil(b"\n")
        while (match := re.match(rb"ACCEPT 127\.0\.0\.1:([0-9]+)", line)) is None:
            line = await self._hears.readuntil(b"\n")

        async def join(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            far, forth = await asyncio.open_connection("127.0.0.1", int(match[1]))
            with contextlib.closing(back), contextlib.closing(forth):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(far, back))
                    group.create_task(self._copy(near, forth, ours=False))

        async with await asyncio.start_server(join, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            await asyncio.Event().wait()

    async def _say(self, what: bytes) -> None:
        self._says.write(what)
        await self._says.drain()

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, ours: bool = True
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not ours and not self.hears.is_set():
                    self.ignores.set()
                    await self.hears.wait()
                sink.write(data)
                await sink.drain()
            sink.write_eof()


@contextlib.asynccontextmanager
async def renegotiator(identity: str) -> AsyncIterator[Renegotiator]:
    """Run one that shows the certificate in that file."""
    assert OPENSSL is not None
    process = await asyncio.create_subprocess_exec(
        OPENSSL,
        *("s_server", "-tls1_2", "-accept", "127.0.0.1:0", "-cert", identity, "-key", identity),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    server, listening = Renegotiator(process), asyncio.Event()
    serving = asyncio.create_task(server.serve(listening))
    try:
        await listening.wait()
        yield server
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        process.kill()
        await process.wait()
