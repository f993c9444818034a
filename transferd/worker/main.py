"""The worker process: bound to its daemon for life, closed to everybody else."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import secrets
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transferd.logs import set_up_logging
from transferd.process import DESCRIPTORS, hide_memory
from transferd.wire.channel import Channel
from transferd.wire.link import decode_to_worker
from transferd.worker.dispatcher import Dispatcher
from transferd.worker.security import open_security_threads

log = logging.getLogger(__name__)

#: Threads for disk calls, made as they are needed; each file that moves uses two at most.
DISK_THREADS = 64

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the daemon at the other end of the socket `--fd N`, and end the process."""
    parser = argparse.ArgumentParser(prog="transferd-worker")
    parser.add_argument("--fd", type=int, required=True, help="socket of the worker link")
    descriptor = parser.parse_args(argv).fd
    confine()
    DESCRIPTORS.lift()
    set_up_logging("key=value", "info", os.environ)
    status = 0
    runner = asyncio.Runner()
    try:
        runner.run(serve(socket.socket(fileno=descriptor)))
    except Exception:
        log.exception("worker.fault")
        status = 1
    logging.shutdown()
    # At once: a thread may wait for a dead name server, KDC or disk for minutes.
    os._exit(status)


def confine() -> None:
    """Die with the daemon, and let no process of the owner's read this one's memory."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    hide_memory()
    if os.getppid() != parent:
        # It died before the kernel was told; its end of the link is closed as well.
        raise SystemExit("the daemon is gone")


async def serve(sock: socket.socket) -> None:
    """Serve the daemon at the other end of *sock* until it is gone or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
    security = open_security_threads()
    channel = await Channel.open(sock, decode_to_worker)
    dispatcher = Dispatcher(channel, threads, security, secrets.token_bytes)
    loop.add_signal_handler(signal.SIGTERM, dispatcher.leave)
    # A terminal's Ctrl-C is for the daemon. Not ignored, or commands would inherit that.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        await dispatcher.serve()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        security.shutdown(wait=False, cancel_futures=True)
