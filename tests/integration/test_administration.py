"""What operators are told of a running service: status, faults, figures, events."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.support.exchanges import until
from tests.support.service import ME, ScriptedWorker, Service, one_by_one, running_service, spec
from transferd.assembly import own_user
from transferd.model.errors import Conflict, OwnerRefused, StoreDamaged
from transferd.model.job import Inode, Job, JobId, Validator
from transferd.model.notices import Notice, NoticeKind
from transferd.model.paths import temporary_path
from transferd.model.queue import Stray
from transferd.model.upkeep import Finding, Severity
from transferd.service.administration import Administration, Subjects
from transferd.service.clock import SystemClock
from transferd.service.surroundings import Places
from transferd.service.workers import WorkerGone
from transferd.wire import chores, link
from transferd.wire.admin import FindingAnswer

DONE, FAILED = NoticeKind.TRANSFERRED, NoticeKind.ERROR
GONE = temporary_path("/srv/b", JobId(str(UUID(int=7))))
VALIDATOR = Validator(etag='"v1"')


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service."""
    async with running_service(tmp_path / "state") as running:
        yield running


@pytest.fixture
def administration(service: Service, tmp_path: Path) -> Iterator[Administration]:
    """Its administration."""
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        place.chmod(0o600)
        subjects = Subjects(
            store=service.store.jobs,
            keys=service.store.keys,
            workers=service.parts.organs.workers,
            figures=service.figures,
            clock=SystemClock(),
            places=Places(
                system=False,
                socket=place,
                state=tmp_path / "state",
                queue=tmp_path / "state" / "queue.db",
            ),
            owner_of=own_user,
            name_of=lambda uid: f"user {uid}",
        )
        yield Administration(subjects, None)


async def findings(administration: Administration) -> dict[str, FindingAnswer]:
    """What a check finds, by code."""
    return {each.code: each for each in (await administration.check(ME)).findings}


# ── status ─────────────────────────────────────────────────────────────────────────────────


async def test_status_tells_users_jobs_workers_and_errors(
    service: Service, administration: Administration
) -> None:
    """Rule: who asks why a machine is busy sees whose jobs and whose process it is."""
    job = await service.create(spec("/a"))
    await service.create(spec("/b", start=False))
    worker = await service.worker()
    worker.pid = os.getpid()
    await worker.fail(await worker.hears(link.Start), "http_404")
    await service.until(job, lambda _: bool(service.figures.errors))
    status = await administration.status()
    (user,) = status.users
    assert (user.uid, user.name) == (ME.uid, f"user {ME.uid}")
    assert user.jobs == {"error": 1, "suspended": 1}
    assert user.worker_pid == os.getpid()
    assert user.worker_memory == pytest.approx(status.memory, rel=0.5)
    assert status.errors == {"http_404": 1}
    assert {state: count for state, count in status.jobs.items() if count} == user.jobs
    assert status.key.endswith("vault.key")
    assert status.queue_bytes > 4096
    assert (status.configuration, status.system, status.pid) == (None, False, os.getpid())


async def test_status_tells_when_the_configuration_was_read(
    administration: Administration, tmp_path: Path
) -> None:
    """Rule: a reload is seen from outside."""
    before = await administration.status()
    administration.configured(tmp_path / "transferd.toml")
    after = await administration.status()
    assert after.configuration == str(tmp_path / "transferd.toml")
    assert after.configured >= before.configured == before.started == after.started


# ── check ──────────────────────────────────────────────────────────────────────────────────


async def test_a_sound_service_gives_no_cause(
    service: Service, administration: Administration
) -> None:
    """Rule: everything is looked at, and nothing is found."""
    await service.create(spec("/srv/a", start=False))
    answer = await administration.check(ME)
    assert answer.findings == []
    assert set(answer.checked) == {
        *(
            "configuration",
            "queue",
            "key",
            "files",
            "space",
            "limits",
            "clock",
            "worker",
            "temporaries",
        )
    }


