"""What the progress line says, and that it stays one line."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from rich.console import Console

from transferd.cli.progress import Bar, Speed, line_for
from transferd.cli.values import shown_moment
from transferd.wire.api import (
    BlockerAnswer,
    ErrorAnswer,
    JobAnswer,
    NegotiateAnswer,
    NotifyAnswer,
    OwnerAnswer,
    PassportAnswer,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
REFUSED = ErrorAnswer(
    code="connection_refused",
    context="transport",
    message="cannot connect to downloads.example.org:443: connection refused",
    http_status=None,
    file="/home/alice/a.iso",
    transient=True,
    missing=[],
)


def answer(**changes: Any) -> JobAnswer:
    """Return a job that is half here."""
    half = JobAnswer(
        id="0f8fad5b-d9cb-469f-a165-70867728950e",
        name="debian-12.9.0-amd64-netinst.iso",
        description="",
        type="download",
        priority="foreground",
        cost="default",
        state="transferring",
        owner=OwnerAnswer(uid=1000, name="alice"),
        files_total=1,
        files_transferred=0,
        bytes_total=662_700_032,
        bytes_transferred=331_350_016,
        error=None,
        error_count=0,
        credentials=[],
        headers=[],
        notify=NotifyAnswer(kinds=["transferred", "error"], command=None),
        auto_complete=False,
        on_error="keep",
        overwrite=True,
        allow_cleartext=False,
        cacert=None,
        proxy=None,
        max_size=None,
        max_rate=None,
        streams=None,
        negotiate=NegotiateAnswer(
            spn=None, proxy_spn=None, keytab=None, principal=None, ccache=None, ntlm=False
        ),
        passport=PassportAnswer(configuration_url=None, login_host=None, realm=None),
        min_retry_delay=60.0,
        no_progress_timeout=0.0,
        max_download_time=0.0,
        created="2026-01-31T12:00:00.000Z",
        modified="2026-01-31T12:00:00.000Z",
        transferred_at=None,
        retry_at=None,
        blockers=[],
    )
    return msgspec.structs.replace(half, **changes)


def waiting(**changes: Any) -> JobAnswer:
    """Return a job that waits for its next try."""
    return answer(
        state="transient_error",
        error=REFUSED,
        retry_at="2026-01-31T12:00:42.000Z",
        **changes,
    )


def test_a_moving_job_shows_share_size_speed_and_time_left() -> None:
    """People want to know how much, how fast and how long."""
    line = line_for(answer(), 10_000_000.0, NOW, 100)
    assert line.share == pytest.approx(0.5)
    assert line.words == "331.4 MB of 662.7 MB  10.0 MB/s  0:33"
    assert line.name == "debian-12.9.0-amd64-net…"


def test_a_size_that_nobody_knows_is_not_made_up() -> None:
    """Without a total there is neither a share nor a time left."""
    line = line_for(answer(bytes_total=None), 2_000_000.0, NOW, 100)
    assert line.share is None
    assert line.words == "331.4 MB  2.0 MB/s"


def test_an_empty_file_is_no_division_by_zero() -> None:
    """A total of zero bytes is a total."""
    assert line_for(answer(bytes_total=0, bytes_transferred=0), 0.0, NOW, 80).share is None


def test_a_waiting_job_says_why_and_until_when() -> None:
    """A stuck job says why; the time of the next try is never cut away."""
    line = line_for(waiting(name="a.iso"), None, NOW, 120)
    assert line.words == (
        "waiting: cannot connect to downloads.example.org:443: connection refused, next try in 42 s"
    )
    narrow = line_for(waiting(name="a.iso"), None, NOW, 60)
    assert narrow.words == "waiting: connection refused, next try in 42 s"


def test_a_queued_job_says_what_holds_it_and_until_when() -> None:
    """Who waits for hours is to know for what; the hour is never cut away."""
    closed = BlockerAnswer(
        code="schedule_closed",
        text="the schedule leaves no bandwidth to foreground jobs now",
        since=None,
        until="2026-11-30T17:00:00.000Z",
        remedy="wait",
    )
    held = answer(name="a.iso", state="queued", blockers=[closed])
    hour = shown_moment("2026-11-30T17:00:00.000Z", NOW)
    assert line_for(held, None, NOW, 120).words == f"waiting: {closed.text}, until {hour}"
    assert line_for(held, None, NOW, 60).words == f"waiting: schedule closed until {hour}"


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-01-31T17:00:00.000Z", "18:00 CET"),
        ("2026-01-31T17:00:07.250Z", "18:00:07 CET"),
        ("2026-01-31T23:30:00.000Z", "2026-02-01 00:30 CET"),
        ("2026-07-01T06:00:00.000Z", "2026-07-01 08:00 CEST"),
    ],
)
def test_a_time_is_told_by_the_clock_on_the_wall(moment: str, words: str) -> None:
    """With its zone, and with the date unless it is today's."""
    assert shown_moment(moment, NOW, ZoneInfo("Europe/Berlin")) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("queued", "waiting for its turn"),
        ("connecting", "connecting"),
        ("suspended", "suspended; `transferctl resume` goes on"),
        ("transferred", "transferred"),
    ],
)
def test_every_other_state_is_named(state: str, words: str) -> None:
    """A line without a bar says what is going on."""
    assert line_for(answer(state=state), None, NOW, 100).words == words


