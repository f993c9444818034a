"""Answers: complete, without secrets, with times that everybody reads alike."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import msgspec

from transferd.model.credentials import (
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Target,
)
from transferd.model.failures import Failure
from transferd.model.job import (
    Blocker,
    Checksum,
    File,
    FileSpec,
    Job,
    JobId,
    JobType,
    Priority,
    Settings,
    Timers,
)
from transferd.model.notices import Gap, Notice, NoticeKind
from transferd.model.states import JobState
from transferd.wire.answers import Answers, blocker_answer, file_answer, gap_answer, rfc3339
from transferd.wire.api import JobAnswer

NOON = datetime(2026, 1, 31, 12, 0, 0, 500, tzinfo=UTC)
JOB = Job(
    id=JobId("0123abcd-0000-4000-8000-0123456789ab"),
    owner=1000,
    type=JobType.DOWNLOAD,
    settings=Settings(
        name="a job",
        timers=Timers(min_retry_delay=60.0, no_progress_timeout=100.0, max_download_time=200.0),
        priority=Priority.FOREGROUND,
        negotiate=NegotiateOptions(spn="HTTP/www", ntlm=True),
        passport=PassportOptions(realm="r"),
        notify_kinds=0x103,
        notify_command=("/bin/true",),
        header_names=("X-Token",),
        proxy="direct",
    ),
    state=JobState.TRANSIENT_ERROR,
    files_total=2,
    files_transferred=1,
    bytes_total=None,
    bytes_transferred=10,
    credentials=(
        CredentialLabel(target=Target.SERVER, scheme=Scheme.BASIC, username="alice"),
        CredentialLabel(target=Target.SERVER, scheme=Scheme.NEGOTIATE, username=None),
    ),
    error=Failure(code="http_503", message="It is busy.", http_status=503, file="/tmp/a"),
    error_count=3,
    created=NOON,
    modified=NOON,
    transferred_at=None,
    retry_at=1000.0,
)
BLOCKER = Blocker(
    code="retry", text="It waits.", since=NOON, until=NOON + timedelta(minutes=1), remedy="Wait."
)
ANSWERS = Answers(
    owner_name={1000: "alice"}.__getitem__,
    wall_time=lambda steady: NOON + timedelta(seconds=steady - 990),
)


def test_times_are_in_utc_with_milliseconds() -> None:
    """RFC 3339, whatever zone the daemon lives in."""
    east = datetime(2026, 1, 31, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(east) == "2026-01-31T12:00:00.123Z"


def test_a_job_is_told_with_everything_but_its_secrets() -> None:
    """Names instead of numbers; the retry's time is the wall clock's."""
    answer = ANSWERS.job(JOB, [BLOCKER])
    assert msgspec.to_builtins(answer) == {
        "id": JOB.id,
        "name": "a job",
        "description": "",
        "type": "download",
        "priority": "foreground",
        "cost": "default",
        "state": "transient_error",
        "owner": {"uid": 1000, "name": "alice"},
        "files_total": 2,
        "files_transferred": 1,
        "bytes_total": None,
        "bytes_transferred": 10,
        "error": {
            "code": "http_503",
            "context": "remote_file",
            "message": "It is busy.",
            "http_status": 503,
            "file": "/tmp/a",
            "transient": True,
            "missing": [],
        },
        "error_count": 3,
        "credentials": [
            {"target": "server", "scheme": "basic", "username": "alice"},
            {"target": "server", "scheme": "negotiate", "username": None},
        ],
        "headers": ["X-Token"],
        "notify": {"kinds": ["transferred", "error", "ended"], "command": ["/bin/true"]},
        "auto_complete": False,
        "on_error": "keep",
        "overwrite": True,
        "allow_cleartext": False,
        "cacert": None,
        "proxy": "direct",
        "negotiate": {
            "spn": "HTTP/www",
            "proxy_spn": None,
            "keytab": None,
            "principal": None,
            "ccache": None,
            "ntlm": True,
        },
        "passport": {"configuration_url": None, "login_host": None, "realm": "r"},
        "max_size": None,
        "max_rate": None,
        "streams": None,
        "min_retry_delay": 60.0,
        "no_progress_timeout": 100.0,
        "max_download_time": 200.0,
        "created": "2026-01-31T12:00:00.000Z",
        "modified": "2026-01-31T12:00:00.000Z",
        "transferred_at": None,
        "retry_at": "2026-01-31T12:00:10.000Z",
        "blockers": [
            {
                "code": "retry",
                "text": "It waits.",
                "since": "2026-01-31T12:00:00.000Z",
                "until": "2026-01-31T12:01:00.000Z",
                "remedy": "Wait.",
            }
        ],
    }


def test_a_job_without_trouble_has_nulls() -> None:
    """A field is never left out."""
    calm = dataclasses.replace(
        JOB,
        settings=dataclasses.replace(JOB.settings, notify_command=None),
        error=None,
        retry_at=None,
        transferred_at=NOON,
        bytes_total=20,
    )
    answer = ANSWERS.job(calm, [])
    assert (answer.error, answer.retry_at, answer.notify.command) == (None, None, None)
    assert answer.transferred_at == "2026-01-31T12:00:00.000Z"
    assert answer.blockers == []
    assert set(msgspec.to_builtins(answer)) == set(JobAnswer.__struct_fields__)


def test_a_file_is_told_with_its_partial_file() -> None:
    """A program may look at the data before it completes the job."""
    spec = FileSpec(
        remote="http://host/a",
        local="/tmp/a.iso",
        checksum=Checksum(algorithm="md5", digest="00" * 16),
    )
    file = File(index=3, spec=spec, bytes_total=20, bytes_transferred=10, length_unverified=True)
    assert msgspec.to_builtins(file_answer(JOB.id, file)) == {
        "index": 3,
        "remote": "http://host/a",
        "local": "/tmp/a.iso",
        "temporary": f"/tmp/.a.iso.transferd-{JOB.id}",
        "checksum": "md5:" + "00" * 16,
        "bytes_total": 20,
        "bytes_transferred": 10,
        "completed": False,
        "length_unverified": True,
    }
    plain = File(index=0, spec=FileSpec(remote="http://host/a", local="/a"))
    assert file_answer(JOB.id, plain).checksum is None


def notice(kind: NoticeKind, *, settled: bool) -> Notice:
    """A notice of the job."""
    return Notice(
        number=7,
        kind=kind,
        owner=1000,
        job_id=JOB.id,
        job=JOB,
        file=1,
        created=NOON,
        settled=settled,
        deliveries=2,
    )


def test_a_terminal_notice_asks_for_an_acknowledgement_until_it_has_one() -> None:
    """Others are told once."""
    told = ANSWERS.notice(notice(NoticeKind.ERROR, settled=False), [])
    assert (told.number, told.kind, told.file, told.deliveries) == (7, "error", 1, 2)
    assert told.acknowledge
    assert not ANSWERS.notice(notice(NoticeKind.ERROR, settled=True), []).acknowledge
    assert not ANSWERS.notice(notice(NoticeKind.ENDED, settled=True), []).acknowledge


def test_a_modification_has_no_number() -> None:
    """It is not stored, and cannot be replayed or acknowledged."""
    told = ANSWERS.modification(JOB, [BLOCKER])
    assert (told.number, told.kind, told.acknowledge) == (None, "modification", False)
    assert told.job.blockers[0] == blocker_answer(BLOCKER)


def test_a_gap_is_told_with_its_bounds() -> None:
    """The listener reads the list of jobs then."""
    assert msgspec.to_builtins(gap_answer(Gap(after=3, oldest=9))) == {"after": 3, "oldest": 9}
