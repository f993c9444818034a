"""A worker gets its owner's identity and one end of the link, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.servers import public_directory, require_root
from transferd.accounts import Account, UnknownAccount
from transferd.launcher import own_launcher, owner_launcher
from transferd.model.errors import OwnerRefused
from transferd.service.workers import Launch

_UID = 1_900_000_000
SOMEBODY = Account(  # noqa: S604
    uid=_UID,
    gid=_UID + 1,
    groups=(_UID + 1, _UID + 2),
    name="somebody",
    home=Path("/home/somebody"),
    shell="/bin/sh",
)


def shell(script: str) -> tuple[str, ...]:
    """A worker that is a shell script; $0 and on are what it is told."""
    return ("/bin/sh", "-c", script)


def known(uid: int) -> Account:
    """A user database with two users."""
    if uid not in (SOMEBODY.uid, 0):
        raise UnknownAccount(f"there is no user with uid {uid} on this machine")
    return replace(SOMEBODY, uid=uid, gid=0, groups=(0,)) if uid == 0 else SOMEBODY


def for_all(
    command: tuple[str, ...],
    find_account: Callable[[int], Account] = known,
    *,
    allow_root: bool = True,
    patience: float = 10.0,
) -> Launch:
    """A launcher of a system service."""
    extra = {"https_proxy": "http://p:1"}
    return owner_launcher(command, find_account, extra, allow_root=allow_root, patience=patience)


async def heard(launch: Launch, owner: int) -> str:
    """Start a worker and return all that it says over its link."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    with ours:
        with theirs:
            process = await launch(owner, theirs)
        said = b""
        async with asyncio.timeout(10):
            while chunk := await loop.sock_recv(ours, 65536):
                said += chunk
            await process.wait()
    return said.decode()


async def test_the_worker_is_its_owner_with_all_groups() -> None:
    """Real, effective, saved and file system ids; the daemon's groups are gone."""
    require_root("becoming another user")
    said = await heard(
        for_all(shell("exec grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status >&0")), _UID
    )
    lines = dict(line.split(":\t") for line in said.splitlines())
    assert lines["Uid"].split() == [str(_UID)] * 4
    assert lines["Gid"].split() == [str(_UID + 1)] * 4
    assert lines["Groups"].split() == [str(_UID + 1), str(_UID + 2)]
    assert set(lines["CapPrm"] + lines["CapEff"] + lines["CapInh"] + lines["CapAmb"]) == {"0"}


async def test_the_worker_has_a_logins_environment_and_starts_at_the_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of the daemon's environment, and what the configuration says."""
    require_root("becoming another user")
    monkeypatch.setenv("TRANSFERD_TEST_CANARY", "sings")
    said = await heard(for_all(shell("{ pwd; tr '\\0' '\\n' </proc/$$/environ; } >&0")), _UID)
    cwd, *variables = said.splitlines()
    assert cwd == "/"
    assert sorted(variables) == [
        "HOME=/home/somebody",
        "LANG=C.UTF-8",
        "LOGNAME=somebody",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "SHELL=/bin/sh",
        "USER=somebody",
        "https_proxy=http://p:1",
    ]


async def test_the_link_is_all_that_is_inherited(tmp_path: Path) -> None:
    """Descriptors that others left open to the daemon are closed; output goes nowhere."""
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        worker = shell("(readlink /proc/$$/fd/*) >&0; true")
        said = await heard(own_launcher(worker, {"PATH": os.environ["PATH"]}), os.getuid())
    stdin, stdout, stderr = said.splitlines()
    assert stdin.startswith("socket:")
    assert stdout == os.devnull
    assert stderr == stdin  # until it has said Hello


async def test_a_users_worker_has_the_environment_of_its_daemon() -> None:
    """But for what the service manager said to the daemon alone (systemd.exec(5))."""
    environ = {"LANG": "C.UTF-8", "INVOCATION_ID": "4b0c", "JOURNAL_STREAM": "8:4"}
    worker = shell("{ tr '\\0' '\\n' </proc/$$/environ; } >&0")
    said = await heard(own_launcher(worker, environ | {"PATH": "/usr/bin:/bin"}), os.getuid())
    assert sorted(said.splitlines()) == ["LANG=C.UTF-8", "PATH=/usr/bin:/bin"]


async def test_what_keeps_a_worker_from_starting_is_heard_over_the_link() -> None:
    """Its interpreter complains on standard error."""
    said = await heard(own_launcher(shell("echo no module >&2; exit 1"), {}), os.getuid())
    assert said == "no module\n"


async def test_the_worker_is_told_whose_it_is() -> None:
    """It makes sure of it before it reads a byte."""
    require_root("becoming another user")
    assert await heard(for_all(shell('echo "$0 $@" >&0')), _UID) == f"--fd 0 --owner {_UID}\n"
    assert await heard(own_launcher(shell('echo "$0 $@" >&0'), {}), os.getuid()) == "--fd 0\n"


async def test_an_unknown_owner_is_refused() -> None:
    """A deleted user's jobs run as nobody else."""
    with pytest.raises(OwnerRefused, match=f"no user with uid {_UID + 9}"):
        await heard(for_all(shell("true")), _UID + 9)


async def test_root_is_refused_where_the_configuration_says_so() -> None:
    """worker.allow_root; the daemon is not asked to become anybody."""
    with pytest.raises(OwnerRefused, match=r"worker\.allow_root"):
        await heard(for_all(shell("true"), allow_root=False), 0)


async def test_root_runs_as_root_by_default() -> None:
    """Root has asked for it."""
    require_root("being root")
    said = await heard(for_all(shell("id -u >&0")), 0)
    assert said == "0\n"


async def test_a_daemon_of_one_user_refuses_another() -> None:
    """It would open files with the wrong rights."""
    with pytest.raises(OwnerRefused, match="only"):
        await heard(own_launcher(shell("true"), {}), os.getuid() + 1)


async def test_a_silent_user_database_delays_its_owner_only() -> None:
    """A directory service may hang: that is no verdict on the owner, and stops nobody else."""
    require_root("becoming another user")
    answering, asked = threading.Event(), []

    def silent(uid: int) -> Account:
        asked.append(uid)
        if uid == _UID:
            answering.wait(20)
        return replace(SOMEBODY, uid=uid)

    launch = for_all(shell("id -u >&0"), silent, patience=0.2)
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"user database did not answer within 0\.2 s"):
                await heard(launch, _UID)
        assert asked == [_UID]  # one thread waits, however often it is tried
        assert await heard(launch, _UID + 5) == f"{_UID + 5}\n"
    finally:
        answering.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await heard(launch, _UID) == f"{_UID}\n"
                break
            except TimeoutError:
                continue


async def test_an_installation_that_its_owner_cannot_read_is_named() -> None:
    """The usual mistake: a virtual environment in somebody's home."""
    require_root("becoming another user")
    with public_directory() as place:
        home = place / "home"
        home.mkdir(mode=0o700)
        (home / "python").symlink_to("/bin/true")
        with pytest.raises(PermissionError, match="is the installation readable by everyone"):
            await heard(for_all((str(home / "python"),)), _UID)
