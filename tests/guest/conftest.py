"""Guests for the tests of this room: one for each module, all of them in one test process."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep guests one after the other, and give them time: a module boots and installs first."""
    here = [item for item in items if item.path.is_relative_to(__file__.rpartition("/")[0])]
    for item in here:
        item.add_marker(pytest.mark.xdist_group("guest"))
        item.add_marker(pytest.mark.timeout(300))
