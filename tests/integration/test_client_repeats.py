"""Answers that are cut off: what may be sent twice is, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, running_api
from transferd.client.manager import Manager, connect
from transferd.model.errors import Conflict, NoDaemon, NotFound
from transferd.wire.bodies import FileBody, JobBody


class Cutter:
    """Stands before a daemon: requests go through, and so many answers do not."""

    def __init__(self, daemon: Path, path: Path) -> None:
        self.path = path
        self.cuts = 0
        #: Requests that went through.
        self.passed = 0
        self._daemon = daemon

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Take connections until the end of the block."""
        server = await asyncio.start_unix_server(self._carry, self.path)
        async with server:
            yield

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(self._daemon)
        with contextlib.closing(writer), contextlib.closing(outer):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:  # somebody has looked whether we are here
                return
            fields = [line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line]
            length = int(dict(fields).get(b"content-length", b"0"))
            outer.write(head + await reader.readexactly(length))
            answer = await inner.read(1) + await inner.read(65536)
            self.passed += 1
            self.cuts -= 1
            if self.cuts < 0:
                writer.write(answer)
                await writer.drain()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A running server."""
    async with running_api() as running:
        yield running


@pytest.fixture
async def cutter(api: Api, tmp_path: Path) -> AsyncIterator[Cutter]:
    """A cutter before it."""
    cutter = Cutter(api.path, tmp_path / "socket")
    async with cutter.standing():
        yield cutter


@pytest.fixture
async def manager(cutter: Cutter) -> AsyncIterator[Manager]:
    """A client before that."""
    async with connect(cutter.path) as connected:
        cutter.passed = 0
        yield connected


async def test_a_job_is_made_once_however_often_its_answer_is_lost(
    manager: Manager, cutter: Cutter, api: Api
) -> None:
    """The client names each job, so that the daemon knows a request that comes again."""
    cutter.cuts = 2
    job = await manager.create_job("a job")
    assert cutter.passed == 3
    cutter.cuts = 1
    (other,) = await manager.create_jobs([JobBody(name="another")])
    assert set(api.service.jobs) == {job.id, other.id}


async def test_looks_and_changes_that_say_how_it_shall_be_are_repeated(
    manager: Manager, cutter: Cutter
) -> None:
    """GET, PUT, DELETE, resume and suspend: the second time changes nothing."""
    job = await manager.create_job(
        "a job", files=[FileBody(remote="http://127.0.0.1/a", local="/a")]
    )
    cutter.cuts = 1
    await job.refresh()
    for change in (
        job.set_credentials("server", "digest", "alice", "secret"),
        job.resume(),
        job.suspend(),
    ):
        cutter.cuts, cutter.passed = 1, 0
        await change
        assert cutter.passed == 2


async def test_what_a_lost_answer_has_removed_is_removed(manager: Manager, cutter: Cutter) -> None:
    """A repeated removal finds nothing, and that is what was wanted; a first one says so."""
    job = await manager.create_job("a job")
    await job.set_credentials("server", "digest", "alice", "secret")
    cutter.cuts = 1
    await job.remove_credentials("server", "digest")
    with pytest.raises(NotFound):
        await job.remove_credentials("server", "digest")


async def test_what_may_have_been_done_is_not_done_again(manager: Manager, cutter: Cutter) -> None:
    """Whoever adds a file or cancels a job hears that nobody can tell, and looks."""
    job = await manager.create_job("a job")
    for change in (job.add_file("http://127.0.0.1/a", "/a"), job.cancel()):
        cutter.cuts, cutter.passed = 1, 0
        with pytest.raises(NoDaemon, match="look at the job before trying again"):
            await change
        assert cutter.passed == 1


async def test_a_daemon_that_never_answers_is_given_up(
    manager: Manager, cutter: Cutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few times, and at once where nobody has cut anything off."""
    monkeypatch.setattr("transferd.client.connection.REPEATS", (0.0, 0.0))
    cutter.cuts = 100
    with pytest.raises(NoDaemon, match="cannot hear the daemon's answer"):
        await manager.version()
    assert cutter.passed > 2
    cutter.path.unlink()
    with pytest.raises(NoDaemon, match="cannot reach the daemon"):
        await manager.version()


async def test_a_refusal_is_not_repeated(manager: Manager, cutter: Cutter, api: Api) -> None:
    """It is an answer."""
    api.service.fault = Conflict("queue_full", "there is no room")
    with pytest.raises(Conflict):
        await manager.create_job("a job")
    assert cutter.passed == 1
