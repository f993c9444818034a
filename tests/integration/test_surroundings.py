"""What is wrong around the daemon is found, and named with what to do."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from transferd.model.upkeep import Severity
from transferd.service.surroundings import (
    Places,
    look_at_clock,
    look_at_files,
    look_at_limits,
    look_at_space,
    resident_memory,
    size_of,
)

UID = os.geteuid()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    """A sound place: directories, a queue file, a socket, a configuration."""
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir(mode=0o700)
    state.mkdir(mode=0o700)
    (tmp_path / "etc").mkdir(mode=0o755)
    configuration = tmp_path / "etc" / "transferd.toml"
    configuration.write_text("")
    configuration.chmod(0o644)
    for name in ("queue.db", "queue.db-wal"):
        (state / name).write_bytes(b"x" * 10)
        (state / name).chmod(0o600)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run / "socket"))
        (run / "socket").chmod(0o600)
        yield Places(system=False, socket=run / "socket", state=state, queue=state / "queue.db")


def found(places: Places, uid: int = UID) -> list[tuple[str, Severity]]:
    """Codes and severities."""
    configuration = places.state.parent / "etc" / "transferd.toml"
    return [(each.code, each.severity) for each in look_at_files(places, configuration, uid)]


def test_a_sound_place_gives_no_cause(places: Places) -> None:
    """Rule: no finding without a reason, or nobody reads them."""
    assert found(places) == []


@pytest.mark.parametrize(
    ("place", "mode", "code", "severity"),
    [
        ("state", 0o770, "state_exposed", Severity.ERROR),
        ("state", 0o707, "state_exposed", Severity.ERROR),
        ("state", 0o755, "state_readable", Severity.WARNING),
        ("state/queue.db", 0o640, "queue_exposed", Severity.ERROR),
        ("state/queue.db-wal", 0o604, "queue_exposed", Severity.ERROR),
        ("run/socket", 0o666, "socket_open", Severity.WARNING),
        ("run", 0o777, "socket_exposed", Severity.ERROR),
        ("etc/transferd.toml", 0o666, "configuration_exposed", Severity.ERROR),
        ("etc/transferd.toml", 0o664, "configuration_exposed", Severity.ERROR),
        ("etc", 0o775, "configuration_exposed", Severity.ERROR),
    ],
)
def test_whatever_others_can_reach_is_found(
    places: Places, place: str, mode: int, code: str, severity: Severity
) -> None:
    """Rule: who can change these can become whoever the daemon works for."""
    (places.state.parent / place).chmod(mode)
    assert found(places) == [(code, severity)]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("state", "state_exposed"),
        ("state/queue.db", "queue_exposed"),
        ("etc/transferd.toml", "configuration_exposed"),
    ],
)
def test_what_belongs_to_somebody_else_is_found(places: Places, place: str, code: str) -> None:
    """Rule: its owner can change anything, whatever its mode is."""
    daemon = UID
    if UID == 0:
        os.chown(places.state.parent / place, 54321, -1)
    else:  # only root can give files away; to another daemon these are somebody else's
        daemon += 1
    assert (code, Severity.ERROR) in found(places, daemon)


def test_a_socket_that_is_gone_is_found(places: Places) -> None:
    """Rule: a daemon that nobody can reach any more looks healthy from inside."""
    places.socket.unlink()
    assert found(places) == [("socket_missing", Severity.ERROR)]


def test_a_system_service_is_open_to_everybody(places: Places) -> None:
    """Rule: who a caller is says the kernel, not the mode."""
    places.socket.chmod(0o666)
    public = Places(system=True, socket=places.socket, state=places.state, queue=places.queue)
    assert found(public) == []


@pytest.mark.parametrize(
    ("free", "severity"), [(1, Severity.ERROR), (100, Severity.WARNING), (1000, None)]
)
def test_a_volume_that_fills_up_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, severity: Severity | None
) -> None:
    """Rule: what is told before the disk is full can still be mended."""
    volume = os.statvfs_result((4096, 1024**2, 10**6, free, free, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", {tmp_path: volume}.__getitem__)
    wanted = [] if severity is None else [severity]
    assert [each.severity for each in look_at_space(tmp_path)] == wanted


@pytest.mark.parametrize(
    ("now", "steady", "code"),
    [
        (NOW, NOW.timestamp() + 1, None),
        (NOW + timedelta(days=1), NOW.timestamp(), "clock_stepped"),
        (NOW - timedelta(days=1), NOW.timestamp(), "clock_stepped"),
        (datetime(1970, 1, 1, tzinfo=UTC), 0.0, "clock_wrong"),
    ],
)
def test_a_clock_that_cannot_be_right_is_found(
    now: datetime, steady: float, code: str | None
) -> None:
    """Rule: certificates and Kerberos depend on it."""
    assert [each.code for each in look_at_clock(now, steady)] == ([] if code is None else [code])


def test_limits_that_are_too_low_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: each caller takes a descriptor, and the queue is one file."""
    limits = {resource.RLIMIT_NOFILE: (256, 256), resource.RLIMIT_FSIZE: (2**20, 2**20)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert [each.code for each in look_at_limits()] == ["descriptors_few", "file_size_limited"]
    limits[resource.RLIMIT_NOFILE] = (65536, 65536)
    limits[resource.RLIMIT_FSIZE] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert look_at_limits() == ()


def test_every_finding_says_what_to_do(places: Places) -> None:
    """Rule: a sentence without a full stop, and a clause that helps."""
    places.state.chmod(0o777)
    places.socket.unlink()
    for finding in look_at_files(places, None, UID):
        assert finding.text
        assert finding.remedy
        assert not finding.text.endswith(".")


def test_sizes_and_memory_are_the_kernels(places: Places) -> None:
    """Rule: a file that is not there has no bytes, a process that is not there no memory."""
    assert size_of(places.queue_files) == 20
    assert (resident_memory(os.getpid()) or 0) > 1_000_000
    assert resident_memory(2**22) is None
