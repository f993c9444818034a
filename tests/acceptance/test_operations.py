"""A service that is looked after: reload, status, check, figures, a new key; by real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import transferd
from tests.support.daemon import CONFIG, DaemonProcess
from tests.support.origin import Document, Fault, Origin, Version
from transferd import JobState, Manager
from transferd.client.job import Job

BODY = os.urandom(100_000)
ONE_SLOT = CONFIG.replace("[queue]", "[queue]\nbackground_slots = 1")


def figures(daemon: DaemonProcess) -> dict[str, Metric]:
    """What Prometheus would read."""
    command = ["curl", "-sS", "--unix-socket", str(daemon.socket), "http://localhost/v1/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return {family.name: family for family in text_string_to_metric_families(done.stdout)}


def total(family: Metric, suffix: str = "_total") -> float:
    """The sum over all labels."""
    return sum(each.value for each in family.samples if each.name == family.name + suffix)


async def queued(manager: Manager, origin: Origin, name: str, directory: Path) -> Job:
    """Make a background job of one file, and start it."""
    job = await manager.create_job(name, priority="normal")
    await job.add_file(origin.url(f"/{name}"), str(directory / name))
    await job.resume()
    return job


async def reaches(manager: Manager, job: Job, *states: JobState) -> None:
    """Wait until a job is in one of some states."""
    wanted = {state.label for state in states}
    async with asyncio.timeout(20):
        async for _ in manager.events(job=job.id, kinds=["modification"], after=0):
            if (await manager.job(job.id)).answer.state in wanted:
                return


# ── check ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("[queue]\nbackground_slots = 2\n", 0, "{} is fine\n"),
        ("[pacing]\nlow_delay_seconds = 1.0\n", 0, "transferd: {}: [pacing] "),
        ("[log]\nlevel = 'loud'\n", 2, "transferd: cannot use configuration {}: `log.level` must"),
    ],
)
def test_a_configuration_is_checked_without_being_used(
    tmp_path: Path, text: str, status: int, said: str
) -> None:
    """Rule: a right file is fine, a doubtful one can be used all the same, a wrong one cannot."""
    path = tmp_path / "transferd.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "transferd", "--config", str(path), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert (done.stdout or done.stderr).startswith(said.format(path))
    assert list(tmp_path.iterdir()) == [path]


# ── reload ─────────────────────────────────────────────────────────────────────────────────


async def test_more_slots_act_at_once_and_what_runs_goes_on(tmp_path: Path) -> None:
    """Rule: a reload changes what is decided next, and ends nothing."""
    origin = Origin()
    for name in ("first", "second"):
        document = Document(version=Version(body=BODY))
        document.faults.append(Fault(stall=50_000))
        origin.pages[f"/{name}"] = document
    with DaemonProcess(tmp_path, ONE_SLOT) as daemon:
        await asyncio.to_thread(daemon.start)
        async with origin.running(), transferd.connect(daemon.socket) as manager:
            first = await queued(manager, origin, "first", tmp_path)
            await reaches(manager, first, JobState.TRANSFERRING)
            second = await queued(manager, origin, "second", tmp_path)
            assert (await manager.job(second.id)).answer.state == "queued"
            before = await manager.admin_status()
            said = await asyncio.to_thread(daemon.reload, CONFIG)
            await reaches(manager, second, JobState.TRANSFERRING)
            after = await manager.admin_status()
            assert (await manager.job(first.id)).answer.state == "transferring"
            assert len(origin.requests("/first")) == 1
    assert said[0] == "RELOADING=1"
    assert said[1].startswith("MONOTONIC_USEC=")
    assert after.configured > before.configured == before.started
    assert 'config.reloaded source="' not in daemon.logged()
    assert f"config.reloaded source={daemon.config} changed=queue.background_slots" in (
        daemon.logged()
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[queue]\nbackground_slots = 'many'", "background_slots"),
        ("[queue\n", "at line 1"),
        ("[api]\nadmin_group = 'no-such-group'", "no such group"),
    ],
)
def test_a_wrong_file_changes_nothing_and_says_why(
    daemon: DaemonProcess, text: str, reason: str
) -> None:
    """Rule: the service goes on as it was, `systemctl status` and the log tell what is wrong."""
    before = daemon.json("admin", "status")
    said = daemon.reload(text)
    (status,) = (line for line in said if line.startswith("STATUS="))
    assert "kept as it was" in status
    assert reason in status
    assert f"error config.refused source={daemon.config}" in daemon.logged()
    after = daemon.json("admin", "status")
    assert after["configured"] == before["configured"]
    assert after["pid"] == before["pid"]
    assert "kept as it was" not in " ".join(daemon.reload(CONFIG))


def test_a_file_that_is_gone_changes_nothing(daemon: DaemonProcess) -> None:
    """Rule: a named file that cannot be read is an error, and no default."""
    daemon.config.unlink()
    daemon.config.mkdir()
    os.kill(daemon.pid, signal.SIGHUP)
    assert "kept as it was" in " ".join(daemon.hears())


def test_log_limits_and_timers_follow_the_file(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Rule: there is nothing in the file that asks for a restart."""
    daemon.reload(
        CONFIG.replace("min_retry_delay_seconds = 1", "min_retry_delay_seconds = 7")
        + "[log]\nformat = 'json'\n[limits]\njobs_per_user = 1\nbody_bytes = 2000\n"
    )
    job = daemon.json("create", "one")
    assert job["min_retry_delay"] == 7
    large = daemon.ctl("create", "two", "--description", "x" * 3000, "--json")
    assert json.loads(large.stdout)["error"]["code"] == "body_too_large"
    last = daemon.logged().splitlines()[-1]
    assert json.loads(last)["event"] == "job.created"


