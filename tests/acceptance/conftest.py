"""A real daemon for each test, in a directory of its own; and one for all that can share it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import transferd
from tests.support.daemon import DaemonProcess
from tests.support.kdc import Kdc
from tests.support.owner import Machine, Owner
from tests.support.sites import Place, Site, opened


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A running daemon with an empty queue."""
    with DaemonProcess(tmp_path) as process:
        yield process.start()


@pytest.fixture(scope="session")
def machine(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running daemon that knows the KDC, one for a test process; its owner has no ticket."""
    with Machine(tmp_path_factory.mktemp("machine"), kdc) as process:
        yield process.start()


@pytest.fixture
async def place(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """The site that the test's parameter `site` is, open."""
    async with opened(site, request) as place:
        yield place


@pytest.fixture
async def owner(machine: Machine, place: Place, tmp_path: Path) -> AsyncIterator[Owner]:
    """Somebody who wants the file there; what he leaves behind is cancelled."""
    async with transferd.connect(machine.socket) as manager:
        somebody = Owner(machine=machine, manager=manager, place=place, directory=tmp_path)
        yield somebody
        await somebody.leave()
