"""transferctl against the real API server, and as a process."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_daemon import ScriptedDaemon, ScriptedService, scripted_daemon
from transferd import __version__
from transferd.cli.__main__ import perform
from transferd.cli.arguments import parse
from transferd.cli.outcomes import Exit
from transferd.cli.output import Output
from transferd.client.job import Job
from transferd.client.manager import Manager, connect
from transferd.model.credentials import (
    PASSWORD_SCHEMES,
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Target,
)
from transferd.model.errors import Conflict, NoDaemon
from transferd.model.failures import Failure
from transferd.model.job import Blocker, Cost, File, JobId
from transferd.model.notices import NoticeKind
from transferd.model.states import JobState
from transferd.wire.api import JobAnswer

pytestmark = pytest.mark.timeout(60)

URL = "https://host.example.org/dir/a.iso"
CLOSED = Blocker(
    code="schedule_closed",
    text="it is closed",
    until=datetime(2100, 11, 30, 17, tzinfo=UTC),
    remedy="wait",
)
BUSY = Blocker(code="no_slot", text="others go first", remedy="wait")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document that was printed."""
        return json.loads(self.stdout)


class Terminal(io.StringIO):
    """Takes text as a terminal does."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
async def daemon() -> AsyncIterator[ScriptedDaemon]:
    """A daemon that says what it is told to."""
    async with scripted_daemon(heartbeat=0.05) as running:
        yield running


@pytest.fixture
def service(daemon: ScriptedDaemon) -> ScriptedService:
    """What is behind that daemon."""
    return daemon.service


@pytest.fixture
async def manager(daemon: ScriptedDaemon) -> AsyncIterator[Manager]:
    """A client of that daemon, beside the command line."""
    async with connect(daemon.path) as connected:
        yield connected


async def ctl(daemon: ScriptedDaemon, *words: str, terminal: bool = False) -> Done:
    """Run a command in this process."""
    stdout, stderr = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    own = words.index("--") if "--" in words else len(words)
    options = parse([*words[:own], "--socket", str(daemon.path), *words[own:]])
    status = await perform(options, Output(json=options.json, stdout=stdout, stderr=stderr))
    return Done(status, stdout.getvalue(), stderr.getvalue())


async def begun(service: ScriptedService) -> Job:
    """Wait until `get` waits for its job; returns what `ScriptedService` needs of that job."""
    await service.listening(2)  # callbacks, and `wait`
    (job,) = service.jobs.values()
    return _handle(job.id)


def _handle(job_id: str) -> Job:
    """A job for the service's scripts, which need no more than its id."""
    handle = object.__new__(Job)
    handle.answer = type("Answer", (), {"id": job_id})()
    return handle


# ── get: the sample ────────────────────────────────────────────────────────────────────────


