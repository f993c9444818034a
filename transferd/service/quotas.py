"""Who may fill how much of the queue: admins as much as they like, everybody else what is allowed.

A limit on bytes is held against what servers say while a job runs. Its owner is not asking then,
so the machine is asked who he is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from transferd.model.caller import Caller
from transferd.model.job import Seconds
from transferd.model.limits import Limits, Quota
from transferd.service.lookups import LOOKUP_SECONDS, Lookups

log = logging.getLogger(__name__)


class Quotas:
    """The quota of each caller, and of each owner of a job."""

    def __init__(
        self,
        limits: Limits,
        is_admin: Callable[[int], bool],
        patience: Seconds = LOOKUP_SECONDS,
    ) -> None:
        """Take the limits, and who tells of a uid whether it is an admin's; that may block."""
        self._limits = limits
        self._patience = patience
        self._admins = Lookups(is_admin, patience)

    def configure(self, limits: Limits, is_admin: Callable[[int], bool]) -> None:
        """Hold to other limits from now on; what runs already goes on with those it has."""
        self._limits = limits
        self._admins = Lookups(is_admin, self._patience)

    def of_caller(self, caller: Caller) -> Quota:
        """Return how much of the queue a caller may fill."""
        return Quota() if caller.admin else self._limits.quota

    async def of_owner(self, owner: int) -> Quota:
        """Return how much of the queue the files of an owner may fill while they are fetched.

        Who cannot be said to be an admin now is none.
        """
        quota = self._limits.quota
        try:
            if quota.bounds_bytes and await self._admins.find(owner):
                return Quota()
        except TimeoutError as error:
            fields = {"owner": owner, "reason": str(error)}
            log.warning("owner.unknown", extra={"fields": fields})
        return quota