def test_a_hostile_name_cannot_steer_the_terminal() -> None:
    """Names and messages come from elsewhere."""
    hostile = answer(name="\x1b[2Jx", state="error", error=msgspec.structs.replace(REFUSED))
    assert line_for(hostile, None, NOW, 80).name == "?[2Jx"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("job", [answer(), waiting(), answer(files_total=12, name="ä" * 80)])
def test_the_line_fits_the_terminal(job: JobAnswer, width: int) -> None:
    """A line that wraps is drawn anew beneath itself, over and over."""
    (line,) = drawn([job, job], width)
    assert len(line) <= width


def test_sixty_columns_are_enough_for_everything_that_matters() -> None:
    """The promise for a narrow terminal: name, bar, size, speed and time left."""
    (line,) = drawn([answer(), answer(bytes_transferred=341_350_016)], 60)
    assert line.startswith("debian-1")
    assert "━━━━━" in line
    assert line.endswith("341.4 MB of 662.7 MB  10.0 MB/s  0:32")


def drawn(answers: list[JobAnswer], width: int) -> list[str]:
    """Return what is drawn last when a bar sees *answers*, a second apart."""
    stream = io.StringIO()
    seconds, looks = itertools.count(), iter(answers)
    bar = Bar(
        lambda: next(looks), lambda: None, stream, lambda: float(next(seconds)), width
    )  # draws once
    Console(file=stream, width=width, force_terminal=True, color_system=None).print(bar.drawn())
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_speed_is_a_mean_that_follows() -> None:
    """One stutter is not a new speed, and ten seconds at another one are."""
    speed = Speed()
    assert speed.value is None
    speed.measure(0.0, 0)
    speed.measure(1.0, 1000)
    assert speed.value == 1000.0
    speed.measure(2.0, 1000)
    assert speed.value == pytest.approx(700.0)
    for second in range(3, 13):
        speed.measure(float(second), 1000 + 5000 * (second - 2))
    assert speed.value == pytest.approx(5000, rel=0.05)


def test_a_file_that_begins_anew_has_no_negative_speed() -> None:
    """A restart from zero says nothing about the line."""
    speed = Speed()
    speed.measure(0.0, 5000)
    speed.measure(1.0, 6000)
    speed.measure(2.0, 0)
    assert speed.value is None
    speed.measure(3.0, 100)
    assert speed.value == 100.0


def test_two_measurements_at_one_moment_are_no_division_by_zero() -> None:
    """Clocks are coarser than events."""
    speed = Speed()
    speed.measure(1.0, 0)
    speed.measure(1.0, 10)
    assert speed.value is None
