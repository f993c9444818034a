"""Why a job does not move, as people are told."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from transferd.cli.values import shown_moment, wall_clock
from transferd.client.job import Job
from transferd.model.errors import TransferdError
from transferd.wire.api import BlockerAnswer


def reason(blocker: BlockerAnswer, now: datetime) -> str:
    """Tell everything of a reason: `code since … until …: text; to go on: remedy`."""
    since = f" since {shown_moment(blocker.since, now)}" if blocker.since else ""
    return f"{blocker.code}{since}{until(blocker, now)}: {blocker.text}; to go on: {blocker.remedy}"


def brief_reason(blocker: BlockerAnswer, now: datetime) -> str:
    """Tell what it is, and until when: `text, until 18:00 CET`."""
    return f"{blocker.text}{',' if blocker.until else ''}{until(blocker, now)}"


async def first_reason(job: Job) -> str | None:
    """Return briefly what keeps a job from moving now; None: nothing does, or nobody tells."""
    with suppress(TransferdError):
        for blocker in await job.why():
            return brief_reason(blocker, wall_clock())
    return None


def until(blocker: BlockerAnswer, now: datetime) -> str:
    """Tell until when, as far as that is known: ` until 18:00 CET`."""
    return f" until {shown_moment(blocker.until, now)}" if blocker.until else ""
