"""What a job's settings mean to others than its owner: pure decisions (BITS.md O2, O3, A19, M8)."""

from __future__ import annotations

import dataclasses

from transferd.model.credentials import NegotiateOptions, PassportOptions
from transferd.model.job import Settings

#: Code of what an admin may do with another's job only once it is his own.
TAKE_FIRST = "take_ownership_first"

#: Settings that say when a job runs, for how long and with how much of the machine. An admin may
#: change these in anybody's job: none of them touches the owner's files, secrets or commands.
STEERING = frozenset({"priority", "cost", "streams", "timers", "max_size", "max_rate"})


def foreign_changes(before: Settings, after: Settings) -> tuple[str, ...]:
    """Return which settings differ that nobody but a job's owner may change."""
    return tuple(
        field.name
        for field in dataclasses.fields(Settings)
        if field.name not in STEERING and getattr(before, field.name) != getattr(after, field.name)
    )


def stripped(settings: Settings) -> Settings:
    """Return the settings of a job that becomes somebody else's.

    What comes from where and goes where stays. Gone is who the former owner was (headers,
    negotiate), whom he trusted with what (cacert, passport, allow_cleartext) and what he wanted to
    be run; and no link that others have laid leads to the job's files any more.
    """
    return dataclasses.replace(
        settings,
        notify_command=None,
        header_names=(),
        negotiate=NegotiateOptions(),
        passport=PassportOptions(),
        cacert=None,
        allow_cleartext=False,
        wary=True,
    )
