"""What is said when somebody stops waiting for a job, which goes on without him."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from transferd.cli.outcomes import CommandError, Exit
from transferd.cli.output import Output
from transferd.client.job import Job

#: Signals that end the waiting as Ctrl-C does, which asyncio itself turns into a cancellation.
_STATUSES = {signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.HUNG_UP}


@contextlib.contextmanager
def endings() -> Iterator[list[signal.Signals]]:
    """Turn SIGTERM and SIGHUP into a cancellation; yields those that came.

    Raises:
        CommandError: one came, and nothing within has said what becomes of it.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[signal.Signals] = []

    def leave(number: signal.Signals) -> None:
        came.append(number)
        if task is not None:
            task.cancel()

    handled = [number for number in _STATUSES if _handle(loop, number, leave)]
    try:
        yield came
    except asyncio.CancelledError:
        if not came:
            raise
        if task is not None:
            task.uncancel()
        raise CommandError(_STATUSES[came[0]], "interrupted", code="interrupted") from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def attached(
    job: Job, output: Output, came: list[signal.Signals], *, names: bool
) -> Iterator[None]:
    """Say on an interruption how to wait for *job* again.

    *came* is that of the `endings` around it; *names*: its file gets its name only when somebody
    completes the job.

    Raises:
        CommandError: SIGTERM or SIGHUP came.
    """
    task = asyncio.current_task()
    try:
        yield
    except asyncio.CancelledError:
        line = farewell(job, names=names)
        if not came:
            output.remark(f"transferctl: {line}")
            raise
        if task is not None:
            task.uncancel()
        raise CommandError(_STATUSES[came[0]], line, code="interrupted", job=job.id) from None


def farewell(job: Job, *, names: bool) -> str:
    """Return what becomes of a job that nobody waits for any more."""
    fate = "the job goes on" if job.answered else "no daemon runs, and the job waits in the queue"
    if not names:
        return f"interrupted; {fate}, `transferctl wait {job.id}` attaches again"
    return (
        f"interrupted; {fate}, `transferctl wait {job.id} --complete` attaches again; "
        "only that gives the file its name"
    )


def _handle(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, leave: Callable[[signal.Signals], None]
) -> bool:
    if signal.getsignal(number) is not signal.SIG_DFL:  # nohup, or a program that has its own
        return False
    try:
        loop.add_signal_handler(number, leave, number)
    except (RuntimeError, ValueError):  # not in the main thread
        return False
    return True
