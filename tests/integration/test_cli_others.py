"""What an admin's command line does with the jobs of others."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.scripted_daemon import ScriptedDaemon, scripted_daemon
from transferd.cli.__main__ import perform
from transferd.cli.arguments import parse
from transferd.cli.output import Output
from transferd.client.job import Job
from transferd.client.manager import Manager, connect
from transferd.model.errors import NotFound
from transferd.model.job import JobId
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState

HERS = "a1c3e5a7-d9cb-469f-a165-70867728950e"
ALICE = 424242


@pytest.fixture
async def daemon() -> AsyncIterator[ScriptedDaemon]:
    """A daemon to which whoever runs this test is an admin."""
    async with scripted_daemon(heartbeat=0.05, admin_gid=os.getegid()) as running:
        yield running


@pytest.fixture
async def manager(daemon: ScriptedDaemon) -> AsyncIterator[Manager]:
    """A client of that daemon, beside the command line."""
    async with connect(daemon.path) as connected:
        yield connected


@pytest.fixture
async def hers(daemon: ScriptedDaemon, manager: Manager) -> Job:
    """A job of alice's, who is somebody else."""
    job = await manager.create_job(
        "nightly", id=HERS, cacert="/home/alice/ca.pem", description="hers"
    )
    await job.add_file("https://host/x", "/tmp/x")
    await job.set_credentials("server", "basic", "alice", "hunter2")
    daemon.service.put(JobId(HERS), owner=ALICE)
    return job


async def ctl(daemon: ScriptedDaemon, *words: str) -> tuple[int, str, str]:
    """Run a command in this process; returns status, results and remarks."""
    stdout, stderr = io.StringIO(), io.StringIO()
    options = parse([*words, "--socket", str(daemon.path)])
    status = await perform(options, Output(json=options.json, stdout=stdout, stderr=stderr))
    return status, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize("reference", [HERS, HERS.upper(), HERS[:8], HERS[:4]])
async def test_an_admin_means_others_by_their_ids(
    daemon: ScriptedDaemon, hers: Job, reference: str
) -> None:
    """An id is nobody's choice: whoever writes a part of one means that job."""
    for command in ("show", "why", "files"):
        status, _, stderr = await ctl(daemon, command, reference)
        assert (status, stderr) == (0, ""), command
    assert await ctl(daemon, "resume", reference) == (
        0,
        "",
        f"resumed nightly of {ALICE}; `transferctl wait {HERS} --complete` waits for it and gives"
        " the file its name\n",
    )
    assert await ctl(daemon, "cancel", reference) == (0, "", f"cancelled nightly of {ALICE}\n")


async def test_a_name_means_ones_own_job_unless_everybodys_are_meant(
    daemon: ScriptedDaemon, hers: Job
) -> None:
    """Names are chosen by others: `cancel nightly` must not hit whoever has one of that name."""
    status, _, stderr = await ctl(daemon, "cancel", "nightly")
    assert status == 4
    assert "nightly" in stderr
    assert await ctl(daemon, "suspend", "nightly", "--all-users") == (
        0,
        "",
        f"suspended nightly of {ALICE}\n",
    )


async def test_ones_own_job_comes_first(
    daemon: ScriptedDaemon, manager: Manager, hers: Job
) -> None:
    """A prefix that fits one's own means that, and with everybody's it is ambiguous."""
    await manager.create_job("nightly", id="a1c3ffff-d9cb-469f-a165-70867728950e")
    assert await ctl(daemon, "cancel", "a1c3", "--json") != (0, "", "")
    assert JobId(HERS) in daemon.service.jobs
    await manager.create_job("nightly", id="a1c3eeee-d9cb-469f-a165-70867728950e")
    status, _, stderr = await ctl(daemon, "cancel", "nightly", "--all-users")
    assert status == 2
    assert f"{HERS} (nightly of {ALICE})" in stderr


async def test_a_list_of_everybodys_jobs_says_whose_they_are(
    daemon: ScriptedDaemon, manager: Manager, hers: Job
) -> None:
    """Without the option an admin sees his own, like everybody."""
    await manager.create_job("mine")
    _, own, _ = await ctl(daemon, "list")
    assert "OWNER" not in own
    assert HERS[:8] not in own
    _, everybody, _ = await ctl(daemon, "list", "--all-users")
    lines = everybody.splitlines()
    assert lines[0].split() == ["ID", "STATE", "DONE", "SIZE", "PRIORITY", "OWNER", "NAME"]
    (row,) = [line.split() for line in lines if line.startswith(HERS[:8])]
    assert row[-2:] == [str(ALICE), "nightly"]
    _, shown, _ = await ctl(daemon, "show", HERS)
    assert f"{ALICE} ({ALICE})" in shown


async def test_taking_over_says_what_the_job_has_lost(daemon: ScriptedDaemon, hers: Job) -> None:
    """Whoever takes it gives it others, or it runs without."""
    status, _, said = await ctl(daemon, "take-ownership", HERS[:6])
    assert status == 0
    assert said.startswith(f"took over nightly of {ALICE}, now ")
    assert "without credentials, headers, command, CA file" in said
    _, shown, _ = await ctl(daemon, "show", HERS)
    assert "credentials" not in shown
    status, _, said = await ctl(daemon, "take-ownership", "nightly")
    assert (status, "already" in said) == (0, True)
    status, document, _ = await ctl(daemon, "take-ownership", HERS, "--json")
    assert (status, HERS in document) == (0, True)


async def test_events_of_everybody_are_heard_and_not_acknowledged(
    daemon: ScriptedDaemon, hers: Job
) -> None:
    """An admin who swallowed others' notices would leave them waiting for ever."""
    status, _, stderr = await ctl(daemon, "events", "--all-users", "--ack")
    assert status == 2
    assert "theirs to hear" in stderr
    asked: list[dict[str, Any]] = []
    subscribe = daemon.service.subscribe

    def noting(caller: Any, **wishes: Any) -> Any:
        asked.append(wishes)
        return subscribe(caller, **wishes)

    daemon.service.subscribe = noting  # type: ignore[method-assign]
    listening = asyncio.create_task(ctl(daemon, "events", "--all-users"))
    await daemon.service.listening(1)
    listening.cancel()
    await asyncio.wait([listening])
    assert [wishes["all_users"] for wishes in asked] == [True]


async def test_who_waits_for_a_job_that_is_taken_over_is_told(
    daemon: ScriptedDaemon, manager: Manager
) -> None:
    """For the former owner it is over, and it was not completed."""
    job = await manager.create_job("nightly")
    await job.add_file("https://host/x", "/tmp/x")
    waiting = asyncio.create_task(ctl(daemon, "wait", job.id))
    await daemon.service.listening(1)
    notice = await daemon.service.post(NoticeKind.ENDED, JobId(job.id))
    daemon.service.put(JobId(job.id), owner=ALICE, state=JobState.QUEUED)
    daemon.service.tell(notice, NoticeKind.ENDED, job.id)
    status, _, stderr = await waiting
    assert status == 1
    assert "it was taken over" in stderr


async def test_an_admin_takes_a_job_over_in_python(manager: Manager, hers: Job) -> None:
    """The handle shows the job as it is then."""
    answer = await hers.take_ownership()
    assert answer.owner.uid == os.geteuid()
    assert hers.answer.credentials == []
    await hers.cancel()
    with pytest.raises(NotFound):
        await hers.take_ownership()
