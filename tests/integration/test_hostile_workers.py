"""A worker that floods, lies or hangs: it is cut off, and nobody but its owner notices."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.hostile import (
    ALICE,
    CALLERS,
    MALLORY,
    eventually,
    machine,
    rude,
    script,
)
from tests.support.service import SETTINGS, Service, spec
from transferd.model.errors import NotAllowed, OwnerRefused
from transferd.model.job import Job, JobSpec
from transferd.model.notices import NoticeKind
from transferd.model.states import JobEvent, JobState
from transferd.service import hearing
from transferd.service.hearing import TURN_MESSAGES
from transferd.wire import chores, link

SIGKILL = -9
#: Of a line that says Connected, at most.
_CONNECTED_BYTES = 100


async def create(service: Service, owner: int, wanted: JobSpec) -> Job:
    """Make a job of somebody's."""
    (created,) = await service.parts.jobs.create(CALLERS[owner], [wanted])
    return created.job


def transferred(job: Job) -> bool:
    """Whether all files of a job are whole."""
    return job.state is JobState.TRANSFERRED


async def stumbled(service: Service, job: Job) -> str:
    """Wait until the first run of a job is over, and return why."""
    seen = await service.until(job, lambda now: now.error is not None, CALLERS[job.owner])
    assert seen.error is not None
    assert seen.error.code == "worker_lost"
    return seen.error.message


async def carries(service: Service, files: int = 3) -> None:
    """Let an honest worker of Alice's carry a job from its beginning to its end."""
    job = await create(service, ALICE, spec(*(f"/{number}" for number in range(files))))
    worker = await service.worker_of(ALICE)
    count = len([m for m in worker.heard if isinstance(m, link.Start)])
    while True:
        start = await worker.hears(link.Start, max(count, 1))
        if start.job == job.id:
            break
        count += 1
    await worker.carry(start)
    await service.until(job, transferred, CALLERS[ALICE])


