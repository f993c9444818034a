"""Who may fill how much of the queue: admins as much as they like, everybody else what is allowed.

A limit on bytes is held against what servers say while a job runs. Its owner is not asking then,
so the machine is asked who he is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from transferd.model.caller import Caller
from transferd.model.limits import Limits, Quota


class Quotas:
    """The quota of each caller, and of each owner of a job."""

    def __init__(self, limits: Limits, is_admin: Callable[[int], bool]) -> None:
        """Take the limits, and who tells of a uid whether it is an admin's; that may block."""
        self._limits = limits
        self._is_admin = is_admin

    def configure(self, limits: Limits, is_admin: Callable[[int], bool]) -> None:
        """Hold to other limits from now on; what runs already goes on with those it has."""
        self._limits = limits
        self._is_admin = is_admin

    def of_caller(self, caller: Caller) -> Quota:
        """Return how much of the queue a caller may fill."""
        return Quota() if caller.admin else self._limits.quota

    async def of_owner(self, owner: int) -> Quota:
        """Return how much of the queue the files of an owner may fill while they are fetched."""
        quota = self._limits.quota
        if quota.bounds_bytes and await asyncio.to_thread(self._is_admin, owner):
            return Quota()
        return quota
