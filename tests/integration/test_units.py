"""The systemd units are sound, and say what the code relies on."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import require_program
from transferd.store.keys import CREDENTIAL, OLD_CREDENTIAL
from transferd.wire.paths import state_directory, system_socket, user_socket

UNITS = Path(__file__).parents[2] / "systemd"
#: Option of systemd-analyze → folder of the units.
MANAGERS = {"system": UNITS, "user": UNITS / "user"}

#: systemd-analyze's own score for the system service, in tenths; more is worse.
EXPOSURE = 25


class UnitParser(configparser.ConfigParser):
    """Reads unit files, whose names have capitals that matter."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(manager: str, name: str) -> UnitParser:
    """A unit file, read."""
    # A setting may be given several times; the last one counts here.
    parsed = UnitParser(interpolation=None, strict=False)
    parsed.read_string((MANAGERS[manager] / name).read_text())
    return parsed


def analyze(manager: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze in *tmp_path* on the units, with a program that is sure to exist."""
    program = require_program("systemd-analyze")
    for original in MANAGERS[manager].glob("transferd.*"):
        text = original.read_text().replace("=/usr/local/bin/transferd", "=/bin/true")
        (tmp_path / original.name).write_text(text)
    return subprocess.run(
        [program, f"--{manager}", *arguments],
        cwd=tmp_path,
        env=dict(os.environ) | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("manager", MANAGERS)
def test_units_pass_systemds_own_check(manager: str, tmp_path: Path) -> None:
    """Rule: `systemd-analyze verify` has nothing to say of them."""
    options = ("--man=no", "--recursive-errors=no")
    units = ("./transferd.service", "./transferd.socket")
    run = analyze(manager, tmp_path, "verify", *options, *units)
    # It may complain of a machine without a bus; every complaint of a unit names its file.
    said = [line for line in (run.stdout + run.stderr).splitlines() if "transferd." in line]
    assert (run.returncode, said) == (0, [])


def test_the_system_service_is_hardened(tmp_path: Path) -> None:
    """Rule: what a multi-user service can give up, it gives up."""
    options = ("--offline=yes", f"--threshold={EXPOSURE}", "--no-pager")
    run = analyze("system", tmp_path, "security", *options, "./transferd.service")
    assert run.returncode == 0, run.stdout[-500:]


def test_the_daemon_becomes_its_users_and_nothing_else() -> None:
    """Rule: a user of its own, with what it takes to become others and to give up the way back."""
    service = unit("system", "transferd.service")["Service"]
    assert (service["User"], service["Group"]) == ("transferd", "transferd")
    capabilities = {"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP"}
    assert set(service["CapabilityBoundingSet"].split()) == capabilities
    assert set(service["AmbientCapabilities"].split()) == capabilities


@pytest.mark.parametrize(
    "name", ["ProtectHome", "PrivateTmp", "PrivateUsers", "ReadWritePaths", "RootDirectory"]
)
def test_users_can_write_where_they_may(name: str) -> None:
    """Rule: the sandbox hides no place from workers in which their users may have files."""
    service = unit("system", "transferd.service")["Service"]
    assert name not in service
    assert service["ProtectSystem"] == "full"


@pytest.mark.parametrize(
    "name", ["MemoryDenyWriteExecute", "ProcSubset", "ProtectProc", "IPAddressDeny"]
)
def test_users_commands_run_as_they_would_elsewhere(name: str) -> None:
    """Rule: what the unit takes from the daemon it takes from every user's command, too."""
    assert name not in unit("system", "transferd.service")["Service"]


def test_every_line_of_the_system_service_says_why() -> None:
    """Rule: hardening without its reason is taken out by the next who is in its way."""
    lines = (UNITS / "transferd.service").read_text().partition("[Service]")[2].splitlines()
    said = False
    for line in lines:
        said = line.startswith("#") or (said and line != "")
        if re.match(r"(Protect|Private|Restrict|SystemCall|NoNew|Capab|UMask|Lock|Limit)", line):
            assert said, line


def test_a_key_from_the_machines_store_is_no_condition() -> None:
    """Rule: credentials without a path are looked for, and the service starts without them."""
    lines = (UNITS / "transferd.service").read_text().splitlines()
    loaded = {line.partition("=")[2] for line in lines if line.startswith("LoadCredential")}
    assert loaded == {CREDENTIAL, OLD_CREDENTIAL}


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_service_reports_to_its_manager(manager: str) -> None:
    """Rule: ready is what the daemon says, hanging is what the watchdog finds."""
    service = unit(manager, "transferd.service")["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    assert service["KillMode"] == "mixed"
    assert service["OOMPolicy"] == "continue"
    assert "kill -HUP $MAINPID" in service["ExecReload"]


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_service_is_started_again_for_ever(manager: str) -> None:
    """Rule: a unit that gives up takes its socket along, and all jobs wait for an administrator.

    But what only he can mend is no reason to start again and again behind his back.
    """
    parsed = unit(manager, "transferd.service")
    assert parsed["Service"]["RestartPreventExitStatus"] == "2"
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert int(parsed["Service"]["RestartSec"]) >= 1


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_socket_comes_from_the_socket_unit(manager: str) -> None:
    """Rule: the service needs its socket; a RuntimeDirectory= would remove it with each stop."""
    service = unit(manager, "transferd.service")
    assert service["Unit"]["Requires"] == "transferd.socket"
    assert service["Install"]["Also"] == "transferd.socket"
    # Who enables the socket wants jobs to go on after a reboot, before anybody asks.
    assert unit(manager, "transferd.socket")["Install"]["Also"] == "transferd.service"
    assert "RuntimeDirectory" not in service["Service"]


def test_clients_find_the_sockets_where_the_units_put_them() -> None:
    """Rule: units and clients agree on paths, and on who gets in."""
    system = unit("system", "transferd.socket")["Socket"]
    assert Path(system["ListenStream"]) == system_socket()
    assert (system["SocketMode"], system["DirectoryMode"]) == ("0666", "0755")
    assert system["SocketGroup"] == "transferd"
    user = unit("user", "transferd.socket")["Socket"]
    runtime = "/run/user/1000"
    expected = user_socket({"XDG_RUNTIME_DIR": runtime}, 1000)
    assert Path(user["ListenStream"].replace("%t", runtime)) == expected
    assert user["SocketMode"] == "0600"


def test_the_state_directory_is_the_daemons_default() -> None:
    """Rule: a daemon started by hand finds the service's queue, which is its user's alone."""
    service = unit("system", "transferd.service")["Service"]
    assert Path("/var/lib") / service["StateDirectory"] == state_directory({}, system=True)
    assert service["StateDirectoryMode"] == "0700"
