"""Small files that are kept together: what befalls one of them, and what befalls the others."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tests.support.origin import Origin, fixed
from tests.support.worker import JOB, Book, worker_process, worker_task
from transferd.model.errors import TransferFailed
from transferd.model.job import Inode
from transferd.model.paths import temporary_path
from transferd.wire import link
from transferd.worker import batch, shelf
from transferd.worker.batch import Deposit, Outcome, keep
from transferd.worker.partfile import PartFile
from transferd.worker.shelf import Deposits, Shelves

#: Enough to be flushed by one call.
MANY = 6


def deposit(directory: Path, name: str) -> Deposit:
    """A file that is to be kept in *directory*."""
    local = str(directory / name)
    return Deposit(
        local=local,
        temporary=temporary_path(local, JOB),
        data=name.encode(),
        mtime=None,
        wary=False,
    )


def deposits(directory: Path) -> list[Deposit]:
    """As many as are flushed together."""
    return [deposit(directory, f"f{number}") for number in range(MANY)]


def codes(outcomes: Sequence[Outcome]) -> list[str | None]:
    """What each of them failed with."""
    return [
        outcome.failure.code if isinstance(outcome, TransferFailed) else None
        for outcome in outcomes
    ]


def content(kept: Deposit) -> bytes:
    """What is on disk of it."""
    return Path(kept.temporary).read_bytes()


def overwrite(kept: Deposit, data: bytes) -> None:
    """Write another run's bytes under its temporary name."""
    Path(kept.temporary).write_bytes(data)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For disk calls."""
    with ThreadPoolExecutor(2) as running:
        yield running


# ── I/O errors ─────────────────────────────────────────────────────────────────────────────


def test_a_file_system_that_tells_of_somebody_elses_loss_keeps_what_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """syncfs(2) reports an error of any file there; each of ours is asked for its own."""

    def broken(descriptor: int) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("transferd.worker.partfile.sync_file_system", broken)
    given = deposits(tmp_path)
    assert codes(keep(given)) == [None] * MANY
    assert [content(each) for each in given] == [each.data for each in given]


def test_a_loss_is_told_of_the_file_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names that file, not the first one that was flushed along, of another job."""

    def broken(descriptor: int) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def flush(descriptor: int) -> None:
        if "f3" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("transferd.worker.partfile.sync_file_system", broken)
    monkeypatch.setattr("transferd.worker.partfile.os.fsync", flush)
    given = deposits(tmp_path)
    outcomes = keep(given)
    assert codes(outcomes) == [None, None, None, "local_io", None, None]
    failed = outcomes[3]
    assert isinstance(failed, TransferFailed)
    assert failed.failure.file == given[3].local


def test_a_disk_that_is_full_for_one_file_has_room_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own failure, and no other file's."""
    write = os.pwritev

    def full(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
        if bytes(views[0]) == b"f2":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, views, offset)

    monkeypatch.setattr("transferd.worker.cursor.os.pwritev", full)
    assert codes(keep(deposits(tmp_path))) == [None, None, "disk_full", None, None, None]


def test_what_closing_a_file_says_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close(2) may fail, on network file systems; what was flushed is durable, and it is closed."""
    close = os.close
    closed: list[int] = []

    def failing(descriptor: int) -> None:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        close(descriptor)
        if regular:
            closed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    assert codes(keep(deposits(tmp_path))) == [None] * MANY
    assert len(closed) == MANY


# ── others who may write there ─────────────────────────────────────────────────────────────


def after_writing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the last write of a batch and its flush."""
    flush = PartFile.sync_file_system

    def acting(part: PartFile) -> bool:
        act()
        return flush(part)

    monkeypatch.setattr(PartFile, "sync_file_system", acting)


def test_files_whose_directory_was_swapped_under_way_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could publish them where their path leads now; nothing is touched there."""
    home, away, other = tmp_path / "home", tmp_path / "away", tmp_path / "other"
    home.mkdir()
    other.mkdir()

    def swap() -> None:
        home.rename(away)
        home.symlink_to(other)

    after_writing(monkeypatch, swap)
    assert codes(keep(deposits(home))) == ["local_lost"] * MANY
    assert not list(other.iterdir())


@pytest.mark.parametrize("what", ["cut", "lengthened", "removed", "replaced", "a link"])
def test_a_file_that_somebody_touched_under_way_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is looked at once more when it is durable; the others are kept."""
    given = deposits(tmp_path)
    there = Path(given[1].temporary)

    def touch() -> None:
        match what:
            case "cut" | "lengthened":
                os.truncate(there, 1 if what == "cut" else 100)
            case "removed":
                there.unlink()
            case "replaced":
                there.unlink()
                there.write_bytes(given[1].data)
            case _:
                there.rename(tmp_path / "elsewhere")
                there.symlink_to(tmp_path / "elsewhere")

    after_writing(monkeypatch, touch)
    assert codes(keep(given)) == [None, "local_lost", None, None, None, None]


