"""A daemon that is started because somebody needs one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from transferd.client import autostart, sockets
from transferd.client.autostart import LOG_NAME
from transferd.client.connection import Connection
from transferd.client.errors import JobGone
from transferd.client.manager import Manager, connect
from transferd.client.sockets import locate
from transferd.client.stream import Interest, Pulse, hear
from transferd.model.errors import NoDaemon, NotFound
from transferd.model.notices import NoticeKind

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user who has nothing yet, on a machine without a system service."""
    monkeypatch.setattr(sockets, "system_socket", lambda: tmp_path / "absent")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def log(environ: dict[str, str]) -> Path:
    """What a daemon of that user says."""
    return Path(environ["XDG_STATE_HOME"]) / "transferd" / LOG_NAME


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a daemon that is started leaves a note of its standard descriptors.

    They are noted before it is a daemon: one that runs shows them to nobody but root.
    """
    note, program = tmp_path / "note", tmp_path / "python"
    names = " ".join(f"$(readlink /proc/$$/fd/{number})" for number in range(3))
    lines = ("#!/bin/sh", f'names="{names}"', f"echo $names >{note}", f'exec {sys.executable} "$@"')
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return note


@pytest.fixture(autouse=True)
def ended(environ: dict[str, str]) -> Iterator[None]:
    """No daemon outlives its test."""
    yield
    path = Path(environ["XDG_RUNTIME_DIR"]) / "transferd.sock"
    if path.exists():
        pid = _peer(path)
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def found(environ: dict[str, str], *, start: bool = True) -> Path:
    """Return the socket that a client of that user finds."""
    return asyncio.run(locate(None, environ, start=start))


async def name_of(path: Path) -> str:
    """Return what answers there."""
    async with Manager(Connection(path)) as manager:
        return (await manager.version()).name


def _peer(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])


def _answering(path: Path) -> int | None:
    """Return who answers, if anybody does."""
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        return _peer(path)
    return None


def test_a_fresh_machine_needs_nothing(
    environ: dict[str, str],
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noted: Path,
) -> None:
    """No daemon and no configuration, and it works; the daemon holds on to no terminal."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "transferd.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(here)
    path = found(environ)
    assert asyncio.run(name_of(path)) == "transferd"
    pid = _peer(path)
    assert os.getsid(pid) == pid
    assert noted.read_text().split() == ["/dev/null", "/dev/null", str(log)]
    assert log.stat().st_mode & 0o077 == 0
    assert log.parent.stat().st_mode & 0o077 == 0


def test_a_daemon_keeps_nothing_of_its_caller_alive(environ: dict[str, str]) -> None:
    """`flock 9 transferctl get …` and a pipe in a script end with the caller, not the daemon."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        found(environ)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        os.set_blocking(reading, False)
        assert pipe.read() == b""  # None while anybody still holds the other end


def test_two_who_come_at_once_start_one(environ: dict[str, str], log: Path) -> None:
    """And find the same."""

    async def together() -> set[Path]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(locate(None, environ, start=True)) for _ in range(3)]
        return {task.result() for task in tasks}

    (path,) = asyncio.run(together())
    assert asyncio.run(name_of(path)) == "transferd"  # by then it has logged that it is ready
    assert log.read_text().count("daemon.ready") == 1
    assert "another" not in log.read_text()


def test_nobody_is_started_unless_asked(environ: dict[str, str], log: Path) -> None:
    """A program may want to know, and no more."""
    with pytest.raises(NoDaemon, match="start one with `transferd`"):
        found(environ, start=False)
    assert not log.parent.exists()


def test_a_daemon_that_cannot_start_says_why(environ: dict[str, str], log: Path) -> None:
    """In its own words, and not only in its log."""
    log.parent.mkdir(parents=True)
    (log.parent / "queue.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(NoDaemon, match=r"cannot start a daemon: transferd: cannot .*queue\.db"):
        found(environ)


def stub(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another program stand for the interpreter that runs the daemon."""
    program = tmp_path / "stub"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(
    environ: dict[str, str], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is named."""
    stub(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60", monkeypatch)
    monkeypatch.setattr(autostart, "START_SECONDS", 0.3)
    with pytest.raises(NoDaemon, match=f"see {log}"):
        found(environ)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_daemon_that_dies_at_once_is_tried_a_few_times(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the last line of its log is the reason."""
    stub(tmp_path, f"echo x >> {tmp_path}/runs; echo 'no luck' >&2; echo >&2; exit 1", monkeypatch)
    with pytest.raises(NoDaemon, match="cannot start a daemon: no luck"):
        found(environ)
    assert (tmp_path / "runs").read_text().count("x") == autostart.ATTEMPTS


def test_a_daemon_that_is_silent_in_death_has_a_status(
    environ: dict[str, str], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something must be told, and not what another one said before."""
    log.parent.mkdir(parents=True)
    log.write_text("the words of another daemon\n")
    stub(tmp_path, "exit 7", monkeypatch)
    with pytest.raises(NoDaemon, match="status 7"):
        found(environ)


def test_a_daemon_that_is_just_leaving_is_waited_for(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still holds the state directory (status 3); the next one gets it."""
    script = (
        f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) -gt 2 ] || exit 3; "
        f'exec {sys.executable} "$@"'
    )
    stub(tmp_path, script, monkeypatch)
    path = found(environ)
    assert path.exists()
    assert (tmp_path / "runs").read_text().count("x") == 3