# ── status, check, figures ─────────────────────────────────────────────────────────────────


async def test_figures_and_status_tell_of_a_real_job(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Rule: bytes, notices, workers and callers are counted where they are met."""
    origin = Origin()
    origin.pages["/a"] = Document(version=Version(body=BODY))
    async with origin.running():
        done = await asyncio.to_thread(
            daemon.ctl, "get", origin.url("/a"), str(tmp_path / "a"), "--timeout", "30s"
        )
        assert done.returncode == 0, done.stderr
        missing = await asyncio.to_thread(
            daemon.ctl, "get", origin.url("/b?sig=hunter2"), str(tmp_path / "b"), "--keep"
        )
        assert missing.returncode == 1
    told = figures(daemon)
    assert total(told["transferd_transferred_bytes"]) == len(BODY)
    assert total(told["transferd_job_errors"]) == 1
    assert total(told["transferd_notice_delivery_seconds"], "_count") >= 1
    assert total(told["transferd_worker_starts"]) == 1
    assert total(told["transferd_store_seconds"], "_count") > 10
    status = daemon.json("admin", "status")
    assert status["errors"] == {"http_404": 1}
    (user,) = status["users"]
    assert user["uid"] == os.geteuid()
    assert user["worker_pid"] in daemon.workers()
    assert user["worker_memory"] > 10_000_000
    assert status["memory"] > 10_000_000
    table = daemon.ctl("admin", "status").stdout
    assert f"process {daemon.pid}" in table
    assert "1 http_404" in table
    assert str(user["worker_pid"]) in table
    logged = daemon.logged()
    assert f"url={origin.url('/a')} status=done bytes={len(BODY)}" in logged
    assert "http_status=200" in logged
    assert "hunter2" not in logged


def expose_key(daemon: DaemonProcess) -> None:
    """Let others read the key."""
    (daemon.state / "vault.key").chmod(0o644)


def expose_state(daemon: DaemonProcess) -> None:
    """Let others put files beside the queue."""
    daemon.state.chmod(0o777)


def expose_configuration(daemon: DaemonProcess) -> None:
    """Let others choose how the service behaves."""
    daemon.config.chmod(0o666)


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (expose_key, "key_exposed"),
        (expose_state, "state_exposed"),
        (expose_configuration, "configuration_exposed"),
    ],
)
def test_what_others_can_reach_is_an_error(
    daemon: DaemonProcess, plant: Callable[[DaemonProcess], None], code: str
) -> None:
    """Rule: status 1, with what to do; without it all is well."""
    sound = daemon.ctl("admin", "check")
    assert (sound.returncode, sound.stdout.rpartition(": ")[2]) == (0, "all is well\n")
    plant(daemon)
    found = daemon.ctl("admin", "check")
    assert found.returncode == 1
    assert f"error: {code}: " in found.stdout
    assert "to mend it: " in found.stdout


def test_an_orphaned_temporary_is_a_warning(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Rule: partial data that no job of the queue has is named; the status stays 0."""
    daemon.json("create", "a", "--file", "http://127.0.0.1:1/a", str(tmp_path / "a"))
    orphan = tmp_path / f".b.transferd-{uuid4()}"
    orphan.write_bytes(b"half of it")
    (tmp_path / ".c.transferd-nobody").write_bytes(b"not ours")
    done = daemon.ctl("admin", "check", "--json")
    assert done.returncode == 0
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["code"] == "temporary_orphaned"
    assert str(orphan) in finding["text"]
    assert orphan.exists()


async def test_a_damaged_page_is_found_beside_the_running_service(tmp_path: Path) -> None:
    """Rule: the queue file is read through, and the rest is still looked at."""
    with DaemonProcess(tmp_path) as daemon:
        await asyncio.to_thread(daemon.start)
        async with transferd.connect(daemon.socket) as manager:
            body = transferd.JobBody(name="a", description="x" * 900)
            await manager.create_jobs([body] * 100)
        # What is in the log is not in the file yet.
        await asyncio.to_thread(daemon.stop)
        await asyncio.to_thread(daemon.start)
        queue = daemon.state / "queue.db"
        with queue.open("r+b") as file:
            file.seek(queue.stat().st_size - 3 * 4096)
            file.write(b"\xff" * 2048)
        done = await asyncio.to_thread(daemon.ctl, "admin", "check", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert "queue_damaged" in {finding["code"] for finding in answer["findings"]}
    assert answer["checked"][-1] == "temporaries"


def test_without_a_daemon_a_check_tells_what_can_be_seen(tmp_path: Path) -> None:
    """Rule: status 3, as for every command; the state directory is looked at all the same."""
    daemon = DaemonProcess(tmp_path)
    home = tmp_path / "home"
    state = home / ".local" / "state" / "transferd"
    state.mkdir(parents=True)
    state.chmod(0o777)
    (state / "vault.key").write_text("00")
    (state / "vault.key").chmod(0o644)
    daemon.variables = {"HOME": str(home), "XDG_STATE_HOME": ""}
    done = daemon.ctl("admin", "check", "--json")
    assert done.returncode == 3
    codes = [finding["code"] for finding in json.loads(done.stdout)["findings"]]
    assert codes[0] == "not_running"
    assert {"state_exposed", "key_exposed"} <= set(codes)


def test_a_new_key_seals_everything_anew(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Rule: jobs keep their credentials, the old key is gone."""
    before = (daemon.state / "vault.key").read_text()
    job = daemon.json("create", "a")
    set_credentials = ["credentials", "set", job["id"], "--user", "alice", "--password-file", "-"]
    assert daemon.ctl(*set_credentials, "--auth", "basic", stdin="hunter2").returncode == 0
    rotation = daemon.json("admin", "rotate-key")
    assert rotation["resealed"] >= 1
    assert rotation["unreadable"] == 0
    assert f"key.rotated key={rotation['key']}" in daemon.logged()
    keys = [path.read_text() for path in daemon.state.glob("*.key")]
    assert before not in keys
    assert daemon.ctl("admin", "check").returncode == 0
