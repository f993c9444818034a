"""Fixtures of the integration tests: Kerberos realms, origins, and schemes that are played."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.kdc import Kdc
from tests.support.kdc import kdc as new_kdc
from tests.support.origin import Origin
from tests.support.realm import Realm, join
from tests.support.scripted import Stage, three_legs
from tests.support.ways import WAYS, Way, on_the_way
from transferd.model.credentials import Scheme


@pytest.fixture
def realm(kdc: Kdc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Realm:
    """The realm of the shared KDC; nobody has a ticket."""
    return join(kdc, monkeypatch, tmp_path)


@pytest.fixture
def own_realm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Realm]:
    """A realm whose KDC may be stopped and shifted."""
    with new_kdc() as kdc:
        yield join(kdc, monkeypatch, tmp_path)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """The origin of the files' own URLs."""
    async with Origin("127.0.0.1").running() as running:
        yield running


@pytest.fixture
async def other() -> AsyncIterator[Origin]:
    """Somebody else."""
    async with Origin("127.0.0.2").running() as running:
        yield running


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Where schemes are played; NTLM has its three legs to begin with."""
    made = Stage(monkeypatch)
    made.play(Scheme.NTLM, three_legs)
    return made


@pytest.fixture(params=WAYS)
async def way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Way]:
    """A way that bodies go; a test that takes it is run on each."""
    with pytest.MonkeyPatch.context() as patch:
        async with on_the_way(request.param, tmp_path_factory.mktemp("ca"), patch) as made:
            yield made
