"""From a state directory to the two stores, and back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from transferd.model.job import JobId
from transferd.store.database import Database, Observe, unobserved
from transferd.store.directory import prepare_directory
from transferd.store.jobs import SqliteJobStore
from transferd.store.lock import StateLock
from transferd.store.notices import SqliteNoticeStore
from transferd.store.rotation import SqliteKeyRing

QUEUE_FILE = "queue.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What is kept on disk."""

    jobs: SqliteJobStore
    notices: SqliteNoticeStore
    keys: SqliteKeyRing
    #: Comes back unless a thread of the queue file hangs.
    beat: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def open_store(
    directory: Path,
    *,
    credentials: Path | None = None,
    new_id: Callable[[], JobId],
    random: Callable[[int], bytes] = os.urandom,
    observe: Observe = unobserved,
) -> AsyncIterator[Store]:
    """Hold a state directory and open what is in it; make both when they are not there.

    *credentials* is where the service manager has put the key, if it has: $CREDENTIALS_DIRECTORY.
    On leaving, what waits is written, the file is closed, and then others may have the directory.

    Raises:
        StoreLocked: another daemon holds the directory.
        StoreDamaged: the queue file is not sound; it is left as it is.
        StoreTooNew: a newer transferd has written it; it is left as it is.
        StoreError: the directory or the file cannot be used, or no key can be made.
    """
    directory = prepare_directory(directory)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(StateLock.acquire(directory))
        database = await Database.open(directory / QUEUE_FILE, observe=observe)
        stack.push_async_callback(database.close)
        keys = await SqliteKeyRing.open(database, directory, credentials, random)
        yield Store(
            jobs=SqliteJobStore(database, keys.vault, new_id, keys.look_again),
            notices=SqliteNoticeStore(database),
            keys=keys,
            beat=database.beat,
        )
