"""An open partial file and the threads that are at work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.support.exchanges import until
from tests.support.worker import JOB
from transferd.model.paths import temporary_path
from transferd.transfer.ranges import NOTHING
from transferd.worker.partfile import PartFile
from transferd.worker.sink import Durability, Sink


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For disk calls."""
    with ThreadPoolExecutor(4) as running:
        yield running


async def test_a_file_that_is_begun_anew_has_no_length_of_its_former_version(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made room for a part was stopped; the disk is slow, and lengthens the file later."""
    local = str(tmp_path / "f")
    temporary = temporary_path(local, JOB)
    disk, at_work, reserve = Event(), Event(), PartFile.reserve

    def slow(part: PartFile, size: int) -> None:
        at_work.set()
        disk.wait(20)
        reserve(part, size)

    monkeypatch.setattr(PartFile, "reserve", slow)
    durability = Durability(seconds=9.0, bytes=10**9, reached=lambda _: None)
    sink = await Sink.open(threads, durability, (local, temporary), NOTHING, None)
    making_room = asyncio.create_task(sink.reserve(1000))
    await until(at_work.is_set)
    making_room.cancel()
    await asyncio.wait([making_room])
    restarting = asyncio.create_task(sink.restart())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not restarting.done()
    disk.set()
    await restarting
    stretch = sink.stretch(0)
    await stretch.take(b"new")
    await sink.end(stretch)
    await sink.finish(None)
    await sink.close()
    assert _content(temporary) == b"new"


def _content(path: str) -> bytes:
    return Path(path).read_bytes()
