"""Fixtures of the contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.store import Queue, open_queue


@pytest_asyncio.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    """An empty queue."""
    async with open_queue(tmp_path / "state") as opened:
        yield opened
