"""Run a notification command as the owner.

The command gets no terminal, no shell, a small environment and a session of its own, so that it can
be ended together with whatever it has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from transferd.process import DESCRIPTORS

_PATH = "/usr/local/bin:/usr/bin:/bin"
_DETAIL_CHARS = 500
#: Bytes that are kept of what was said: enough for the detail in any alphabet.
_TAIL = 4 * _DETAIL_CHARS
_READ = 65536


async def run_command(
    argv: Sequence[str], environment: Mapping[str, str], stdin: str, timeout: float
) -> tuple[int | None, str]:
    """Run a program to its end, or kill its process group after *timeout* seconds.

    It is killed when the caller is cancelled, too, and is waited for in each case. What it has left
    in the background when it ends by itself may live on.

    Args:
        argv: program and arguments; the program's path is absolute.
        environment: added to the minimal one (PATH, HOME, USER, LANG, XDG_RUNTIME_DIR).
        stdin: what the program can read.
        timeout: in seconds.

    Returns: its exit status, or None when it could not be started or was ended by a signal; and
        the reason for that, or the end of what it wrote to standard error: 500 characters at most.
    """
    if not argv or not os.path.isabs(argv[0]):
        return None, "cannot run the notification command: name its program with an absolute path"
    try:
        with _listening() as said:
            status = await _carry_out(argv, environment, stdin, said.sink, timeout)
            said.read()
    except TimeoutError:
        return None, f"{argv[0]} did not end within {timeout:g} s and was killed"[-_DETAIL_CHARS:]
    except (OSError, ValueError) as error:
        return None, f"cannot run {argv[0][: _DETAIL_CHARS // 2]}: {error}"[:_DETAIL_CHARS]
    if status < 0:
        return None, f"{argv[0]} was ended by {_signal_name(-status)}"[-_DETAIL_CHARS:]
    return status, said.tail()


async def _carry_out(
    argv: Sequence[str], environment: Mapping[str, str], stdin: str, stderr: int, timeout: float
) -> int:
    async with _started(argv, environment, stdin, stderr) as process, asyncio.timeout(timeout):
        return await process.wait()


@contextlib.asynccontextmanager
async def _started(
    argv: Sequence[str], environment: Mapping[str, str], stdin: str, stderr: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the program; on the way out, its group is killed if it still runs, and waited for."""
    starting = asyncio.ensure_future(_start(argv, environment, stdin, stderr))
    try:
        yield await asyncio.shield(starting)
    finally:
        # Whoever is cancelled before it has started would leave behind what it starts.
        process = await starting
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _start(
    argv: Sequence[str], environment: Mapping[str, str], stdin: str, stderr: int
) -> asyncio.subprocess.Process:
    with _readable(stdin) as source, DESCRIPTORS.usual():
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_minimal_environment() | dict(environment),
            cwd="/",
            start_new_session=True,
        )


class _Said:
    """The end of what a program writes to standard error.

    It is a bare pipe, and not one of asyncio's: those keep `wait` from returning while a process
    that was left in the background holds their other end.
    """

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        os.set_blocking(self.source, False)
        self._kept = b""

    def read(self) -> None:
        """Take in what there is at the moment."""
        with contextlib.suppress(BlockingIOError):
            self._kept = (self._kept + os.read(self.source, _READ))[-_TAIL:]

    def tail(self) -> str:
        """Return the last characters."""
        return self._kept.decode("utf-8", "replace").strip()[-_DETAIL_CHARS:]

    def close(self) -> None:
        """Close both ends."""
        os.close(self.source)
        os.close(self.sink)


@contextlib.contextmanager
def _listening() -> Iterator[_Said]:
    loop = asyncio.get_running_loop()
    with contextlib.closing(_Said()) as said:
        loop.add_reader(said.source, said.read)
        try:
            yield said
        finally:
            loop.remove_reader(said.source)


@contextlib.contextmanager
def _readable(text: str) -> Iterator[int]:
    """Yield a descriptor to read *text* from: a file in memory, so that nobody has to feed it."""
    with open(os.memfd_create("transferd-notice"), "w+b", buffering=0) as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def _minimal_environment() -> dict[str, str]:
    uid = os.geteuid()
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/", "USER": str(uid)}
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(uid)
        environment |= {"HOME": entry.pw_dir, "USER": entry.pw_name}
    # Without it a command such as notify-send does not find its owner's session.
    runtime = f"/run/user/{uid}"
    if os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    return environment


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
