"""The worker process: bound to its daemon for life, closed to everybody else."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Sequence

from transferd.process import DESCRIPTORS, collect_seldom
from transferd.wire.channel import Channel
from transferd.wire.codec import decode_to_worker
from transferd.worker.body import Bodies
from transferd.worker.confinement import confine
from transferd.worker.dispatcher import Dispatcher
from transferd.worker.report import Report, set_up_report
from transferd.worker.security import open_security_threads
from transferd.worker.session import open_session
from transferd.worker.threads import Threads, stand_back

log = logging.getLogger(__name__)

#: Threads for disk calls, made as they are needed; each file that moves uses two at most.
DISK_THREADS = 64
#: Bodies that move past the loop at once, each in a thread; more of them go through it.
BODY_THREADS = 64
#: For names of hosts, which may be looked up in vain for long.
NAME_THREADS = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the daemon at the other end of the socket `--fd N`, and end the process.

    What is wrong before there is a link to say it over goes to standard error.

    Raises:
        SystemExit: it cannot be the owner's worker.
    """
    arguments = _parser().parse_args(argv)
    confine(arguments.owner)
    link = _take_link(arguments.fd)
    report = set_up_report()
    if arguments.owner is not None and (complaint := open_session()):
        log.warning("worker.session", extra={"fields": {"reason": complaint}})
    # Not before the session, which may set it.
    DESCRIPTORS.lift()
    collect_seldom()
    runner = asyncio.Runner()
    status = runner.run(serve(link, report))
    logging.shutdown()
    # At once: a thread may wait for a dead name server, KDC or disk for minutes.
    os._exit(status)


async def serve(sock: socket.socket, report: Report) -> int:
    """Serve the daemon at the other end of *sock* until it is gone or SIGTERM comes.

    Returns: the exit status; 1 after a fault of our own, which was reported.
    """
    loop = asyncio.get_running_loop()
    threads, bodies, security = _open_threads(loop)
    channel = await Channel.open(sock, decode_to_worker)
    dispatcher = Dispatcher(
        channel, threads, Bodies(bodies, BODY_THREADS), security, secrets.token_bytes
    )
    loop.add_signal_handler(signal.SIGTERM, dispatcher.leave)
    # A terminal's Ctrl-C is for the daemon. Not ignored, or commands would inherit that.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    # From Hello on the link has messages only; standard error may have been the link so far.
    _silence(2)
    # The dispatcher says Hello before anything else has a turn.
    loop.call_soon(report.attach, dispatcher.say)
    try:
        await dispatcher.serve()
    except Exception:
        log.exception("worker.fault")
        await channel.close()
        return 1
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        bodies.shutdown(wait=False, cancel_futures=True)
        security.shutdown(wait=False, cancel_futures=True)
    return 0


def _open_threads(loop: asyncio.AbstractEventLoop) -> tuple[Threads, Threads, Threads]:
    """Return the threads for disk calls, bodies and security libraries; the loop gets its own."""
    try:
        loop.set_default_executor(Threads(NAME_THREADS, "names"))
        return (
            Threads(DISK_THREADS, "disk"),
            Threads(BODY_THREADS, "bodies", stand_back),
            open_security_threads(),
        )
    except RuntimeError as error:
        raise SystemExit(
            f"cannot work: {error}; raise the owner's limit on processes (ulimit -u)"
        ) from error


def _take_link(descriptor: int) -> socket.socket:
    """Take over the link; where it is standard input, nothing else will read it by mistake."""
    if descriptor > 2:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    link = socket.socket(fileno=os.dup(descriptor))
    _silence(descriptor)
    return link


def _silence(descriptor: int) -> None:
    """Put /dev/null in the place of a standard descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="transferd-worker")
    parser.add_argument("--fd", type=int, required=True, help="socket of the worker link")
    parser.add_argument(
        "--owner", type=int, help="be sure to be that uid, with its umask and limits"
    )
    return parser
