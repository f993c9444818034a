"""Has a worker download into a directory that is a link to a forbidden one every other moment.

Run as a process of its own, `python -m tests.support.racing PLACE`, by root, who becomes nobody
first, or by anybody else. PLACE/home holds `real`, a directory of that user, and `target`, a link
to a directory that is not; names that are exchanged. Prints what became of everything that was
tried, as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import mmap
import os
import random
import struct
import sys
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.origin import Document, Fault, Origin, Version
from tests.support.worker import Book, Desk, worker_task
from transferd.model.paths import temporary_path
from transferd.wire import chores, link

SWAPS = 10_000
#: Downloads, at least; half of them are cut off in the middle and taken up again.
ROUNDS = 150
#: …and at most, until everything has gone well and has been refused at least once.
MOST_ROUNDS = 5_000
NOBODY = 65534
BODY = random.Random(7).randbytes(200_000)  # noqa: S311

#: What is tried.
_DEEDS = ("download", "publish", "discard")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_COUNT, _STOP = struct.Struct("=q"), 8


class Swapper:
    """Exchanges two names without pause, in a process of its own."""

    def __init__(self, one: Path, other: Path) -> None:
        """Fork; nothing else may run in this process yet."""
        self._board = mmap.mmap(-1, 16)
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(self._swap(bytes(one), bytes(other)))

    @property
    def count(self) -> int:
        """How often it has swapped."""
        (count,) = _COUNT.unpack_from(self._board)
        return int(count)

    def stop(self) -> None:
        """End it, and wait for that."""
        self._board[_STOP] = 1
        _, status = os.waitpid(self._pid, 0)
        assert status == 0, "names cannot be exchanged here"

    def _swap(self, one: bytes, other: bytes) -> int:
        exchange = ctypes.CDLL(None).renameat2
        count = 0
        while not self._board[_STOP]:
            if exchange(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE) != 0:
                return 1
            count += 1
            _COUNT.pack_into(self._board, 0, count)
        return 0


@dataclass
class Ledger(Book):
    """Knows where the bytes are, whatever the path leads to."""

    real: int = -1

    def temporary(self, index: int = 0) -> Path:
        """Where the bytes of a file are."""
        return Path(f"/proc/self/fd/{self.real}", super().temporary(index).name)


class Race:
    """Downloads into one directory, and what becomes of them."""

    def __init__(self, target: Path, real: int, origin: Origin, desk: Desk) -> None:
        self._origin = origin
        self._desk = desk
        self._requests = 0
        self._real = real
        self._fresh = Book.of(target, origin.url("/a.iso")).files
        self._book = Ledger(real=real)
        self._temporary = temporary_path(self._fresh[0].spec.local, self._book.job)
        self.outcomes: Counter[str] = Counter()

    @property
    def both_ways(self) -> bool:
        """Whether everything has gone well at least once, and been refused at least once."""
        seen = {(how.split()[0], "local_" in how) for how in self.outcomes}
        return len(seen) == 2 * len(_DEEDS)

    async def round(self, number: int) -> None:
        """Download a file, or a part of it and then the rest; publish or discard it."""
        cut = [Fault(cut=100_000)] if number % 2 else []
        self._book.files = dict(self._fresh)
        self._origin.pages["/a.iso"] = Document(version=Version(body=BODY), faults=deque(cut))
        for _ in range(len(cut) + 1):
            end = await self._desk.carry(self._book)
            what = end.failure.code if isinstance(end, link.Failed) else "transferred"
            self.outcomes[f"download {what}"] += 1
        if self._book.files[0].completed and number % 3:
            await self._publish()
        leftover = chores.Leftover(0, self._temporary)
        self._count("discard", await self._ask(chores.Discard(self._next(), (leftover,))))

    async def _publish(self) -> None:
        file = self._book.files[0]
        assert file.inode is not None
        wanted = chores.Publication(0, file.spec.local, self._temporary, file.inode, True)
        refusals = await self._ask(chores.Publish(self._next(), (wanted,)))
        self._count("publish", refusals)
        if not refusals:
            name = os.path.basename(file.spec.local)
            found = os.stat(name, dir_fd=self._real, follow_symlinks=False)
            assert found.st_ino == file.inode.number, "it is called published, and is elsewhere"
            assert found.st_size == len(BODY)

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    def _count(self, what: str, refusals: Iterable[chores.Refusal]) -> None:
        codes = [refusal.code for refusal in refusals] or ["done"]
        self.outcomes.update(f"{what} {code}" for code in codes)

    async def _ask(self, question: chores.Publish | chores.Discard) -> tuple[chores.Refusal, ...]:
        await self._desk.channel.send(question)
        while True:
            answer = await self._desk.next(self._book)
            if isinstance(answer, chores.Published | chores.Discarded):
                return answer.refusals


async def _race(place: Path, swapper: Swapper, real: int) -> Counter[str]:
    async with Origin().running() as origin, worker_task() as desk:
        # Whatever is imported late may lie where nobody else may read.
        warm = place / "warm"
        warm.mkdir()
        rehearsal = Race(warm, os.open(warm, os.O_RDONLY), origin, desk)
        for number in range(2):
            await rehearsal.round(number)
        become_ordinary()
        race = Race(place / "home" / "target", real, origin, desk)
        for number in range(MOST_ROUNDS):
            await race.round(number)
            if number >= ROUNDS and swapper.count >= SWAPS and race.both_ways:
                break
        return race.outcomes


def become_ordinary() -> None:
    """Be somebody whom permissions bind; root becomes nobody, in all threads, for good."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main(place: Path) -> None:
    """Run the race."""
    home = place / "home"
    real = os.open(home / "real", os.O_RDONLY)
    swapper = Swapper(home / "target", home / "real")
    try:
        outcomes = asyncio.run(_race(place, swapper, real))
    finally:
        swapper.stop()
    print(json.dumps({"swaps": swapper.count, **outcomes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
