"""The table of events is what the code logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.logged import Logged, Unreadable, logged_in
from transferd.model.events import EVENTS

PACKAGE = Path(__file__).parents[2] / "transferd"
#: Programs that log for programmers, and have no log of their own.
_CLIENTS = {"client", "cli"}


def everything() -> list[Logged]:
    """All that daemon and workers log."""
    return [
        logged
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in _CLIENTS
        for logged in logged_in(path)
    ]


def test_every_event_that_is_logged_is_in_the_table_with_its_fields() -> None:
    """Rule: who looks for an event or a field finds it written down."""
    missing = [
        f"{logged.where}: {logged.event} {sorted(logged.fields)}"
        for logged in everything()
        if logged.event not in EVENTS or not logged.fields <= set(EVENTS[logged.event].fields)
    ]
    assert missing == []


def test_everything_in_the_table_is_logged() -> None:
    """Rule: nobody waits for an event or a field that never comes."""
    seen: dict[str, set[str]] = {}
    for logged in everything():
        seen.setdefault(logged.event, set()).update(logged.fields)
    table = {name: set(event.fields) for name, event in EVENTS.items()}
    # No calls of ours: a record of the HTTP library that is rewritten, and a worker's last word.
    assert table.pop("api.malformed_request") == set()
    assert table.pop("log.suppressed") == {"records"}
    assert seen == table


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_has_a_name_like_bits_and_a_meaning(event: str) -> None:
    """Rule: `thing.happened`, and a clause that says what that means."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*", event)
    assert EVENTS[event].meaning[0].islower() or EVENTS[event].meaning.startswith("HTTP")
    assert not EVENTS[event].meaning.endswith(".")


@pytest.mark.parametrize(
    "event",
    [
        *("job.created", "job.resumed", "job.suspended", "job.completed", "job.cancelled"),
        *("job.notify_changed", "file.start", "file.stop", "notify.exec_failed"),
        *("auth.accepted", "auth.rejected"),
    ],
)
def test_what_bits_logs_is_logged(event: str) -> None:
    """Rule: BITS.md 1.23; cost states are not ours."""
    assert event in EVENTS


def test_the_reader_of_the_source_sees_what_is_not_in_the_table(tmp_path: Path) -> None:
    """Rule: these tests can fail: names behind tables, choices and helpers are read."""
    module = tmp_path / "module.py"
    module.write_text(
        """
NAMES = {1: "a.one", 2: "a.two"}
def first(job, bad):
    fields = {"job": job}
    if bad:
        fields |= {"reason": bad}
    log.info(NAMES.get(job), extra={"fields": fields})
    log.log(level, "b.bad" if bad else "b.good", extra={"fields": more(file=1)})
def more(**rest):
    return {"owner": 1, **rest}
"""
    )
    assert {(logged.event, logged.fields) for logged in logged_in(module)} == {
        ("a.one", frozenset({"job", "reason"})),
        ("a.two", frozenset({"job", "reason"})),
        ("b.bad", frozenset({"owner", "file"})),
        ("b.good", frozenset({"owner", "file"})),
    }
    module.write_text("def f(x):\n    log.info(x.name)\n")
    with pytest.raises(Unreadable, match=r"module\.py:2"):
        list(logged_in(module))
