"""Whose certificates are believed."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
from concurrent.futures import Executor

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.worker.sessions import Sessions


class Trust:
    """Which certificates are trusted; a context for each CA file, shared by all runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        #: What is remembered of servers that were trusted.
        self.sessions = Sessions()

    async def context(self, cacert: str | None) -> ssl.SSLContext:
        """Return the context that trusts the CAs in *cacert*, or the system's.

        A file that has changed is read again.

        Raises:
            TransferFailed: `tls_failed`, the file cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._load, cacert)
        except (OSError, ValueError) as error:
            message = f"cannot use the CA file {cacert}: {_reason(error)}"
            raise TransferFailed(Failure(code="tls_failed", message=message)) from error

    def _load(self, cacert: str | None) -> ssl.SSLContext:
        key: tuple[object, ...] = (cacert,)
        if cacert is not None:
            found = os.stat(cacert)
            if not stat.S_ISREG(found.st_mode):
                # A FIFO would keep its reader, a thread that files need, for ever.
                raise ValueError("it is not a regular file")
            key = (cacert, found.st_ino, found.st_size, found.st_mtime_ns)
        context = self._contexts.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=cacert)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[key] = context
        return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "it holds no certificate"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