@pytest.mark.parametrize(
    ("what", "code"),
    [("link", "local_not_regular"), ("FIFO", "local_not_regular"), ("twice", "local_hard_link")],
)
def test_what_lies_in_the_place_of_a_file_is_refused_alone(
    tmp_path: Path, what: str, code: str
) -> None:
    """No link is followed, nothing with a second name is written to; the others are kept."""
    given = deposits(tmp_path)
    there, precious = Path(given[4].temporary), tmp_path / "precious"
    precious.write_bytes(b"precious")
    match what:
        case "link":
            there.symlink_to(precious)
        case "FIFO":
            os.mkfifo(there)
        case _:
            there.hardlink_to(precious)
    assert codes(keep(given)) == [None, None, None, None, code, None]
    assert precious.read_bytes() == b"precious"


# ── a worker that dies ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("done", [1, 40, 150])
async def test_a_worker_that_is_killed_among_small_files_leaves_nothing_half_done(
    tmp_path: Path, done: int
) -> None:
    """What it has told of is whole; what it has not is fetched anew, over what lies there."""
    async with Origin().running() as origin:
        pages = {f"/{number}": b"%d" % number * 50 for number in range(200)}
        origin.pages |= {path: fixed(200, body=body) for path, body in pages.items()}
        book = Book.of(tmp_path, *map(origin.url, pages))
        async with worker_process() as desk:
            await desk.start(book)
            for _ in range(done):
                await desk.until(book, link.FileDone)
            os.kill(desk.pid, signal.SIGKILL)
        bodies = dict(enumerate(pages.values()))
        told = [index for index, file in book.files.items() if file.completed]
        assert len(told) == done
        assert all(book.temporary(index).read_bytes() == bodies[index] for index in told)
        async with worker_task() as desk:
            assert isinstance(await desk.carry(book), link.Drained)
        assert {index: book.temporary(index).read_bytes() for index in bodies} == bodies
        assert len(os.listdir(tmp_path)) == len(bodies)


# ── runs that leave ────────────────────────────────────────────────────────────────────────


def test_a_file_that_nobody_waits_for_is_not_begun(tmp_path: Path) -> None:
    """A later run may have fetched it, and told that it is whole."""
    given = deposits(tmp_path)
    given[0] = replace(given[0], wanted=lambda: False)
    assert codes(keep(given)) == ["local_busy", *[None] * (MANY - 1)]
    assert not Path(given[0].temporary).exists()


async def test_what_waits_for_a_slow_disk_is_not_begun_after_its_run_has_left(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another run has written there meanwhile stays as it is."""
    disk = Event()

    def slow(waiting: Sequence[Deposit]) -> list[Outcome]:
        disk.wait(20)
        return batch.keep(waiting)

    monkeypatch.setattr(shelf, "keep", slow)
    leaving = Deposits(Shelves(threads), MANY)
    given = deposit(tmp_path, "f")
    told: list[Inode] = []
    await leaving.put(given, told.append)
    await leaving.leave(0.0)
    overwrite(given, b"of a later run")
    disk.set()
    async with asyncio.timeout(20):
        await asyncio.to_thread(threads.shutdown)
    assert content(given) == b"of a later run"
    assert not told


# ── disks that hang ────────────────────────────────────────────────────────────────────────


async def test_a_file_system_that_hangs_holds_up_its_own_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them wait there, what goes elsewhere is kept at once."""
    gone, here, disk = tmp_path / "gone", tmp_path / "here", Event()
    gone.mkdir()
    here.mkdir()

    def hanging(waiting: Sequence[Deposit]) -> list[Outcome]:
        if any(each.local.startswith(str(gone)) for each in waiting):
            disk.wait(20)
        return batch.keep(waiting)

    monkeypatch.setattr(shelf, "keep", hanging)
    monkeypatch.setattr(shelf, "_device", lambda directory: int(directory == str(gone)))
    told: list[Inode] = []
    with ThreadPoolExecutor(4) as threads:
        shelves = Shelves(threads)
        stuck, well = Deposits(shelves, 1000), Deposits(shelves, 1000)
        for number in range(200):
            await stuck.put(deposit(gone, f"f{number}"), told.append)
        async with asyncio.timeout(10):
            await well.put(deposit(here, "f"), told.append)
            await well.settled()
        assert len(told) == 1
        disk.set()
        await stuck.settled()
        assert len(told) == 201
