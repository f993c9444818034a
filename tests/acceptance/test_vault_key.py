"""The key of the vault, missing and put back, handed over and taken away, before a real daemon."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import transferd
from tests.support.acceptors import Basic, guarded
from tests.support.daemon import DaemonProcess
from tests.support.origin import Document, Origin, Version
from transferd import JobFailed, JobState, Scheme, Target

BODY = b"what only they may have who prove it\n" * 1000
USER, PASSWORD = "alice", "correct horse"


async def _make(daemon: DaemonProcess, origin: Origin, local: Path) -> str:
    """Make a job that needs its password, suspended."""
    document = Document(version=Version(body=BODY))
    origin.pages["/f"] = guarded(document, Basic(USER, PASSWORD))
    async with transferd.connect(daemon.socket) as manager:
        job = await manager.create_job("sealed", proxy="direct")
        await job.set_credentials(Target.SERVER, Scheme.BASIC, USER, PASSWORD)
        await job.add_file(origin.url("/f"), str(local))
        return job.id


async def _fetch(daemon: DaemonProcess, job_id: str, local: Path) -> None:
    async with transferd.connect(daemon.socket) as manager:
        job = await manager.job(job_id)
        await job.resume()
        await job.wait(30)
        await job.complete()
    assert _content(local) == BODY


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _lose(key: Path) -> None:
    key.unlink()


def _replace(key: Path) -> None:
    key.write_text("ab" * 32)


def _spoil(key: Path) -> None:
    key.write_bytes(b"\0" * 10)


@pytest.mark.parametrize("harm", [_lose, _replace, _spoil])
async def test_a_job_without_its_key_waits_for_it(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The daemon starts, the job says what is missing, and goes on once that is back."""
    async with Origin().running() as origin:
        with DaemonProcess(tmp_path) as daemon:
            local = tmp_path / "f"
            job_id = await _make(daemon.start(), origin, local)
            daemon.stop()
            key = daemon.state / "vault.key"
            shutil.copy2(key, tmp_path / "kept")
            harm(key)
            daemon.start()
            assert "key.flawed" in daemon.logged()
            async with transferd.connect(daemon.socket) as manager:
                job = await manager.job(job_id)
                await job.resume()
                with pytest.raises(JobFailed) as failed:
                    await job.wait(30)
                error = failed.value.error
                assert error is not None
                assert error.code == "secrets_unreadable"
                assert "put the key file back" in error.message
                assert (await job.refresh()).state == JobState.ERROR.label
            assert origin.seen == []
            shutil.copy2(tmp_path / "kept", key)
            await _fetch(daemon, job_id, local)


async def test_the_service_manager_hands_the_key_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadCredential=: the key is not in the state directory, and not with the workers."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "vault.key").write_bytes(b"k" * 32)
    (credentials / "vault.key").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    async with Origin().running() as origin:
        with DaemonProcess(tmp_path) as daemon:
            local = tmp_path / "f"
            job_id = await _make(daemon.start(), origin, local)
            (worker,) = daemon.workers()
            assert b"CREDENTIALS_DIRECTORY" not in _content(Path(f"/proc/{worker}/environ"))
            assert not list(daemon.state.glob("*.key"))
            daemon.stop()
            await _fetch(daemon.start(), job_id, local)
