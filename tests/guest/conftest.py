"""Guests for the tests of this room, all of them in one test process.

`machine` is the one that most tests share: transferd is installed and enabled there, two people
have accounts, and retries are quick. A test leaves it running, with the configuration as it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import CONFIG
from tests.support.guest import Guest
from tests.support.guest import guest as new_guest
from tests.support.guest_origin import GuestOrigin
from tests.support.guest_package import build_package
from tests.support.guest_user import User

_HERE = Path(__file__).parent
#: For whoever comes first, a guest is copied and transferd is built.
_SECONDS = 300


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
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Guest):
        since = f"--since=@{call.start:.0f}"
        journal = machine.run("journalctl", "--no-pager", "--unit=transferd*", since, check=False)
        report.sections.append(("journal of the guest", journal.output))
    return report


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this checkout."""
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def machine(package: Path) -> Iterator[Guest]:
    """A guest with transferd as a service, alice and bob."""
    with new_guest(people=["alice", "bob"]) as guest:
        guest.put(f"/root/{package.name}", package.read_bytes())
        guest.put("/etc/transferd/transferd.toml", CONFIG)
        guest.shell(
            f"apt-get install -y -o Dpkg::Options::=--force-confold /root/{package.name}",
            seconds=200,
        )
        guest.run("systemctl", "enable", "--now", "transferd.socket")
        yield guest


@pytest.fixture
async def alice(machine: Guest) -> AsyncIterator[User]:
    """An ordinary user of the machine; no job of hers is left."""
    user = User(machine, "alice")
    yield user
    await user.leave()


@pytest.fixture
async def bob(machine: Guest) -> AsyncIterator[User]:
    """Another one."""
    user = User(machine, "bob")
    yield user
    await user.leave()


@pytest.fixture
async def root(machine: Guest) -> AsyncIterator[User]:
    """The machine's administrator."""
    user = User(machine, "root")
    yield user
    await user.leave()


@pytest.fixture
async def origin(machine: Guest) -> AsyncIterator[GuestOrigin]:
    """A server on the machine's network."""
    async with GuestOrigin(machine.network).running() as running:
        yield running