def cut_off(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The reasons for which workers were cut off."""
    lines = [record for record in caplog.records if record.message == "worker.cut_off"]
    return [getattr(line, "fields")["reason"] for line in lines]  # noqa: B009


LIES = {
    "an unknown code": (
        'say("failed", **about(failure={"code": "magic", "message": "m"}))',
        "code that nobody knows",
    ),
    "a code that is no number": (
        'say("failed", **about(failure={"code": "http_4x4", "message": "m"}))',
        "code that nobody knows",
    ),
    "an endless text": (
        'say("failed", **about(failure={"code": "http_404", "message": "m" * 100_000}))',
        "failure of 100000 characters",
    ),
    "a wait that is negative": (
        'say("failed", **about(failure={"code": "http_503", "message": "m"}, retry_after=-1))',
        "time that is none",
    ),
    "a file that it was not given": (
        'say("file_done", **about(file=7, size=1, inode={"device": 1, "number": 1}))',
        "file that it was not given",
    ),
    "a file twice": (
        'd = about(file=0, size=1, inode={"device": 1, "number": 1})\n'
        'say("file_done", **d); say("file_done", **d)',
        "file that it was not given, or has done",
    ),
    "an offset after the end": ('say("durable", **about(file=0, offset=9, total=8))', "more bytes"),
    "an offset that goes back": (
        'say("durable", **about(file=0, offset=9)); say("durable", **about(file=0, offset=8))',
        "goes back",
    ),
    "an offset of 64 bits": ('say("durable", **about(file=0, offset=2**63))', "offset"),
    "a number without an end": (
        "raw(b'{\"is\":\"hello\",\"pid\":' + b'9' * 100_000 + b'}\\n')",
        "cannot read",
    ),
    "the end of a job that is not done": ('say("drained", **about())', "did not report"),
    "a stop that nobody asked for": ('say("stopped", **about())', "not told to stop"),
    "hello again": ("hello()", "Hello again"),
    "an answer to nothing": ('say("inspected", request=12345)', "nobody asked"),
    "a sign of life to nothing": ('say("pong", request=1)', "sign of life"),
    "a run of the future": ('say("connected", job=start["job"], run=10**6)', "never was"),
    "a log line of a level that is none": ('say("said", level="fatal", event="a.b")', "level"),
    "a log line with a forged name": ('say("said", level="info", event="a b\\nc")', "no name"),
    "control characters for the log": (
        'say("audited", **about(accepted=True, target="server", scheme="basic", host="a\\x1b[2J"))',
        "control characters",
    ),
    "no JSON": ("raw(b'hello, world\\n')", "cannot read"),
    "no UTF-8": ('raw(b\'{"is": "\\xff"}\\n\')', "cannot read"),
    "a nest without an end": ("raw(b'{\"is\": ' + b'[' * 100_000 + b'\\n')", "cannot read"),
    "a line without an end": ("raw(b'x' * 2_000_000)", "longer than"),
}


@pytest.mark.parametrize("name", sorted(LIES))
async def test_a_lie_is_the_last_word_of_a_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The process is killed, its job waits for another one, and the reason is in the log, once."""
    said, reason = LIES[name]
    program = script(f'hear("start")\n{said}')
    async with machine(tmp_path, {MALLORY: program}) as (service, gang):
        job = await create(service, MALLORY, spec("/a"))
        assert await gang.ended(MALLORY) == SIGKILL
        assert reason in await stumbled(service, job)
        assert reason in cut_off(caplog)[0]
        await service.parts.jobs.cancel(CALLERS[MALLORY], job.id)
        await carries(service)
        assert len(cut_off(caplog)) <= gang.starts(MALLORY)


async def test_a_worker_cannot_speak_of_somebody_elses_job(tmp_path: Path) -> None:
    """It may learn the id and guess the run: whose job it is is what the daemon knows."""
    async with machine(tmp_path, {}) as (service, gang):
        hers = await create(service, ALICE, spec("/hers"))
        worker = await service.worker_of(ALICE)
        start = await worker.hears(link.Start)
        gang.programs[MALLORY] = script(
            f"""
            hear("start")
            say("failed", job="{start.job}", run={start.run},
                failure={{"code": "http_404", "message": "it is gone"}})
            """
        )
        his = await create(service, MALLORY, spec("/his"))
        assert "not given" in await stumbled(service, his)
        seen = await service.parts.jobs.get(CALLERS[ALICE], hers.id)
        assert (seen.state, seen.error) == (JobState.CONNECTING, None)
        await worker.carry(start)
        await service.until(hers, transferred, CALLERS[ALICE])


# ── floods ─────────────────────────────────────────────────────────────────────────────────

FLOODS = {
    "progress": 'flood = line("progress", **about(file=0, received=1, total=9))',
    "offsets": 'flood = line("durable", **about(file=0, offset=0))',
    "old runs": 'flood = line("connected", job="00000000-0000-4000-8000-000000000000", run=0)',
    "log lines": 'flood = line("said", level="info", event="a.b", fields={"text": "x" * 1000})',
    "audits": (
        'flood = line("audited", **about(accepted=True, target="server", scheme="basic", host="h"))'
    ),
}


@pytest.mark.parametrize("name", sorted(FLOODS))
async def test_a_flood_is_cut_off_while_others_go_on(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Jobs of others are made, carried and looked at in the midst of it; the log stays small."""
    monkeypatch.setattr(hearing, "_TALK_BURST", 60_000.0)
    program = script(
        f"""
        hear("start")
        {FLOODS[name]}
        flood *= max(1, 65536 // len(flood))
        while True:
            raw(flood)
        """
    )
    async with machine(tmp_path, {MALLORY: program}) as (service, gang):
        job = await create(service, MALLORY, spec("/a"))
        ended = asyncio.create_task(gang.ended(MALLORY))
        carried = 0
        while not ended.done():
            await carries(service)
            carried += 1
        assert await ended == SIGKILL
        assert "talks without an end" in await stumbled(service, job)
        assert carried > 1
        loud = ("worker.said", "auth.accepted")
        lines = [record for record in caplog.records if record.message in loud]
        assert len(lines) < 5000


async def test_between_two_messages_of_others_there_is_one_turn(tmp_path: Path) -> None:
    """However many flood at once, the loop comes round after so many messages of theirs."""
    # Of old runs, so that nothing but reading them takes time.
    program = script(
        """
        hear("start")
        flood = line("connected", job=start["job"], run=0) * 1000
        while True:
            raw(flood)
        """
    )
    crowd = range(80_000, 80_012)
    for uid in crowd:
        CALLERS.setdefault(uid, replace(CALLERS[MALLORY], uid=uid))
    async with machine(tmp_path, dict.fromkeys(crowd, program)) as (service, _):
        for uid in crowd:
            await create(service, uid, spec("/a"))
        workers = service.parts.organs.workers
        await eventually(lambda: len(workers.pids) == len(crowd))
        floods = [w.channel for w in workers._workers.values()]
        most, before = 0, sum(channel.taken for channel in floods)
        for _ in range(500):
            await asyncio.sleep(0)
            now = sum(channel.taken for channel in floods)
            most, before = max(most, now - before), now
        assert 0 < most <= 2 * TURN_MESSAGES * _CONNECTED_BYTES


# ── lines for the log ──────────────────────────────────────────────────────────────────────


async def test_a_line_of_a_workers_cannot_pass_for_the_daemons(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says stands under one event, with whose it is; fields of its own are text."""
    program = script(
        """
        hear("start")
        forged = {"owner": 0, "pid": 1, "event": "daemon.stopped", "job": "x\\nanother line"}
        say("said", level="error", event="job.completed", fields=forged)
        say("failed", **about(failure={"code": "http_404", "message": "m"}))
        """
    )
    caplog.set_level(logging.DEBUG)
    async with machine(tmp_path, {MALLORY: program}) as (service, gang):
        job = await create(service, MALLORY, spec("/a"))
        await service.until(job, lambda now: now.state is JobState.ERROR, CALLERS[MALLORY])
        pid = gang.processes[MALLORY][0].pid
    assert not [record for record in caplog.records if record.message == "job.completed"]
    (line,) = (record for record in caplog.records if record.message == "worker.said")
    assert line.levelno == logging.ERROR
    fields = getattr(line, "fields")  # noqa: B009
    assert (fields["owner"], fields["pid"], fields["said"]) == (MALLORY, pid, "job.completed")
    assert "owner=0 pid=1" in fields["detail"]
    assert "\n" not in fields["detail"]


@pytest.mark.parametrize(("length", "most"), [(10, 200), (4096, 12)])
async def test_long_lines_for_the_log_are_fewer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int, most: int
) -> None:
    """Each of them is searched for secrets, while everybody waits for the daemon's loop."""
    program = script(
        f"""
        hear("start")
        raw(line("said", level="info", event="a.b", fields={{str(n): "m" * {length} for n in
            range(16)}}) * 200)
        say("failed", **about(failure={{"code": "http_404", "message": "m"}}))
        """
    )
    caplog.set_level(logging.INFO)
    async with machine(tmp_path, {MALLORY: program}) as (service, _):
        job = await create(service, MALLORY, spec("/a"))
        await service.until(job, lambda now: now.state is JobState.ERROR, CALLERS[MALLORY])
    lines = [record for record in caplog.records if record.message == "worker.said"]
    assert most // 2 <= len(lines) <= most


async def test_texts_for_people_cannot_steer_their_terminals(tmp_path: Path) -> None:
    """An admin may look at anybody's job."""
    program = script(
        """
        hear("start")
        failure = {"code": "http_404", "message": "a\x1b[2Jb", "advice": "c\u202ed"}
        say("failed", **about(failure=failure))
        """
    )
    async with machine(tmp_path, {MALLORY: program}) as (service, _):
        job = await create(service, MALLORY, spec("/a"))
        seen = await service.until(job, lambda now: now.state is JobState.ERROR, CALLERS[MALLORY])
    assert seen.error is not None
    assert (seen.error.message, seen.error.advice) == ("a\ufffd[2Jb", "c\ufffdd")


# ── hangs, and who else waits ──────────────────────────────────────────────────────────────

AUTOMATIC = replace(SETTINGS, auto_complete=True)
#: Fetches everything, and never publishes or discards anything.
IDLER = script(
    """
    while True:
        heard = hear("start", "publish", "discard", "command")
        if heard["is"] == "start":
            for file in start["files"]:
                done = {"file": file["index"], "size": 1, "inode": {"device": 1, "number": 1}}
                say("file_done", **about(**done))
            say("drained", **about())
    """
)


async def test_files_that_get_no_names_hold_up_nobody_elses(tmp_path: Path) -> None:
    """Each owner's jobs are closed by hands of their own."""
    async with machine(tmp_path, {MALLORY: IDLER}) as (service, _):
        for number in range(20):
            await create(service, MALLORY, spec(f"/{number}", settings=AUTOMATIC))
        await _all_transferred(service)
        job = await create(service, ALICE, spec("/a", settings=AUTOMATIC))
        worker = await service.worker_of(ALICE)
        await worker.carry(await worker.hears(link.Start))
        await worker.hears(chores.Publish)
        await service.next_notice(job, NoticeKind.ENDED, caller=CALLERS[ALICE])


async def _jobs(service: Service) -> tuple[Job, ...]:
    page = await service.store.jobs.jobs(owner=None, states=None, after=0, limit=100)
    return page.jobs


async def _all_transferred(service: Service) -> None:
    for job in await _jobs(service):
        await service.until(job, transferred, CALLERS[job.owner])


async def test_leftovers_that_stay_hold_up_nobody_elses(tmp_path: Path) -> None:
    """Whoever cancels a job waits for his own worker to remove what is left of it."""
    async with machine(tmp_path, {MALLORY: IDLER}) as (service, _):
        his = await create(service, MALLORY, spec("/a", "/b"))
        await service.until(his, lambda now: now.files_transferred == 2, CALLERS[MALLORY])
        now = datetime.now(UTC)
        await service.store.jobs.apply(his.id, JobEvent.CANCEL, now)
        hers = await create(service, ALICE, spec("/a", "/b"))
        worker = await service.worker_of(ALICE)
        start = await worker.hears(link.Start)
        await worker.fetch(start, start.files[0])
        await service.until(hers, lambda now: now.files_transferred == 1, CALLERS[ALICE])
        async with asyncio.timeout(10):
            await service.parts.jobs.cancel(CALLERS[ALICE], hers.id)
        assert len((await worker.hears(chores.Discard)).leftovers) == 2


def _butterfingers(flag: Path) -> str:
    """Return the program of a worker that dies when it is to remove something, the first time."""
    died = f"if not os.path.exists({str(flag)!r}): open({str(flag)!r}, 'w'); os._exit(1)"
    removed = 'say("discarded", request=heard["request"])'
    discard = f'        if heard["is"] == "discard":\n            {died}\n            {removed}\n'
    return IDLER.replace(
        '        if heard["is"] == "start":', f'{discard}        if heard["is"] == "start":'
    )


async def test_leftovers_are_removed_by_the_next_worker(tmp_path: Path) -> None:
    """Partial data may be large: it does not lie about until the daemon is started anew."""
    program = _butterfingers(tmp_path / "flag")
    async with machine(tmp_path / "state", {MALLORY: program}) as (service, gang):
        jobs = [await create(service, MALLORY, spec(name)) for name in ("/a", "/b")]
        for job in jobs:
            await service.until(job, transferred, CALLERS[MALLORY])
        for job, left in zip(jobs, (1, 0), strict=True):
            await service.parts.jobs.cancel(CALLERS[MALLORY], job.id)
            assert len(await service.store.jobs.strays(9)) == left
        assert gang.starts(MALLORY) == 2


async def test_leftovers_are_removed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their owner need not have another job."""
    monkeypatch.setattr("transferd.service.sweeper._AGAIN", 0.05)
    program = _butterfingers(tmp_path / "flag")
    async with machine(tmp_path / "state", {MALLORY: program}) as (service, _):
        job = await create(service, MALLORY, spec("/a"))
        await service.until(job, transferred, CALLERS[MALLORY])
        await service.parts.jobs.cancel(CALLERS[MALLORY], job.id)
        async with asyncio.timeout(20):
            while await service.store.jobs.strays(9):
                pass


async def test_commands_that_hang_hold_up_nobody_elses(tmp_path: Path) -> None:
    """BITS N6: so many commands of one user at once."""
    commanding = replace(SETTINGS, notify_command=("/bin/true",))
    async with machine(tmp_path, {MALLORY: IDLER}) as (service, _):
        for number in range(10):
            await create(service, MALLORY, spec(f"/{number}", settings=commanding))
        await _all_transferred(service)
        await create(service, ALICE, spec("/a", settings=commanding))
        worker = await service.worker_of(ALICE)
        await worker.carry(await worker.hears(link.Start))
        assert (await worker.hears(chores.RunCommand)).argv == ("/bin/true",)


async def test_a_job_whose_worker_does_not_start_can_be_paused_at_once(tmp_path: Path) -> None:
    """Nobody waits for a user database that hangs: neither the owner nor the scheduler."""
    async with machine(tmp_path, {MALLORY: script("")}) as (service, gang):
        job = await create(service, MALLORY, spec("/a", start=False))
        gang.programs[MALLORY] = rude("time.sleep(1000)")
        (worker,) = service.parts.organs.workers._workers.values()
        worker.cut_off("the test says so")
        await service.parts.jobs.resume(CALLERS[MALLORY], job.id)
        await service.until(job, lambda now: now.state is JobState.CONNECTING, CALLERS[MALLORY])
        await eventually(lambda: gang.starts(MALLORY) == 2)
        async with asyncio.timeout(3):
            seen = await service.parts.jobs.suspend(CALLERS[MALLORY], job.id)
        assert seen.state is JobState.SUSPENDED


async def test_jobs_of_an_owner_whose_workers_fall_wait_in_the_queue(tmp_path: Path) -> None:
    """They are not tried and interrupted by the thousand until he gets another worker."""
    async with machine(tmp_path, {MALLORY: script("hear('start')\nsay('hello', pid=1)")}) as (
        service,
        gang,
    ):
        for number in range(100):
            await create(service, MALLORY, spec(f"/{number}", start=False))
        for job in await _jobs(service):
            await service.parts.jobs.resume(CALLERS[MALLORY], job.id)
        await eventually(lambda: service.parts.organs.workers.barred_until(MALLORY) is not None)
        await carries(service)
        tried = [job for job in await _jobs(service) if job.attempts]
        # As many as have slots, each time that a worker fell.
        assert len(tried) <= 4 * gang.starts(MALLORY)


# ── refusals ───────────────────────────────────────────────────────────────────────────────


async def test_an_owner_for_whom_no_worker_runs_is_told_so(tmp_path: Path) -> None:
    """403 when a job is made; a job that is there goes to error, and stays."""
    async with machine(tmp_path, {}) as (service, gang):
        job = await create(service, MALLORY, spec("/a", start=False))

        async def launch(owner: int, end: object) -> object:
            raise OwnerRefused("no jobs of root here")

        service.parts.organs.workers._startup._launch = launch  # type: ignore[assignment]
        (worker,) = service.parts.organs.workers._workers.values()
        worker.cut_off("the test says so")
        with pytest.raises(NotAllowed) as refused:
            await create(service, MALLORY, spec("/b"))
        assert refused.value.code == "owner_refused"
        await service.parts.jobs.resume(CALLERS[MALLORY], job.id)
        seen = await service.until(job, lambda now: now.error is not None, CALLERS[MALLORY])
        assert seen.error is not None
        assert (seen.state, seen.error.code) == (JobState.ERROR, "owner_refused")
        assert gang.starts(MALLORY) == 0
