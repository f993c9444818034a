"""No id of a worker leads back to its daemon, and its environment is a login's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from transferd.accounts import Account
from transferd.launcher import login_environment
from transferd.worker.confinement import check_identity

ALICE = Account(  # noqa: S604
    uid=4_000_000_001,
    gid=4_000_000_001,
    groups=(4_000_000_001,),
    name="alice",
    home=Path("/home/alice"),
    shell="/bin/zsh",
)
STATUS = "Name:\tpython\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t100 7\n"


@pytest.mark.parametrize("owner", [1000, None])
def test_one_id_four_times_is_an_identity(owner: int | None) -> None:
    """Real, effective, saved and file system id are the owner's."""
    check_identity(STATUS, owner)


@pytest.mark.parametrize(
    "status",
    [
        STATUS.replace("Uid:\t1000", "Uid:\t998"),
        STATUS.replace("Uid:\t1000\t1000", "Uid:\t1000\t998"),
        STATUS.replace("\t1000\nGid", "\t998\nGid"),
        STATUS.replace("1000\t1000\nGid", "998\t1000\nGid"),
        STATUS.replace("Gid:\t100\t100\t100", "Gid:\t100\t100\t998"),
        STATUS.replace("1000", "998"),
        "Name:\tpython\n",
        "",
    ],
)
def test_a_way_back_ends_the_worker(status: str) -> None:
    """A saved or real id of the daemon's would let whoever takes over the worker become it."""
    with pytest.raises(SystemExit, match="cannot work as uid 1000"):
        check_identity(status, 1000)


def test_the_environment_is_that_of_a_login() -> None:
    """HOME and its like are the owner's; PATH and language are the machine's."""
    assert login_environment(ALICE, {}) == {
        "HOME": "/home/alice",
        "LANG": "C.UTF-8",
        "LOGNAME": "alice",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/zsh",
        "USER": "alice",
    }


def test_what_is_configured_comes_on_top_but_nobody_becomes_another() -> None:
    """worker.environment may choose PATH and proxies, not whose home it is."""
    given = {"PATH": "/opt/bin", "https_proxy": "http://p:1", "HOME": "/x", "USER": "eve"}
    made = login_environment(ALICE, given | {"XDG_RUNTIME_DIR": "/run/user/0", "SHELL": "/x"})
    assert (made["PATH"], made["https_proxy"]) == ("/opt/bin", "http://p:1")
    assert (made["HOME"], made["USER"], made["SHELL"]) == ("/home/alice", "alice", "/bin/zsh")
    assert "XDG_RUNTIME_DIR" not in made


def test_an_account_without_home_or_shell_has_a_usable_one() -> None:
    """System users have neither, now and then."""
    made = login_environment(replace(ALICE, home=Path(""), shell=""), {})
    assert (made["HOME"], made["SHELL"]) == ("/", "/bin/sh")
