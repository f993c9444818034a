"""What of a job is its owner's alone, and what a new owner does not inherit."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from transferd.model.credentials import NegotiateOptions, PassportOptions
from transferd.model.job import Cost, OnError, Priority, Settings, Timers
from transferd.model.ownership import STEERING, foreign_changes, stripped

TIMERS = Timers(min_retry_delay=60.0, no_progress_timeout=3600.0, max_download_time=7200.0)
PLAIN = Settings(name="a job", timers=TIMERS)

#: Something else than the default, for each setting.
OTHER: dict[str, Any] = {
    "name": "another",
    "timers": replace(TIMERS, max_download_time=1.0),
    "description": "of mine",
    "priority": Priority.LOW,
    "cost": Cost.ALWAYS,
    "notify_kinds": 0x01,
    "notify_command": ("/bin/true",),
    "auto_complete": True,
    "on_error": OnError.CANCEL,
    "overwrite": False,
    "allow_cleartext": True,
    "header_names": ("X-Api-Key",),
    "cacert": "/home/alice/ca.pem",
    "proxy": "http://proxy:3128",
    "max_size": 7,
    "streams": 3,
    "max_rate": 5000,
    "negotiate": NegotiateOptions(keytab="/home/alice/keytab", principal="alice", ntlm=True),
    "passport": PassportOptions(login_host="login.example.org"),
    "wary": True,
}

#: What a job keeps when it is taken over: what comes from where, goes where, and when.
KEPT = frozenset(
    {
        *("name", "timers", "description", "priority", "notify_kinds", "auto_complete"),
        *("on_error", "overwrite", "proxy", "max_size", "max_rate", "streams", "cost"),
    }
)


def test_every_setting_is_judged() -> None:
    """A setting that is added later is decided upon here before it can slip through."""
    assert set(OTHER) == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_new_owner_inherits_no_identity_no_trust_and_no_command(name: str) -> None:
    """BITS O3, A19, M8: what the former owner was, whom he trusted and what he had run is gone."""
    before = replace(PLAIN, **{name: OTHER[name]})
    after = getattr(stripped(before), name)
    default = True if name == "wary" else getattr(PLAIN, name)
    assert after == (OTHER[name] if name in KEPT else default)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_an_admin_steers_and_changes_nothing_else(name: str) -> None:
    """Whoever could set another's command, proxy or destination would act as that user."""
    found = foreign_changes(PLAIN, replace(PLAIN, **{name: OTHER[name]}))
    assert found == (
        () if name in {"priority", "cost", "timers", "streams", "max_size", "max_rate"} else (name,)
    )
    assert foreign_changes(PLAIN, PLAIN) == ()
    assert set(OTHER) >= STEERING
