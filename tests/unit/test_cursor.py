"""What is written is on its way to the disk before a flush waits for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from transferd.worker.cursor import Cursor

_MIB = 1024 * 1024


class Ground:
    """A file in memory that takes down what was handed to the disk."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("part")
        self.handed: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """Yield the descriptor."""
        yield self.descriptor

    def has_grown(self, end: int) -> None:
        """Take no note of it."""

    def hand_to_disk(self, start: int, end: int) -> None:
        """Take down what is handed over."""
        self.handed.append((start, end))


def test_bytes_go_to_the_disk_in_small_portions() -> None:
    """Whoever flushes another file of that disk waits for a portion, not for seconds of a body."""
    ground = Ground()
    cursor = Cursor(ground, 5)
    for _ in range(20):
        cursor.write(bytes(_MIB))
    os.close(ground.descriptor)
    assert ground.handed == [(5, 5 + 8 * _MIB), (5 + 8 * _MIB, 5 + 16 * _MIB)]
