"""The two ways in and out that the README tells: the Debian package, and `admin install`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.guest import Guest
from tests.support.guest import guest as new_guest
from tests.support.guest_origin import BODY, GuestOrigin
from tests.support.guest_package import SOURCES, give_sources
from tests.support.guest_user import User
from tests.support.readme import commands

_STATE = Path("/var/lib/transferd")
#: What changes on any machine: users' own files, logs, the records of apt and dpkg, and what Python
#: keeps of its library when root uses a module for the first time.
_ALIVE = (
    *("/home", "/root", "/var/log", "/var/cache", "/var/lib/apt", "/var/lib/dpkg"),
    "/usr/lib/python3*/__pycache__",
)


@pytest.fixture(scope="module")
def fresh() -> Iterator[Guest]:
    """A guest without transferd; a test leaves it so."""
    with new_guest(people=["alice"]) as guest:
        give_sources(guest)
        # Makes its caches.
        guest.run("apt-get", "check")
        yield guest


@pytest.fixture
def built(fresh: Guest, package: Path) -> Iterator[str]:
    """Where that guest has the Debian package; what is left of the installed one is purged."""
    name = f"/root/{package.name}"
    fresh.put(name, package.read_bytes())
    yield name
    fresh.run("dpkg", "--purge", "transferd", check=False)


@pytest.fixture
async def origin(fresh: Guest) -> AsyncIterator[GuestOrigin]:
    """A server on that guest's network."""
    async with GuestOrigin(fresh.network).running() as running:
        yield running


def files(guest: Guest) -> set[str]:
    """Every name on the guest's disk that should be the same tomorrow."""
    prune = " -o ".join(f"-path '{path}'" for path in _ALIVE)
    return set(guest.shell(rf"find / -xdev \( {prune} \) -prune -o -print").lines)


async def download(user: User, origin: GuestOrigin, name: str) -> None:
    """Download a file as an ordinary user, and leave a job in the queue."""
    origin.serve("/a")
    await user.ctl("get", origin.url("/a"), f"{user.home}/{name}")
    assert user.file(name).read_bytes() == BODY
    await user.ctl("create", name)


async def jobs(user: User) -> list[str]:
    """The names of somebody's jobs."""
    return [job["name"] for job in (await user.json("list"))["jobs"]]


async def test_the_package_goes_as_it_came(fresh: Guest, origin: GuestOrigin, built: str) -> None:
    """Rule: `remove` keeps queue and configuration, for who comes back; `purge` keeps nothing."""
    alice, root = User(fresh, "alice"), User(fresh, "root")
    before = files(fresh)
    await root.run("apt-get", "install", "--yes", built)
    await download(alice, origin, "packaged")
    await root.run("apt-get", "remove", "--yes", "transferd")
    assert (await root.run("pgrep", "-u", "transferd,alice", check=False)).output == ""
    assert (await root.run("ls", "/run/transferd", check=False)).output == ""
    await root.run("apt-get", "install", "--yes", built)
    assert await jobs(alice) == ["packaged"]
    await root.run("apt-get", "purge", "--yes", "transferd")
    assert files(fresh) == before
    said = await root.run("systemctl", "is-system-running", check=False)
    assert said.output == "running\n"


async def test_what_admin_install_has_installed_goes_but_for_the_queue(
    fresh: Guest, origin: GuestOrigin
) -> None:
    """Rule: `uninstall` leaves the state, and says the command that removes that, too."""
    alice, root = User(fresh, "alice"), User(fresh, "root")
    before = files(fresh)
    _, by_hand = commands("Install it")
    fresh.shell(f"cd {SOURCES}\n{by_hand}", seconds=200)
    await download(alice, origin, "by-hand")
    uninstall = (f"{SOURCES}/.venv/bin/transferctl", "admin", "uninstall")
    said = await root.run(*uninstall)
    left = files(fresh) - before
    assert {path for path in left if not Path(path).is_relative_to(_STATE)} == set()
    assert f"{_STATE}/queue.db" in left
    # The same again finds the queue.
    again = "\n".join(line for line in by_hand.splitlines() if line.startswith("sudo"))
    fresh.shell(f"cd {SOURCES}\n{again}", seconds=200)
    assert await jobs(alice) == ["by-hand"]
    said = await root.run(*uninstall)
    (removal,) = [line.partition(": ")[2] for line in said.lines if ": rm -r " in line]
    await root.run("sh", "-c", removal)
    assert files(fresh) == before
    assert (await root.run("getent", "passwd", "transferd", check=False)).output == ""
