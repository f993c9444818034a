"""The machine that the other tests of this room trust: it boots, and loses what it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest import Guest
from tests.support.guest import guest as new_guest


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """A fresh guest with one ordinary user."""
    with new_guest(people=["alice"]) as machine:
        yield machine


def boot_id(guest: Guest) -> str:
    """What is another after each boot."""
    return guest.run("cat", "/proc/sys/kernel/random/boot_id").output


def test_systemd_runs_the_guest(guest: Guest) -> None:
    """Rule: PID 1 is systemd, every unit is well, and control groups are the unified hierarchy."""
    assert guest.run("ps", "-o", "comm=", "1").output.strip() == "systemd"
    assert guest.run("systemctl", "is-system-running").output.strip() == "running"
    assert guest.run("stat", "-fc", "%T", "/sys/fs/cgroup").output.strip() == "cgroup2fs"


def test_commands_run_as_whom_they_are_asked_to(guest: Guest) -> None:
    """Rule: uid, groups, home, input, output and status are the command's own."""
    said = guest.run("sh", "-c", "id -un; id -Gn; echo $HOME; cat", user="alice", say="hello")
    assert said.lines == ["alice", "alice", "/home/alice", "hello"]
    failed = guest.run("sh", "-c", "echo no >&2; exit 3", user="alice", check=False)
    assert (failed.status, failed.complaints) == (3, "no\n")


def test_the_network_is_loopback_and_the_tests(guest: Guest) -> None:
    """Rule: a socket of the tests is reached at 127.0.0.1; there is nothing else to reach."""
    links = guest.run("ip", "-brief", "link").lines
    assert [line.split()[0] for line in links] == ["lo"]
    with guest.network.listen() as listening:
        port = listening.getsockname()[1]
        dial = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).send(b'me')"
        guest.run("python3", "-c", dial, user="alice")
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(9) == b"me"


@pytest.mark.parametrize("how", ["reboot", "reset"])
def test_a_boot_keeps_the_disk_and_nothing_else(guest: Guest, how: str) -> None:
    """Rule: files stay; processes, /run and /tmp do not, be it shut down or cut off."""
    before = boot_id(guest)
    guest.shell("echo kept >/var/lib/mark; touch /run/mark /tmp/mark; sleep 1000 >/dev/null 2>&1 &")
    getattr(guest, how)()
    assert boot_id(guest) != before
    assert guest.path("/var/lib/mark").read_text() == "kept\n"
    assert guest.shell("ls /run/mark /tmp/mark; pgrep sleep", check=False).output == ""


def test_files_go_in(guest: Guest) -> None:
    """Rule: what the tests put on the guest's disk is there with its mode, with the directories."""
    guest.put("/opt/some/where", "#!/bin/sh\necho in\n", mode=0o755)
    assert guest.run("/opt/some/where", user="alice").output == "in\n"


def test_a_guest_can_be_off(guest: Guest) -> None:
    """Rule: powered off, a guest has no process; it boots again from the same disk."""
    guest.power_off()
    guest.boot()
    assert guest.run("systemctl", "is-system-running").output.strip() == "running"