def test_a_daemon_that_listens_elsewhere_is_found(
    environ: dict[str, str], tmp_path: Path, log: Path
) -> None:
    """Its state directory says where; so that XDG_RUNTIME_DIR may come and go."""
    path = found(environ)
    record = log.with_name("socket")
    assert record.read_text().splitlines() == [str(path), str(_peer(path))]
    assert record.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    elsewhere = {**environ, "XDG_RUNTIME_DIR": str(other)}
    assert found(elsewhere, start=False) == path
    assert found(elsewhere) == path
    record.chmod(0o620)  # others could have written it
    with pytest.raises(NoDaemon):
        found(elsewhere, start=False)


def test_a_clean_stop_leaves_no_word_of_a_socket(environ: dict[str, str], log: Path) -> None:
    """Nobody listens there any more."""
    pid = _peer(found(environ))
    assert log.with_name("socket").exists()
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert not log.with_name("socket").exists()


def test_a_daemon_whose_socket_is_gone_is_named_at_once(environ: dict[str, str], log: Path) -> None:
    """Which process, which socket, and what to do; no daemon is started in vain."""
    path = found(environ)
    pid = _peer(path)
    hidden = path.with_name("hidden")
    path.rename(hidden)
    try:
        with pytest.raises(NoDaemon) as none:
            found(environ)
    finally:
        hidden.rename(path)
    assert f"(pid {pid}) holds {log.parent}, whose socket was {path}" in str(none.value)
    assert f"`kill {pid}`" in str(none.value)
    assert "nothing is lost" in str(none.value)
    assert "another daemon" not in log.read_text()


def test_what_a_killed_daemon_left_is_no_obstacle(environ: dict[str, str], log: Path) -> None:
    """Neither its record nor its lock."""
    path = found(environ)
    pid = _peer(path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    path.unlink()
    assert log.with_name("socket").exists()
    assert found(environ) == path
    assert _peer(path) != pid


def test_a_log_does_not_grow_for_ever(
    environ: dict[str, str], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else turns over the log of a daemon that comes and goes."""
    log.parent.mkdir(parents=True)
    log.write_bytes(b"old\n" * 500_000)
    found(environ)
    assert log.stat().st_size < 100_000
    assert log.with_name("transferd.log.1").stat().st_size == 2_000_000


def test_without_a_place_for_its_state_no_daemon_is_started(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """The reason is the system's."""
    (tmp_path / "file").touch()
    environ["XDG_STATE_HOME"] = str(tmp_path / "file")
    with pytest.raises(NoDaemon, match=r"cannot start a daemon: .*[Nn]ot a directory"):
        found(environ)
    for name in ("HOME", "XDG_STATE_HOME"):
        del environ[name]
    with pytest.raises(NoDaemon, match="neither XDG_STATE_HOME nor HOME"):
        found(environ)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_daemon_that_dies_while_somebody_waits_is_started_again(
    environ: dict[str, str], how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may start a daemon may do it again; nobody else would, and the job would wait."""
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, environ[name])
    monkeypatch.delenv("TRANSFERD_SOCKET", raising=False)
    async with connect(start=True) as manager:
        job = await manager.create_job("x")
        waiting = asyncio.ensure_future(job.wait(until="ended"))
        async with aclosing(manager.events(kinds=["ended"])) as events:
            hearing = asyncio.ensure_future(anext(events))
            pid = _peer(manager.socket)
            os.kill(pid, how)
            await asyncio.to_thread(os.waitpid, pid, 0)
            assert (await manager.version()).name == "transferd"
            assert _peer(manager.socket) != pid
            await job.cancel()
            # It may have been killed before the job was seen once.
            with pytest.raises((JobGone, NotFound)):
                await waiting
            hearing.cancel()
            await asyncio.wait([hearing])


async def test_a_stream_starts_a_daemon_again_by_itself(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`transferctl wait` asks nothing while it waits."""
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, environ[name])
    monkeypatch.delenv("TRANSFERD_SOCKET", raising=False)
    async with connect(start=True) as manager:
        connection = Connection(manager.socket, manager._connection._revive)
        async with (
            connection,
            aclosing(hear(connection, Interest(kinds=NoticeKind.ENDED), patience=None)) as heard,
        ):
            assert isinstance(await anext(heard), Pulse)
            pid = _peer(manager.socket)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
            async with asyncio.timeout(30):
                async for _ in heard:  # the first may still be the dead daemon's
                    if _answering(manager.socket) not in (None, pid):
                        break