async def test_get_takes_the_steps_of_the_sample(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """Create, notify, credentials, file, resume, wait for the callback, complete."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    words = ["get", URL, str(tmp_path), "--auth", "BASIC", "--user", "CORP\\alice"]
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, *words, "--password-file", str(secret)))
        job = await begun(service)
        made = service.jobs[JobId(job.id)]
        (file,) = service.files_of[JobId(job.id)]
        assert made.state is JobState.QUEUED
        assert made.settings.name == "a.iso"
        assert made.settings.priority.label == "foreground"
        assert made.settings.notify_kinds == 0x03
        assert service.passwords == {(job.id, Target.SERVER, Scheme.BASIC): "hunter2"}
        assert (file.spec.remote, file.spec.local) == (URL, str(tmp_path / "a.iso"))
        await service.transfer(job)
    done = getting.result()
    assert done == Done(0, f"{tmp_path}/a.iso\n", "")
    assert service.acknowledged == [1]
    assert service.jobs == {}


async def test_get_says_what_it_saved(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """On a terminal a person reads it."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path), terminal=True))
        job = await begun(service)
        service.put(JobId(job.id), bytes_transferred=12_345_678)
        await service.transfer(job)
    done = getting.result()
    assert done.status == 0
    assert f"saved {tmp_path}/a.iso (12.3 MB in " in done.stdout


async def test_get_says_everything_in_json(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """One document, for programs."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path), "--json"))
        job = await begun(service)
        service.put(JobId(job.id), bytes_transferred=12_345_678)
        await service.transfer(job)
    done = getting.result()
    assert done.json["path"] == f"{tmp_path}/a.iso"
    assert done.json["bytes"] == 12_345_678
    assert done.json["job"]["state"] == "acknowledged"
    assert done.json["length_unverified"] is False
    assert done.stderr == ""


async def test_get_sets_every_available_scheme_when_none_is_named(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """BITS.md A6, for the server and the proxy."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    done = await ctl(
        daemon, "get", URL, str(tmp_path), "--detach",
        "--user", "alice", "--password-file", str(secret),
        "--proxy", "http://proxy.example.org:3128",
        "--proxy-user", "bob", "--proxy-password-file", str(secret), "--proxy-auth", "digest",
    )  # fmt: skip
    assert done.status == 0
    assert {(target, scheme) for _, target, scheme in service.passwords} == {
        *((Target.SERVER, scheme) for scheme in PASSWORD_SCHEMES),
        (Target.PROXY, Scheme.DIGEST),
    }
    (job,) = service.jobs.values()
    assert job.settings.proxy == "http://proxy.example.org:3128"


async def test_get_detached_leaves_a_job_that_completes_itself(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """The file shall appear though nobody waits; the id is all that is printed."""
    done = await ctl(daemon, "get", URL, str(tmp_path / "x"), "--detach")
    (job,) = service.jobs.values()
    assert done == Done(0, f"{job.id}\n", "")
    assert job.settings.auto_complete
    assert job.state is JobState.QUEUED


async def test_get_with_an_unknown_scheme_makes_no_job(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """The sample returns before CreateJob."""
    done = await ctl(daemon, "get", URL, str(tmp_path), "--auth", "kerberos", "--user", "alice")
    assert done.status == 2
    assert done.stderr.startswith("transferctl: invalid authentication scheme 'kerberos'")
    assert service.callers == []


@pytest.mark.parametrize("step", ["change", "set_credential", "add_files", "resume"])
async def test_get_cancels_a_half_made_job(
    step: str,
    daemon: ScriptedDaemon,
    service: ScriptedService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sample cancels whenever a step fails; no orphan is left."""

    async def refuse(*_: object, **__: object) -> None:
        raise Conflict("refused", f"cannot {step} that")

    monkeypatch.setattr(service, step, refuse)
    secret = tmp_path / "secret"
    secret.write_text("s")
    done = await ctl(
        daemon, "get", URL, str(tmp_path), "--user", "alice", "--password-file", str(secret)
    )
    assert done == Done(1, "", f"transferctl: cannot {step} that\n")
    assert service.jobs == {}
    assert len(service.callers) > 0


async def test_get_tells_of_an_error_and_cancels_the_job(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """Name and reason, as in the sample; unlike the sample, nothing is left in the queue."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path), "--json"))
        await service.fail(await begun(service))
    done = getting.result()
    assert done.status == 1
    assert done.stderr.splitlines()[0] == (
        "transferctl: job 'a.iso' failed: the server has no such file"
    )
    assert "the job is cancelled" in done.stderr
    assert done.json["error"]["code"] == "http_404"
    assert done.json["error"]["exit"] == 1
    assert done.json["error"]["remedy"] in done.stderr
    assert service.jobs == {}


async def test_get_says_why_it_waits_and_until_when_where_there_is_no_bar(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """A mistyped host is seen at once, also in a script's log; each try is told of once."""
    process = await start(daemon, "get", URL, str(tmp_path))
    job = await begun(service)
    assert process.stderr is not None
    slow = Failure(code="connect_timeout", message="it is slow")
    unknown = replace(slow, message="the name does not resolve")
    for failure, retry_at, told in (
        (unknown, None, "the name does not resolve\n"),
        (slow, None, "it is slow\n"),
        (slow, 60.0, "it is slow, next try in "),
        (slow, 180.0, "it is slow, next try in "),
    ):
        for jitter in (0.0, 0.001):
            changes = {"error": failure, "retry_at": retry_at and retry_at + jitter}
            kind = NoticeKind.MODIFICATION
            await service.happen(job, kind, JobState.TRANSIENT_ERROR, **changes)
        line = await process.stderr.readline()
        assert line.decode().startswith(f"transferctl: waiting: {told}")
    await service.transfer(job)
    _, rest = await process.communicate()
    assert (process.returncode, rest) == (0, b"")


async def test_get_says_what_holds_a_queued_job_where_there_is_no_bar(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """A job that waits for hours is not silent; each reason is told once, when it is known."""
    service.in_queue = (CLOSED,)
    process = await start(daemon, "get", URL, str(tmp_path))
    job = await begun(service)
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    assert re.fullmatch(r"transferctl: waiting: it is closed, until 2\d{3}-.* \S+\n", line)
    service.in_queue = (BUSY,)
    line = (await process.stderr.readline()).decode()
    assert line == "transferctl: waiting: others go first\n"
    await service.transfer(job)
    _, rest = await process.communicate()
    assert (process.returncode, rest) == (0, b"")


async def test_get_keeps_a_failed_job_when_it_is_told_to(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """To mend it, with its data."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path), "--keep"))
        job = await begun(service)
        await service.fail(job)
    assert getting.result().status == 1
    assert f"job {job.id} is kept" in getting.result().stderr
    assert service.jobs[JobId(job.id)].state is JobState.ERROR


async def test_get_cancels_after_its_time_and_says_why_it_took_so_long(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """The sample gives it 15 minutes, then cancels; 124 as timeout(1) has it."""
    done = await ctl(daemon, "get", URL, str(tmp_path), "--timeout", "0.1s")
    assert done.status == 124
    assert "cannot get 'a.iso' within 0.1 s" in done.stderr
    assert "--keep keeps it, --detach leaves it to the daemon" in done.stderr
    assert service.jobs == {}


async def test_get_keeps_a_late_job_when_it_is_told_to(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """`--keep` is about the bytes that are there, whatever went wrong."""
    done = await ctl(daemon, "get", URL, str(tmp_path), "--timeout", "0.1s", "--keep")
    (job,) = service.jobs
    assert done.status == 124
    assert f"the job goes on, `transferctl wait {job} --complete`" in done.stderr


async def test_get_says_when_somebody_else_cancels(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """It has not got the file."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path)))
        await service.happen(await begun(service), NoticeKind.ENDED, JobState.CANCELLED)
    done = getting.result()
    assert done == Done(1, "", "transferctl: cannot get 'a.iso': the job was cancelled\n")


async def test_get_keeps_what_it_fetched_when_it_cannot_be_given_its_name(
    daemon: ScriptedDaemon,
    service: ScriptedService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that appeared meanwhile is no reason to throw the download away."""

    async def refuse(*_: object) -> None:
        raise Conflict("local_exists", "cannot publish a.iso: it exists")

    monkeypatch.setattr(service, "complete", refuse)
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path), "--no-overwrite"))
        job = await begun(service)
        assert service.jobs[JobId(job.id)].settings.overwrite is False
        await service.transfer(job)
    done = getting.result()
    assert done.status == 1
    assert "it exists" in done.stderr
    assert f"`transferctl complete {job.id}`" in done.stderr
    assert service.jobs[JobId(job.id)].state is JobState.TRANSFERRED


async def test_get_admits_that_nobody_could_check_the_length(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """A server that names no length may have been cut off."""
    async with asyncio.TaskGroup() as group:
        getting = group.create_task(ctl(daemon, "get", URL, str(tmp_path)))
        job = await begun(service)
        (file,) = service.files_of[JobId(job.id)]
        whole = File(index=0, spec=file.spec, completed=True, length_unverified=True)
        service.files_of[JobId(job.id)] = [whole]
        await service.transfer(job)
    assert getting.result().status == 0
    assert "did not say how long" in getting.result().stderr


# ── making and changing jobs ───────────────────────────────────────────────────────────────


async def test_a_job_is_made_and_changed_step_by_step(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """Whatever the API can, the command line can."""
    created = await ctl(daemon, "create", "nightly", "--priority", "low", "--auto-complete")
    job_id = JobId(created.stdout.strip())
    assert service.jobs[job_id].settings.auto_complete
    assert (await ctl(daemon, "add", "nightly", URL, str(tmp_path))).status == 0
    secret = tmp_path / "secret"
    secret.write_text("s")
    put = ["credentials", "set", "nightly", "--user", "alice", "--password-file", str(secret)]
    done = await ctl(daemon, *put)
    assert (done.status, len(service.passwords)) == (0, 4)
    assert (await ctl(daemon, "credentials", "remove", "nightly")).status == 0
    assert service.passwords == {}
    assert (await ctl(daemon, "credentials", "remove", "nightly")).status == 4
    assert (
        await ctl(daemon, "notify", "nightly", "--kinds", "error", "--", "/bin/x", "-a")
    ).status == 0
    assert service.jobs[job_id].settings.notify_command == ("/bin/x", "-a")
    assert service.jobs[job_id].settings.notify_kinds == 0x02
    done = await ctl(daemon, "notify", "nightly", "--command", "/bin/y 'a b' c")
    assert done.status == 0
    assert service.jobs[job_id].settings.notify_command == ("/bin/y", "a b", "c")
    done = await ctl(daemon, "notify", "nightly", "--command", "/bin/y 'a")
    assert done.status == 2
    done = await ctl(daemon, "notify", "nightly", "--no-command", "--", "/bin/x")
    assert done.status == 2
    assert (await ctl(daemon, "notify", "nightly", "--no-command")).status == 0
    assert service.jobs[job_id].settings.notify_command is None
    assert service.jobs[job_id].settings.notify_kinds == 0x02
    changed = await ctl(
        daemon, "set", "nightly", "--priority", "high", "--no-auto-complete", "--name", "weekly"
    )
    assert changed.status == 0
    assert service.jobs[job_id].settings.priority.label == "high"
    assert not service.jobs[job_id].settings.auto_complete
    assert (await ctl(daemon, "set", "weekly")).status == 2


async def test_a_job_may_be_whoever_its_owner_is_already(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """A keytab, a ticket or NULL in place of a user; `show` and `credentials` know it as well."""
    keytab = tmp_path / "keytab"
    keytab.touch()
    created = await ctl(daemon, "create", "nightly", "--keytab", str(keytab), "--allow-ntlm")
    job_id = JobId(created.stdout.strip())
    options = service.jobs[job_id].settings.negotiate
    assert options == NegotiateOptions(keytab=str(keytab), ntlm=True)
    shown = (await ctl(daemon, "show", "nightly")).stdout
    assert "server negotiate (implicit)" in shown
    assert f"keytab {keytab}, ntlm yes" in shown

    changes = ["--keytab", "", "--no-allow-ntlm", "--spn", "HTTP/w", "--passport-realm", "r"]
    assert (await ctl(daemon, "set", "nightly", *changes)).status == 0
    assert service.jobs[job_id].settings.negotiate == NegotiateOptions(spn="HTTP/w")
    assert service.jobs[job_id].settings.passport == PassportOptions(realm="r")

    for words in (["--user", "null"], ["--auth", "Negotiate"]):
        done = await ctl(daemon, "credentials", "set", "nightly", "--target", "proxy", *words)
        assert (done.status, done.stdout) == (0, "")
        assert CredentialLabel(target=Target.PROXY, scheme=Scheme.NEGOTIATE, username=None) in (
            service.jobs[job_id].credentials
        )
        remove = ["credentials", "remove", "nightly", "--target", "proxy"]
        assert (await ctl(daemon, *remove)).status == 0
    refused = await ctl(daemon, "credentials", "set", "nightly", "--auth", "ntlm", "--user", "NULL")
    assert refused.status == 2
    assert "no Linux machine" in refused.stderr


async def test_a_job_that_is_its_owner_uses_the_tickets_of_who_says_so(
    daemon: ScriptedDaemon, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`create` and `credentials set` may run in another session than the daemon."""
    monkeypatch.setenv("KRB5CCNAME", "KCM:1000:7")
    created = await ctl(daemon, "create", "one", "--principal", "alice")
    options = service.jobs[JobId(created.stdout.strip())].settings.negotiate
    assert options == NegotiateOptions(principal="alice", ccache="KCM:1000:7")
    created = await ctl(daemon, "create", "two")
    own = ["credentials", "set", "two", "--user", "NULL"]
    done = await ctl(daemon, *own)
    assert (done.status, done.stderr) == (0, "set for the server: negotiate\n")
    job_id = JobId(created.stdout.strip())
    assert service.jobs[job_id].settings.negotiate == NegotiateOptions(ccache="KCM:1000:7")
    monkeypatch.setenv("KRB5CCNAME", "KCM:")
    assert (await ctl(daemon, *own)).status == 0
    assert service.jobs[job_id].settings.negotiate == NegotiateOptions(ccache="KCM:1000:7")


async def test_a_job_is_made_with_its_files(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """One call for a script that knows everything."""
    done = await ctl(
        daemon, "create", "both", "--file", "https://host/a", str(tmp_path),
        "--file", "https://host/b", str(tmp_path / "c"), "--start", "--json",
        "--header", "X-Token: secret", "--id", "0F8FAD5B-d9cb-469f-a165-70867728950e",
    )  # fmt: skip
    assert done.json["state"] == "queued"
    assert done.json["id"] == "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert done.json["headers"] == ["X-Token"]
    files = service.files_of[JobId(done.json["id"])]
    assert [file.spec.local for file in files] == [f"{tmp_path}/a", f"{tmp_path}/c"]
    assert "secret" not in done.stdout


async def test_verbs_take_many_jobs(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """One that refuses does not keep the others from it, and is not overlooked."""
    for name in ("a", "b"):
        job = await manager.create_job(name)
        await job.add_file("https://host/x", f"/tmp/{name}")
    done = await ctl(daemon, "resume", "a", "missing", "b")
    assert done.status == 4
    assert "missing" in done.stderr
    assert {job.state for job in service.jobs.values()} == {JobState.QUEUED}
    done = await ctl(daemon, "suspend", "a", "b", "--json")
    assert [job["state"] for job in done.json["jobs"]] == ["suspended", "suspended"]
    assert (await ctl(daemon, "cancel", "a")).stderr == "cancelled a\n"
    done = await ctl(daemon, "complete", "b")
    assert done == Done(0, "", "completed b: 0 of 1 files saved; the rest was discarded\n")
    assert service.jobs == {}
    empty = await manager.create_job("empty")
    assert (await ctl(daemon, "resume", empty.id)).status == 1


async def test_settings_are_changed_of_many_jobs(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """As they are suspended; a cost that was said is taken back with `default`."""
    for name in ("a", "b"):
        await manager.create_job(name, cost="always")
    done = await ctl(daemon, "set", "a", "missing", "b", "--cost", "default", "--max-rate", "2M")
    assert done.status == 4
    assert "changed a: cost, max_rate\n" in done.stderr
    assert "missing" in done.stderr
    kept = [(job.settings.cost, job.settings.max_rate) for job in service.jobs.values()]
    assert kept == [(Cost.DEFAULT, 2_000_000)] * 2
    done = await ctl(daemon, "set", "a", "b", "--priority", "low", "--json")
    assert [job["priority"] for job in done.json["jobs"]] == ["low", "low"]
    assert re.search("^cost +default$", (await ctl(daemon, "show", "a")).stdout, re.MULTILINE)


async def test_what_was_done_is_told_before_the_daemon_went_away(
    daemon: ScriptedDaemon,
    service: ScriptedService,
    manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that changes many jobs learns which of them are changed, and why it ended."""
    for name in ("a", "b"):
        await manager.create_job(name)
    change = Job.change

    async def once(job: Job, **said: Any) -> JobAnswer:
        monkeypatch.setattr(Job, "change", gone)
        return await change(job, **said)

    async def gone(job: Job, **said: Any) -> JobAnswer:
        raise NoDaemon("cannot reach the daemon")

    monkeypatch.setattr(Job, "change", once)
    done = await ctl(daemon, "set", "a", "b", "--priority", "low", "--json")
    assert done.status == Exit.NO_DAEMON
    told, error = (json.loads(line) for line in done.stdout.splitlines())
    assert [(job["name"], job["priority"]) for job in told["jobs"]] == [("a", "low")]
    assert error["error"]["exit"] == Exit.NO_DAEMON


# ── which job ──────────────────────────────────────────────────────────────────────────────


async def test_a_job_is_named_by_id_prefix_or_name(
    daemon: ScriptedDaemon, manager: Manager
) -> None:
    """People copy the beginning of an id, or remember a name."""
    job = await manager.create_job("only", id="0f8fad5b-d9cb-469f-a165-70867728950e")
    for reference in (job.id, job.id.upper(), "0f8f", "0F8FAD5B", "0f8fad5b-d9", "only"):
        assert (await ctl(daemon, "show", reference, "--json")).json["id"] == job.id
    for reference in ("0f8", "onl", "ffff", "00000000-0000-0000-0000-000000000000"):
        assert (await ctl(daemon, "show", reference)).status == 4


async def test_an_ambiguous_job_is_a_usage_error(daemon: ScriptedDaemon, manager: Manager) -> None:
    """Never the first that fits; the candidates are named."""
    first = await manager.create_job("same")
    second = await manager.create_job("same")
    done = await ctl(daemon, "cancel", "same", "--json")
    assert done.status == 2
    assert first.id in done.stderr
    assert second.id in done.stderr
    assert done.json["error"]["code"] == "ambiguous_job"
    assert len([job async for job in manager.jobs()]) == 2


# ── waiting ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("words", "left"), [([], 1), (["--complete"], 0)])
async def test_wait_completes_when_it_is_told_to(
    words: list[str],
    left: int,
    daemon: ScriptedDaemon,
    service: ScriptedService,
    manager: Manager,
) -> None:
    """How one attaches again to what `get` began."""
    job = await manager.create_job("x")
    await job.add_file("https://host/x", "/tmp/x")
    await job.resume()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ctl(daemon, "wait", job.id, *words))
        await service.listening(1)
        await service.transfer(job)
    assert waiting.result().status == 0
    assert len(service.jobs) == left


async def test_wait_ends_with_the_jobs_fate(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """1 for an error, 124 for time, 4 for what is not there."""
    job = await manager.create_job("x")
    await job.add_file("https://host/x", "/tmp/x")
    await job.resume()
    assert (await ctl(daemon, "wait", "x", "--timeout", "0.05s")).status == 124
    await service.fail(job)
    done = await ctl(daemon, "wait", "x")
    assert done.status == 1
    assert "the server has no such file" in done.stderr
    assert (await ctl(daemon, "wait", "nothing")).status == 4


async def test_wait_says_what_it_has_waited_for_in_vain(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """What `why` says first; else nothing is known but that the job goes on."""
    await manager.create_job("x")
    service.in_queue = (CLOSED, BUSY)
    waited = ["wait", "x", "--timeout", "0.05s", "--json"]
    told = "cannot wait longer than 0.1 s for 'x'"
    assert (
        f"{told}: It is paused.; the job stays in the queue" in (await ctl(daemon, *waited)).stderr
    )
    service.put(next(iter(service.jobs)), state=JobState.QUEUED)
    assert f"{told}: it is closed, until 2" in (await ctl(daemon, *waited)).stderr
    service.in_queue = ()
    assert f"{told}; the job goes on" in (await ctl(daemon, *waited)).stderr


async def test_wait_waits_for_a_job_that_completes_itself_to_its_end(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """Only then its files have their names."""
    job = await manager.create_job("x", auto_complete=True)
    await job.add_file("https://host/x", "/tmp/x")
    await job.resume()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ctl(daemon, "wait", "x", "--json"))
        await service.listening(1)
        await service.transfer(job)
        early, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not early
        await service.happen(job, NoticeKind.ENDED, JobState.ACKNOWLEDGED)
    assert waiting.result().json["state"] == "acknowledged"


# ── looking ────────────────────────────────────────────────────────────────────────────────


async def test_lists_are_tables_for_people_and_json_for_programs(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """Nothing is cut where a program may read it."""
    assert (await ctl(daemon, "list")) == Done(0, "", "no jobs\n")
    job = await manager.create_job("n" * 200)
    await job.add_file(URL, "/tmp/n")
    await manager.create_job("other")
    service.put(JobId(job.id), bytes_total=1000, bytes_transferred=450, state=JobState.QUEUED)
    lines = (await ctl(daemon, "list")).stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "DONE", "SIZE", "PRIORITY", "NAME"]
    assert lines[1].split() == [job.id[:8], "queued", "45", "%", "1.0", "kB", "normal", "n" * 200]
    assert lines[2].split()[1:3] == ["suspended", "-"]
    listed = (await ctl(daemon, "list", "--json", "--state", "queued")).json["jobs"]
    assert [each["id"] for each in listed] == [job.id]
    assert (await ctl(daemon, "list", "--ids")).stdout.split()[0] == job.id
    assert (await ctl(daemon, "list", "--state", "nonsense")).status == 2


async def test_a_table_fits_the_terminal(
    daemon: ScriptedDaemon, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names give way, ids and states do not."""
    monkeypatch.setenv("COLUMNS", "60")
    job = await manager.create_job("a-name-with-many-characters-in-it-that-goes-on.iso")
    lines = (await ctl(daemon, "list", terminal=True)).stdout.splitlines()
    assert job.id[:8] in lines[1]
    assert "suspended" in lines[1]
    assert "…" in lines[1]


@pytest.mark.parametrize("terminal", [True, False])
async def test_nothing_that_is_shown_can_steer_a_terminal(
    terminal: bool, daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """Names and messages come from elsewhere, and may be meant for the eyes of an admin."""
    job = await manager.create_job("hostile")
    made = service.jobs[JobId(job.id)]
    settings = replace(made.settings, name="\x1b]0;owned\x07", description="\x1b[2J")
    failure = Failure(code="http_503", message="\x1b[31mred\nline")
    service.put(JobId(job.id), settings=settings, error=failure)
    for words in (["list"], ["show", job.id], ["why", job.id], ["cancel", job.id]):
        done = await ctl(daemon, *words, terminal=terminal)
        assert done.status == 0
        said = done.stdout + done.stderr
        assert "\x07" not in said
        assert not re.search(r"\x1b(?!\[[0-9;]*m)", said)  # colours are our own
        assert "[31mred\n" not in said


async def test_show_files_and_why_tell_everything(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """A stuck job says why, and what would unstick it."""
    job = await manager.create_job("stuck")
    await job.add_file(URL, "/tmp/stuck.iso")
    failure = Failure(code="http_503", message="the server answered 503", http_status=503)
    service.put(JobId(job.id), error=failure)
    shown = (await ctl(daemon, "show", "stuck")).stdout
    assert "http_503: the server answered 503" in shown
    assert "/tmp/stuck.iso" in (await ctl(daemon, "files", "stuck")).stdout
    files = (await ctl(daemon, "files", "stuck", "--json")).json["files"]
    assert files[0]["remote"] == URL
    assert "suspended since" in (await ctl(daemon, "why", "stuck")).stdout
    why = (await ctl(daemon, "why", "stuck", "--json")).json["blockers"]
    assert why[0]["remedy"] == "Resume it."
    await job.resume()
    assert "nothing blocks stuck" in (await ctl(daemon, "why", "stuck")).stdout


async def test_events_are_lines(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """One JSON document a line, acknowledged when it is out, if asked for."""
    job = await manager.create_job("x")
    stdout = io.StringIO()
    options = parse(["events", "--socket", str(daemon.path), "--json", "--ack", "x"])
    output = Output(json=True, stdout=stdout, stderr=io.StringIO())
    listening = asyncio.ensure_future(perform(options, output))
    await service.listening(1)
    await service.transfer(job)
    await service.acknowledgements(1)
    listening.cancel()
    await asyncio.wait([listening])
    (line,) = stdout.getvalue().splitlines()
    assert (json.loads(line)["kind"], json.loads(line)["number"]) == ("transferred", 1)


async def test_an_event_steers_no_terminal(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """Root watches everybody's jobs, and everybody names his own."""
    job = await manager.create_job("x \u202ey\u2028z")
    stdout = io.StringIO()
    options = parse(["events", "--socket", str(daemon.path), "--ack", job.id])
    output = Output(json=False, stdout=stdout, stderr=io.StringIO())
    listening = asyncio.ensure_future(perform(options, output))
    await service.listening(1)
    await service.transfer(job)
    await service.acknowledgements(1)
    listening.cancel()
    await asyncio.wait([listening])
    assert stdout.getvalue().endswith("x ?y?z\n")


async def test_version_tells_both_ends(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """And works without a daemon, which it does not start."""
    done = await ctl(daemon, "version", "--json")
    assert done.json["transferctl"] == __version__
    assert done.json["transferd"]["api"] == "v1"
    await daemon.stop()
    done = await ctl(daemon, "version")
    assert done.status == 0
    assert "cannot reach a daemon" in done.stdout
    done = await ctl(daemon, "version", "--json")
    assert done.json["transferd"] is None
    assert done.json["socket"] == str(daemon.path)


async def test_version_does_not_scold_who_has_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever needs one starts it."""
    monkeypatch.delenv("TRANSFERD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    options = parse(["version"])
    assert await perform(options, Output(json=False, stdout=sys.stdout, stderr=sys.stderr)) == 0
    assert "no daemon runs; the next command starts one" in capsys.readouterr().out


async def test_resume_says_what_gives_the_files_their_names(
    daemon: ScriptedDaemon, manager: Manager
) -> None:
    """Nobody may be waiting for the job any more; one that completes itself needs nobody."""
    job = await manager.create_job("my iso")
    await job.add_file(URL, "/tmp/a")
    told = "`transferctl wait 'my iso' --complete` waits for it and gives the file its name"
    assert (await ctl(daemon, "resume", "my iso")).stderr == f"resumed my iso; {told}\n"
    other = await manager.create_job("other", auto_complete=True)
    await other.add_file(URL, "/tmp/b")
    assert (await ctl(daemon, "resume", "other")).stderr == "resumed other\n"


@pytest.mark.parametrize(
    ("shell", "mark"),
    [("bash", "complete -"), ("zsh", "#compdef transferctl"), ("fish", "complete -c")],
)
async def test_completion_scripts_know_commands_and_jobs(
    shell: str, mark: str, daemon: ScriptedDaemon
) -> None:
    """Made from the grammar, so that it cannot lag behind it."""
    script = (await ctl(daemon, "completion", shell)).stdout
    assert mark in script
    assert "--password-file" in script or "password-file" in script
    assert "transferctl list --ids --no-start" in script


async def test_the_bash_script_is_accepted_by_bash(daemon: ScriptedDaemon) -> None:
    """A script with a syntax error breaks every new shell."""
    script = (await ctl(daemon, "completion", "bash")).stdout
    bash = await asyncio.create_subprocess_exec("bash", "-n", stdin=PIPE, stderr=PIPE)
    _, trouble = await bash.communicate(script.encode())
    assert (bash.returncode, trouble) == (0, b"")


# ── as a process ───────────────────────────────────────────────────────────────────────────


async def start(daemon: ScriptedDaemon, *words: str, **streams: Any) -> Process:
    """Start transferctl."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "transferd.cli",
        *words,
        env=os.environ | {"TRANSFERD_SOCKET": str(daemon.path)},
        **({"stdout": PIPE, "stderr": PIPE, "stdin": asyncio.subprocess.DEVNULL} | streams),
    )


async def test_interrupting_get_leaves_the_job_to_the_daemon(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """130; the line says how to attach again."""
    process = await start(daemon, "get", URL, str(tmp_path))
    job = await begun(service)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert process.returncode == 130
    assert stdout == b""
    assert stderr.decode().splitlines() == [
        "transferctl: interrupted; the job goes on, "
        f"`transferctl wait {job.id} --complete` attaches again; only that gives the file its name"
    ]
    assert service.jobs[JobId(job.id)].state is JobState.QUEUED


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_ending_get_or_wait_is_interrupting_them(
    number: signal.Signals,
    status: int,
    daemon: ScriptedDaemon,
    service: ScriptedService,
    tmp_path: Path,
) -> None:
    """A closed terminal and `timeout` leave the job to the daemon too, and say so."""
    default = partial(signal.signal, number, signal.SIG_DFL)  # nohup may run these tests
    process = await start(daemon, "get", URL, str(tmp_path), preexec_fn=default)
    job = await begun(service)
    await service.listening(2)  # its callbacks', and the one that it waits by
    process.send_signal(number)
    _, stderr = await process.communicate()
    assert process.returncode == status
    assert f"interrupted; the job goes on, `transferctl wait {job.id}" in stderr.decode()
    await service.listening(0)
    process = await start(daemon, "wait", job.id, preexec_fn=default)
    await service.listening(1)
    process.send_signal(number)
    _, stderr = await process.communicate()
    assert process.returncode == status
    assert "only that gives the file its name" in stderr.decode()


async def test_interrupting_without_a_daemon_says_that_none_runs(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """The bar says that nobody answers; the job does not go on then."""
    controller, terminal = pty.openpty()
    process = await start(
        daemon, "get", URL, str(tmp_path), stdout=terminal, stderr=terminal, stdin=terminal
    )
    os.close(terminal)
    await begun(service)
    await daemon.stop()
    await _read_until(controller, "no daemon answers; ")
    process.send_signal(signal.SIGINT)
    rest = await _read_until(controller, None)
    assert await process.wait() == 130
    assert "no daemon runs, and the job waits in the queue" in rest
    os.close(controller)


async def test_interrupting_get_before_it_has_begun_leaves_nothing(
    daemon: ScriptedDaemon,
    service: ScriptedService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A half-made job is nobody's wish."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await release.wait()
        raise Conflict("late", "nobody waits for this any more")

    monkeypatch.setattr(service, "add_files", hang)
    process = await start(daemon, "get", URL, str(tmp_path))
    await reached.wait()
    assert len(service.jobs) == 1
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    release.set()
    assert (process.returncode, stderr) == (130, b"")
    assert service.jobs == {}


async def test_a_password_is_read_from_standard_input(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """The line's end is not part of the password."""
    words = ["get", URL, str(tmp_path), "--detach", "--user", "alice", "--password-file", "-"]
    process = await start(daemon, *words, stdin=PIPE)
    _, stderr = await process.communicate("pass wörd\n".encode())
    assert (process.returncode, stderr) == (0, b"")
    assert set(service.passwords.values()) == {"pass wörd"}


async def test_no_password_can_be_had_from_nowhere(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """Without a terminal nobody can be asked, and standard input is not taken for an answer."""
    words = ["get", URL, str(tmp_path), "--user", "alice"]
    process = await start(daemon, *words, stdin=PIPE, start_new_session=True)
    _, stderr = await process.communicate(b"not a password\n")
    assert process.returncode == 2
    assert b"--password-file" in stderr
    assert service.jobs == {}


async def test_a_reader_that_leaves_is_no_error(
    daemon: ScriptedDaemon, service: ScriptedService, manager: Manager
) -> None:
    """`transferctl events | head -1` ends without a complaint."""
    job = await manager.create_job("x")
    reading, writing = os.pipe()
    process = await start(daemon, "events", stdout=writing)
    os.close(writing)
    await service.listening(1)
    os.close(reading)
    await service.transfer(job)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["list"], 3),
        (["get", URL, "/tmp/"], 3),
        (["get", "ftp://host/x"], 2),
        (["get"], 2),
        (["nonsense"], 2),
        ([], 2),
        (["--help"], 0),
        (["wait", "x", "--timeout", "soon"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
async def test_statuses_and_words_without_a_trace(
    words: list[str], status: int, daemon: ScriptedDaemon
) -> None:
    """Whatever happens is told in a line or two."""
    await daemon.stop()
    process = await start(daemon, *words)
    _, stderr = await process.communicate()
    assert process.returncode == status
    assert b"Traceback" not in stderr
    assert len(stderr.splitlines()) <= 2


async def test_a_bug_is_told_in_a_line(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a mistake of our own shows a trace."""

    async def broken(*_: object) -> int:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr("transferd.cli.views.list_jobs", broken)
    assert await ctl(daemon, "list") == Done(1, "", "transferctl: division by?zero\n")


async def test_progress_is_drawn_on_a_terminal_only(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """A bar of one line that fits, and goes away; the result stays."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = await start(
        daemon, "get", URL, str(tmp_path), stdout=terminal, stderr=terminal, stdin=terminal
    )
    os.close(terminal)
    job = await begun(service)
    service.put(JobId(job.id), state=JobState.TRANSFERRING, bytes_total=1000, bytes_transferred=500)
    seen = await _read_until(controller, "500 B of 1.0 kB")
    assert "a.iso" in seen
    await service.transfer(job)
    rest = await _read_until(controller, "saved ")
    assert await process.wait() == 0
    assert f"saved {tmp_path}/a.iso" in rest + await _read_until(controller, None)
    os.close(controller)


async def test_an_interrupted_prompt_ends_at_once(
    daemon: ScriptedDaemon, service: ScriptedService, tmp_path: Path
) -> None:
    """Nobody has to press Enter to get away, and no job was made."""
    controller, terminal = pty.openpty()
    process = await start(
        daemon, "get", URL, str(tmp_path), "--user", "alice",
        stdout=terminal, stderr=terminal, stdin=terminal,
        preexec_fn=partial(_control, terminal), start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    assert "Password of alice for the server: " in await _read_until(controller, "server: ")
    os.write(controller, b"half a pass\x03")
    assert await process.wait() == 130
    assert "half" not in await _read_until(controller, None)
    os.close(controller)
    assert service.jobs == {}


def _control(terminal: int) -> None:
    """Make *terminal* the one that controls this session, as a login does."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


async def _read_until(descriptor: int, text: str | None) -> str:
    """Read from a terminal until *text* appears, or to its end."""
    seen = ""
    while text is None or text not in seen:
        try:
            chunk = await asyncio.to_thread(os.read, descriptor, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        seen += chunk.decode()
    return seen
