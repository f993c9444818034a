"""Fixtures of the integration tests: Kerberos realms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kdc import Kdc
from tests.support.kdc import kdc as new_kdc
from tests.support.realm import Realm, join


@pytest.fixture
def realm(kdc: Kdc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Realm:
    """The realm of the shared KDC; nobody has a ticket."""
    return join(kdc, monkeypatch, tmp_path)


@pytest.fixture
def own_realm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Realm]:
    """A realm whose KDC may be stopped and shifted."""
    with new_kdc() as kdc:
        yield join(kdc, monkeypatch, tmp_path)