async def test_partial_data_of_a_job_that_is_gone_is_found(
    service: Service, administration: Administration
) -> None:
    """Rule: only what no job in the queue has; what lies elsewhere was not asked for."""
    job = await service.create(spec("/srv/a", start=False))
    worker = await service.worker()
    worker.leftovers = [
        temporary_path("/srv/a", job.id),
        GONE,
        temporary_path("/etc/shadow", JobId(str(uuid4()))),
    ]
    (finding,) = (await administration.check(ME)).findings
    assert finding.code == "temporary_orphaned"
    assert GONE in finding.text
    assert (await worker.hears(chores.Survey, 2)).directories == ("/srv/",)


async def test_partial_data_that_could_not_be_removed_is_found(
    service: Service, administration: Administration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: what the queue remembers as to be removed, and is still there after a moment."""
    looks: list[int] = []

    async def strays(limit: int, *, after: int = 0) -> tuple[Stray, ...]:
        looks.append(limit)
        kept = Stray(number=1, owner=ME.uid, temporary=GONE)
        being_removed = Stray(number=2, owner=ME.uid, temporary="/srv/.c")
        return (kept, being_removed) if len(looks) == 1 else (kept,)

    await service.create(spec("/srv/a", start=False))
    (await service.worker()).leftovers = [GONE]
    monkeypatch.setattr(service.store.jobs, "strays", strays)
    answer = await administration.check(ME)
    (finding,) = answer.findings
    assert finding.code == "temporary_orphaned"
    assert GONE in finding.text
    assert "could not be removed" in finding.text


@pytest.mark.parametrize("error", [WorkerGone("no such program"), OwnerRefused("not for root")])
async def test_a_worker_that_cannot_be_started_is_found(
    service: Service,
    administration: Administration,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Rule: a service without workers answers everything and moves nothing."""
    await service.create(spec("/srv/a", start=False))

    async def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(service.parts.organs.workers, "ask", refuse)
    found = await findings(administration)
    assert found["worker_failed"].severity == Severity.ERROR
    assert str(error) in found["worker_failed"].text
    assert found["temporaries_unseen"].severity == Severity.WARNING


async def test_a_damaged_queue_does_not_keep_the_rest_from_being_looked_at(
    service: Service, administration: Administration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: every look is taken, whatever the others met."""

    async def fail() -> None:
        raise StoreDamaged("cannot read queue.db: page 7 is malformed")

    monkeypatch.setattr(service.store.jobs, "directories", fail)
    answer = await administration.check(ME)
    assert [each.code for each in answer.findings] == ["queue_damaged"]
    assert "page 7" in answer.findings[0].text
    assert answer.checked[-1] == "temporaries"


async def test_what_is_wrong_with_the_keys_is_told(
    administration: Administration, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    """Rule: the key ring looks at its keys; the answer passes on what it says."""
    exposed = Finding(
        code="key_exposed", severity=Severity.ERROR, text="others can read it", remedy="chmod"
    )

    async def look() -> tuple[Finding, ...]:
        return (exposed,)

    monkeypatch.setattr(service.store.keys, "findings", look)
    assert await findings(administration) == {
        "key_exposed": FindingAnswer(
            code="key_exposed", severity="error", text="others can read it", remedy="chmod"
        )
    }


async def test_a_check_changes_nothing(
    service: Service, administration: Administration, tmp_path: Path
) -> None:
    """Rule: looking is free; the queue file and the outbox are as they were."""
    await service.create(spec("/srv/a", start=False))
    await service.store.jobs.counts()
    queue = tmp_path / "state"
    before = {path.name: path.read_bytes() for path in queue.glob("queue.db")}
    await administration.check(ME)
    assert {path.name: path.read_bytes() for path in queue.glob("queue.db")} == before


# ── the key ────────────────────────────────────────────────────────────────────────────────


async def test_a_change_of_the_key_is_told_and_written_down(
    administration: Administration, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: key.rotated has the new key's name, which tells nothing of it."""
    with caplog.at_level(logging.INFO):
        answer = await administration.rotate_key()
    (record,) = (each for each in caplog.records if each.message == "key.rotated")
    assert vars(record)["fields"] == {"key": answer.key, "resealed": 0, "unreadable": 0}


async def test_a_key_that_is_not_ours_is_not_changed(
    service: Service,
    administration: Administration,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rule: a refusal reaches the operator, and nothing is written down as done."""

    async def refuse() -> None:
        raise Conflict("key_not_ours", "cannot change the key: it is a credential")

    monkeypatch.setattr(service.store.keys, "rotate", refuse)
    with caplog.at_level(logging.INFO), pytest.raises(Conflict, match="credential"):
        await administration.rotate_key()
    assert "key.rotated" not in caplog.messages


# ── figures and events ─────────────────────────────────────────────────────────────────────


async def test_figures_follow_what_happens(
    service: Service, administration: Administration
) -> None:
    """Rule: bytes count when they are durable, and once; all else when it happens."""
    job = await service.create(spec("/a"))
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.say(link.Connected(start.job, start.run))
    await worker.say(link.Durable(start.job, start.run, 0, 6, 10, VALIDATOR))
    await worker.fail(start, "connection_lost")
    again = await worker.hears(link.Start, 2)
    await worker.carry(again)
    notice = await twice(service, job)
    await service.parts.notifier.acknowledge(ME, notice.number)
    figures = service.figures
    assert figures.bytes == 10
    assert dict(figures.retries) == {"connection_lost": 1}
    assert list(figures.delivery.buckets)[-1] == ("+Inf", 1)
    assert list(figures.acknowledgement.buckets)[-1] == ("+Inf", 1)
    assert figures.worker_starts == 1
    failing = await service.create(spec("/b"))
    await worker.fail(await worker.hears(link.Start, 3), "http_404")
    await service.until(failing, lambda _: bool(figures.errors))
    assert dict(figures.errors) == {"http_404": 1}
    text = (await administration.figures()).decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    states = {s.labels["state"]: s.value for s in families["transferd_jobs"].samples}
    assert (states["transferred"], states["error"]) == (1, 1)


async def twice(service: Service, job: Job) -> Notice:
    """Hear that a job is transferred, and hear it again."""
    heard: list[Notice] = []
    async with (
        asyncio.timeout(10),
        one_by_one(
            service.parts.notifier.subscribe(ME, job_id=job.id, kinds=DONE, after=0)
        ) as events,
    ):
        async for event in events:
            heard += [event] if isinstance(event, Notice) else []
            if len(heard) == 2:
                break
    return heard[1]


async def opened(worker: ScriptedWorker, start: link.Start) -> Inode:
    """The first file of a run is being fetched."""
    inode = Inode(device=1, number=1)
    await worker.say(link.Connected(start.job, start.run))
    await worker.say(link.Opened(start.job, start.run, 0, inode))
    return inode


def events(caplog: pytest.LogCaptureFixture, *names: str) -> list[tuple[str, dict[str, object]]]:
    """The records of some events, with their fields."""
    return [
        (each.message, vars(each)["fields"]) for each in caplog.records if each.message in names
    ]


async def test_files_that_start_and_stop_are_written_down(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: BITS events 59 to 61: from where to where, how it ended; no query of the URL."""
    with caplog.at_level(logging.INFO):
        job = await service.create(spec("/a?sig=hunter2"))
        worker = await service.worker()
        start = await worker.hears(link.Start)
        inode = await opened(worker, start)
        await worker.say(link.Durable(start.job, start.run, 0, 6, 10, VALIDATOR))
        await worker.fail(start, "connection_lost")
        again = await worker.hears(link.Start, 2)
        await opened(worker, again)
        done = link.FileDone(again.job, again.run, 0, 10, inode, http_status=206)
        await worker.say(done)
        await worker.say(link.Drained(again.job, again.run))
        await service.next_notice(job, DONE)
    about = {"job": job.id, "owner": ME.uid, "file": 0, "url": "http://127.0.0.1/a"}
    told = events(caplog, "file.start", "file.stop")
    seconds = [fields.pop("seconds") for event, fields in told if event == "file.stop"]
    assert told == [
        ("file.start", about | {"offset": 0}),
        ("file.stop", about | {"status": "connection_lost", "bytes": 6, "http_status": None}),
        ("file.start", about | {"offset": 6}),
        ("file.stop", about | {"status": "done", "bytes": 4, "http_status": 206}),
    ]
    assert all(isinstance(each, float) and each >= 0 for each in seconds)


async def test_a_small_file_is_written_down_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: one that is whole before anybody hears of it has its stop all the same."""
    with caplog.at_level(logging.INFO):
        job = await service.create(spec("/a"))
        worker = await service.worker()
        start = await worker.hears(link.Start)
        inode = Inode(device=1, number=1)
        await worker.say(link.FileDone(start.job, start.run, 0, 10, inode, http_status=200))
        await worker.say(link.Drained(start.job, start.run))
        await service.next_notice(job, DONE)
    ((event, fields),) = events(caplog, "file.start", "file.stop")
    assert event == "file.stop"
    assert fields["status"] == "done"
    assert (fields["bytes"], fields["seconds"], fields["http_status"]) == (10, None, 200)


async def test_a_file_that_is_left_is_written_down_as_stopped(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: every start has its stop, also where a job is paused."""
    with caplog.at_level(logging.INFO):
        job = await service.create(spec("/a"))
        worker = await service.worker()
        await opened(worker, await worker.hears(link.Start))
        await service.until(job, lambda now: now.state.label == "transferring")
        await service.parts.jobs.suspend(ME, job.id)
    assert [event for event, _ in events(caplog, "file.start", "file.stop")] == [
        "file.start",
        "file.stop",
    ]
    ((_, fields),) = events(caplog, "file.stop")
    assert fields["status"] == "stopped"


async def test_a_file_whose_worker_dies_is_written_down_as_such(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: who looks for lost workers finds the files that it cost."""
    with caplog.at_level(logging.INFO):
        await service.create(spec("/a"))
        worker = await service.worker()
        await opened(worker, await worker.hears(link.Start))
        worker.kill()
        await (await service.worker(1)).hears(link.Start)
    ((_, fields),) = events(caplog, "file.stop")
    assert fields["status"] == "worker_lost"


async def test_a_failure_is_written_down_with_code_and_context(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: job.stumbled and job.failed say what journalctl can look for."""
    with caplog.at_level(logging.INFO):
        job = await service.create(spec("/a"))
        worker = await service.worker()
        await worker.fail(await worker.hears(link.Start), "connection_lost")
        await worker.fail(await worker.hears(link.Start, 2), "http_404")
        await service.next_notice(job, FAILED)
        # The outbox has it first; then it is said.
        await until(lambda: bool(events(caplog, "job.failed")))
    told = events(caplog, "job.stumbled", "job.failed")
    assert [(event, fields["code"], str(fields["context"])) for event, fields in told] == [
        ("job.stumbled", "connection_lost", "transport"),
        ("job.failed", "http_404", "remote_file"),
    ]


async def test_only_another_command_or_other_kinds_are_a_change_of_who_is_told(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: BITS event 6."""
    job = await service.create(spec("/a", start=False))
    with caplog.at_level(logging.INFO):
        await service.parts.jobs.change(ME, job.id, lambda now: replace(now, description="x"))
        assert events(caplog, "job.notify_changed") == []
        command = ("/usr/bin/true",)
        await service.parts.jobs.change(
            ME, job.id, lambda now: replace(now, notify_command=command)
        )
    assert events(caplog, "job.notify_changed") == [
        ("job.notify_changed", {"job": job.id, "owner": ME.uid})
    ]
