"""Guests for the tests of this room, all of them in one test process.

`machine` is the one that most tests share: transferd is installed and enabled there, two people
have accounts, and retries are quick. A test leaves it running, with the configuration as it was.
"""

from __future__ import annotations

import faulthandler
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import CONFIG
from tests.support.guest import Guest
from tests.support.guest import guest as new_guest
from tests.support.guest_origin import GuestOrigin
from tests.support.guest_package import SOURCES, give_sources
from tests.support.guest_user import User
from tests.support.readme import commands

_HERE = Path(__file__).parent
#: For whoever comes first, a guest is copied and transferd is built.
_SECONDS = 300
_BUILD_SECONDS = 200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep guests in one process, one after the other, and give them time."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.xdist_group("guest"))
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the service wrote in the meantime."""
    report = yield
    guests = [each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Guest)]
    for guest in guests if report.failed else ():
        since = f"--since=@{call.start:.0f}"
        journal = guest.run("journalctl", "--no-pager", "--unit=transferd*", since, check=False)
        report.sections.append(("journal of the guest", journal.output))
    return report


@pytest.fixture(scope="session")
def machine() -> Iterator[Guest]:
    """A guest with transferd as a service, as the README installs it on Debian; alice and bob."""
    # Building a package may take longer than a test should, and does not hang.
    faulthandler.cancel_dump_traceback_later()
    with new_guest(people=["alice", "bob"]) as guest:
        give_sources(guest)
        by_package, _ = commands("Install it")
        guest.shell(f"cd {SOURCES}\n{by_package}", seconds=_BUILD_SECONDS)
        guest.put("/etc/transferd/transferd.toml", CONFIG)
        guest.run("systemctl", "enable", "--now", "transferd.socket")
        yield guest


@pytest.fixture(scope="session")
def package(machine: Guest) -> Path:
    """The Debian package that the machine has built."""
    return next(machine.path(f"{SOURCES}/dist").glob("*.deb"))


@pytest.fixture
async def root(machine: Guest) -> AsyncIterator[User]:
    """The machine's administrator, who leaves nobody's job in the queue."""
    user = User(machine, "root")
    yield user
    for job in (await user.json("list", "--all-users"))["jobs"]:
        await user.ctl("cancel", job["id"])


@pytest.fixture
def alice(root: User) -> User:
    """An ordinary user of the machine."""
    return User(root.guest, "alice")


@pytest.fixture
def bob(root: User) -> User:
    """Another one."""
    return User(root.guest, "bob")


@pytest.fixture
async def origin(machine: Guest) -> AsyncIterator[GuestOrigin]:
    """A server on the machine's network."""
    async with GuestOrigin(machine.network).running() as running:
        yield running
