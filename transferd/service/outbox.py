"""The outbox, as the service sees it. Model types only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from transferd.model.job import JobId
from transferd.model.notices import Look, Notice, NoticeKind, Settlement


class NoticeStore(Protocol):
    """The outbox."""

    async def replay(
        self,
        *,
        after: int,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        limit: int,
    ) -> tuple[Notice, ...]:
        """Return notices with a number greater than *after*, in order."""
        ...

    async def look(
        self,
        *,
        after: int,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        limit: int,
    ) -> Look:
        """Return what `bounds` and `replay` do, of one moment."""
        ...

    async def unsettled(
        self,
        *,
        owner: int | None,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int,
        limit: int,
    ) -> tuple[Notice, ...]:
        """Return terminal notices that nobody has acknowledged, in order."""
        ...

    async def notice(self, number: int) -> Notice:
        """Return one.

        Raises:
            NotFound: `notice_not_found`.
        """
        ...

    async def bounds(self, owner: int | None = None) -> tuple[int, int]:
        """Return the oldest number that is still there and the newest ever given.

        With an empty outbox the oldest is one more than the newest. Before the oldest nothing of
        *owner*'s is missing but what was forgotten; None: nobody's in particular.
        """
        ...

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Raise the deliveries of notices by one."""
        ...

    async def settle(self, number: int, owner: int | None = None) -> Notice:
        """Mark a notice as acknowledged; doing it again is success.

        Raises:
            NotFound: `notice_not_found`; also when it is not *owner*'s (any more), if one is named.
        """
        ...

    async def settle_all(self, numbers: Sequence[int], owner: int) -> tuple[Settlement, ...]:
        """Mark those notices as acknowledged that are *owner*'s; returns what was found of all."""
        ...

    async def prune(self, before: datetime) -> int:
        """Forget notices older than *before*, settled or not, and remembered ids as old."""
        ...
