"""What is asked for the rest of a file, and what is kept of the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transferd.model.job import Checksum, File, FileSpec, Validator
from transferd.transfer.resume import (
    Append,
    Complete,
    Fresh,
    RangeRequest,
    Refused,
    Response,
    Restart,
    Verdict,
    Whole,
    changed,
    condition,
    judge,
    plan,
    recheck,
)

SPEC = FileSpec(remote="https://files.example/a.iso?sig=hunter2", local="/home/alice/a.iso")
MODIFIED = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:37 GMT"
TAGGED = Validator(etag='"v1"', last_modified=MODIFIED, date=LATER)
DATED = Validator(last_modified=MODIFIED, date=LATER)
PART = File(index=0, spec=SPEC, bytes_total=10, bytes_transferred=4, validator=TAGGED)
ASKED = RangeRequest(offset=4, if_range='"v1"')
HONEST = Response(status=206, validator=TAGGED, content_range="bytes 4-9/10", content_length=6)


def refused(verdict: Verdict) -> str:
    """Return the code of a refusal."""
    assert isinstance(verdict, Refused)
    assert verdict.failure.file == SPEC.local
    assert verdict.failure.message.startswith("cannot fetch https://files.example/a.iso: ")
    return verdict.failure.code


# ── the condition ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("validator", "if_range"),
    [
        (None, None),
        (Validator(), None),
        (Validator(etag='"v1"'), '"v1"'),
        (TAGGED, '"v1"'),
        (Validator(etag='""'), '""'),
        (DATED, MODIFIED),
        (replace(DATED, etag='W/"v1"'), None),
        (replace(DATED, etag="v1"), MODIFIED),
        (replace(DATED, etag='"v 1"'), MODIFIED),
        (replace(DATED, etag='"a", "b"'), MODIFIED),
        (replace(DATED, etag='"ü"'), MODIFIED),
        (replace(DATED, date=MODIFIED), None),
        (replace(DATED, date=None), None),
        (replace(DATED, date="yesterday"), None),
        (Validator(last_modified="yesterday", date=LATER), None),
    ],
)
def test_only_a_strong_validator_is_a_condition(
    validator: Validator | None, if_range: str | None
) -> None:
    """RFC 9110 13.1.5, 8.8.2.2: no weak tag, no date beside a tag, no date of the same second."""
    assert condition(validator) == if_range


# ── the plan ───────────────────────────────────────────────────────────────────────────────


def test_a_part_is_continued_under_its_version() -> None:
    """DESIGN 3: Range on resume, guarded by If-Range."""
    assert plan(PART) == ASKED
    assert ASKED.headers == {"Range": "bytes=4-", "If-Range": '"v1"'}


@pytest.mark.parametrize(
    "file",
    [
        replace(PART, bytes_transferred=0),
        replace(PART, bytes_transferred=11),
        replace(PART, bytes_total=None),
        replace(PART, validator=None),
        replace(PART, validator=Validator(etag='W/"v1"')),
        replace(PART, bytes_transferred=0, bytes_total=0),
    ],
)
def test_everything_else_starts_from_zero(file: File) -> None:
    """Nothing on disk, no length, or no version: the whole file is asked for."""
    assert plan(file) is None


@pytest.mark.parametrize("validator", [TAGGED, None])
def test_a_file_with_all_its_bytes_is_not_asked_for_again(validator: Validator | None) -> None:
    """A crash between the last byte and its record costs no request, only a verification."""
    whole = replace(PART, bytes_transferred=10, validator=validator)
    assert plan(whole) == Whole(size=10)


# ── the judgement of a part ────────────────────────────────────────────────────────────────


def test_an_honest_part_is_appended() -> None:
    """The only way to put bytes together."""
    assert judge(PART, ASKED, HONEST) == Append(start=4, end=10, total=10)


def test_a_shorter_part_is_appended_up_to_its_end() -> None:
    """RFC 9110 15.3.7: a server may send less than was asked."""
    answer = replace(HONEST, content_range="Bytes 4-7/10", content_length=None)
    assert judge(PART, ASKED, answer) == Append(start=4, end=8, total=10)


def test_a_part_under_a_date_is_appended() -> None:
    """Without entity tags the date does the same."""
    request = RangeRequest(offset=4, if_range=MODIFIED)
    answer = replace(HONEST, validator=replace(DATED, date="Mon, 07 Nov 1994 08:49:37 GMT"))
    assert isinstance(judge(replace(PART, validator=DATED), request, answer), Append)


LIES: dict[str, Response] = {
    "no range": replace(HONEST, content_range=None),
    "another unit": replace(HONEST, content_range="lines 4-9/10"),
    "not a range": replace(HONEST, content_range="bytes 4-/10"),
    "no total": replace(HONEST, content_range="bytes 4-9/*"),
    "two ranges": replace(HONEST, content_range="bytes 4-6/10, bytes 7-9/10"),
    "unsatisfied": replace(HONEST, content_range="bytes */10"),
    "backwards": replace(HONEST, content_range="bytes 4-3/10"),
    "overlapping": replace(HONEST, content_range="bytes 3-9/10", content_length=7),
    "a gap": replace(HONEST, content_range="bytes 5-9/10", content_length=5),
    "from zero": replace(HONEST, content_range="bytes 0-9/10", content_length=10),
    "past its end": replace(HONEST, content_range="bytes 4-10/10", content_length=7),
    "another total": replace(HONEST, content_range="bytes 4-9/11"),
    "huge": replace(HONEST, content_range="bytes 4-9/" + "9" * 5000),
    "other digits": replace(HONEST, content_range="bytes ٤-9/10"),
    "another length": replace(HONEST, content_length=5),
    "several parts": replace(HONEST, content_type="Multipart/Byteranges; boundary=x"),
    "encoded": replace(HONEST, content_encoding="gzip"),
    "another version": replace(HONEST, validator=replace(TAGGED, etag='"v2"')),
    "a weak version": replace(HONEST, validator=replace(TAGGED, etag='W/"v1"')),
    "no version": replace(HONEST, validator=Validator()),
    "a date instead of a tag": replace(HONEST, validator=DATED),
}


@pytest.mark.parametrize("name", LIES)
def test_nothing_is_kept_of_a_lying_part(name: str) -> None:
    """LESSONS 6.6: the connection is dropped, nothing is written at a wrong place."""
    verdict = judge(PART, ASKED, LIES[name])
    assert isinstance(verdict, Restart)
    assert verdict.drop


def test_a_part_of_another_date_is_not_kept() -> None:
    """A server that ignores If-Range is found out by the date, and by a date left out."""
    request = RangeRequest(offset=4, if_range=MODIFIED)
    file = replace(PART, validator=DATED)
    other = replace(HONEST, validator=Validator(last_modified=LATER))
    assert isinstance(judge(file, request, other), Restart)
    assert isinstance(judge(file, request, replace(other, validator=Validator())), Restart)


def test_a_part_that_nobody_asked_for_is_an_error() -> None:
    """206 to a request without Range says nothing about what is missing."""
    assert refused(judge(PART, None, HONEST)) == "protocol_error"


# ── the judgement of everything else ───────────────────────────────────────────────────────


@pytest.mark.parametrize("request_", [ASKED, None])
def test_a_whole_answer_starts_the_file_anew(request_: RangeRequest | None) -> None:
    """DESIGN 3: 200 to a range request restarts from zero with this very body; no error."""
    answer = Response(status=200, validator=TAGGED, content_length=12)
    assert judge(PART, request_, answer) == Fresh(total=12, length_unverified=False)


@pytest.mark.parametrize(
    ("length", "chunked", "checksum", "total", "unverified"),
    [
        (12, False, False, 12, False),
        (0, False, False, 0, False),
        (None, True, False, None, False),
        (12, True, False, None, False),
        (None, False, False, None, True),
        (None, False, True, None, False),
    ],
)
def test_only_a_body_that_ends_with_its_connection_is_unverified(
    length: int | None, chunked: bool, checksum: bool, total: int | None, unverified: bool
) -> None:
    """DESIGN 3: a checksum lifts the mark; chunked framing has an end of its own."""
    expected = Checksum(algorithm="md5", digest="0" * 32) if checksum else None
    file = File(index=0, spec=replace(SPEC, checksum=expected))
    answer = Response(
        status=200, validator=Validator(), content_length=length, transfer_chunked=chunked
    )
    assert judge(file, None, answer) == Fresh(total=total, length_unverified=unverified)


@pytest.mark.parametrize("coding", ["gzip", "identity, br", "x"])
def test_an_encoded_file_is_refused(coding: str) -> None:
    """LESSONS 4.5: its length and its ranges are those of other bytes."""
    answer = Response(status=200, validator=TAGGED, content_encoding=coding)
    assert refused(judge(PART, None, answer)) == "content_encoded"


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_identity_is_no_encoding(coding: str) -> None:
    """Some servers say that they did nothing."""
    answer = Response(status=200, validator=TAGGED, content_encoding=coding)
    assert isinstance(judge(PART, None, answer), Fresh)


def test_an_unsatisfied_range_starts_again_without_a_range() -> None:
    """BITS 1.7: 416 on resume is a changed file, not a failure."""
    for found in ("bytes */4", "bytes */3", "bytes */10", "nonsense", None):
        answer = Response(status=416, validator=TAGGED, content_range=found)
        verdict = judge(PART, ASKED, answer)
        assert isinstance(verdict, Restart)
        assert not verdict.drop


def test_an_unsatisfied_range_at_the_known_end_is_the_end() -> None:
    """Asked from its very end, a file of the known size has nothing left to send."""
    answer = Response(status=416, validator=Validator(), content_range="bytes */4")
    whole = replace(PART, bytes_total=4)
    assert judge(whole, ASKED, answer) == Complete(size=4)


def test_an_end_that_was_not_known_must_be_of_the_same_version() -> None:
    """A later version that is as long as the part on disk is not the file."""
    open_ended = replace(PART, bytes_total=None)
    answer = Response(status=416, validator=TAGGED, content_range="bytes */4")
    assert judge(open_ended, ASKED, answer) == Complete(size=4)
    for other in (Validator(), replace(TAGGED, etag='"v2"')):
        assert isinstance(judge(open_ended, ASKED, replace(answer, validator=other)), Restart)


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(416, "Range Not Satisfiable)"), (404, "(Not Found)"), (299, ""), (503, "")],
)
def test_any_other_status_is_a_failure_of_that_name(status: int, phrase: str) -> None:
    """The failure table knows every status; the message says it in words."""
    verdict = judge(PART, None, Response(status=status, validator=Validator()))
    assert refused(verdict) == f"http_{status}"
    assert isinstance(verdict, Refused)
    assert verdict.failure.http_status == status
    assert phrase in verdict.failure.message


# ── properties: a remote file that changes, and servers of any kind ────────────────────────

FIELDS = {
    "status": st.sampled_from([200, 206, 206, 206, 416, 404, 503]),
    "validator": st.sampled_from([TAGGED, DATED, Validator(), Validator(etag='"v2"')]),
    "content_range": st.none()
    | st.sampled_from(["bytes */4", "bytes 4-9/*", "bytes 4-9/10"])
    | st.builds("bytes {}-{}/{}".format, st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
    | st.text(max_size=20),
    "content_length": st.none() | st.integers(0, 12),
    "content_encoding": st.sampled_from([None, "identity", "gzip"]),
    "content_type": st.sampled_from([None, "text/plain", "multipart/byteranges"]),
    "transfer_chunked": st.booleans(),
}


@given(st.builds(Response, **FIELDS), st.sampled_from([10, None]))
def test_whatever_a_server_answers_only_the_asked_bytes_are_appended(
    answer: Response, total: int | None
) -> None:
    """Append means: from the offset, of the version, of the known size, as they are."""
    verdict = judge(replace(PART, bytes_total=total), ASKED, answer)
    if isinstance(verdict, Append):
        assert answer.status == 206
        assert verdict.start == 4 < verdict.end <= verdict.total
        assert total in (None, verdict.total)
        assert answer.validator.etag == '"v1"'
        assert answer.content_encoding != "gzip"
        assert answer.content_type != "multipart/byteranges"


@given(st.builds(Response, **FIELDS))
def test_a_request_without_a_range_is_never_answered_by_a_restart(answer: Response) -> None:
    """So a file starts over once at most, whatever the server does."""
    assert isinstance(judge(PART, None, answer), Fresh | Refused)


@dataclass(frozen=True)
class Version:
    """The remote file during some time."""

    body: bytes
    #: In tenths of a second.
    changed: int
    tag: str | None


@dataclass(frozen=True)
class Visit:
    """One request: when it is made, how the server behaves, how far its body gets."""

    pause: int
    honours_if_range: bool
    sends: int
    breaks_after: int
    chunked: bool


EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
VISITS = st.lists(
    st.builds(
        Visit,
        pause=st.integers(0, 8),
        honours_if_range=st.booleans(),
        sends=st.sampled_from([9, 9, 1]),
        breaks_after=st.integers(1, 8),
        chunked=st.sampled_from([False, False, True]),
    ),
    min_size=2,
    max_size=8,
)


@st.composite
def histories(draw: st.DrawFn) -> list[Version]:
    """Versions of one file, told apart by every byte, under strong, weak or no tags.

    Strong ones are true; the weak one is always the same, and so are dates within a second.
    """
    tag = draw(st.sampled_from(['"{}"', 'W/"x"', None]))
    changes = draw(st.lists(st.integers(0, 25), min_size=1, max_size=6, unique=True))
    return [
        Version(
            body=bytes([65 + number]) * draw(st.sampled_from([4, 4, 4, 1, 7])),
            changed=moment,
            tag=tag and tag.format(number),
        )
        for number, moment in enumerate(sorted(changes))
    ]


def second(tenths: int) -> str:
    """The HTTP date of a moment: whole seconds, as a file server has them."""
    return format_datetime(EPOCH + timedelta(seconds=tenths // 10), usegmt=True)


def serve(version: Version, now: int, visit: Visit, request: RangeRequest | None) -> Response:
    """Answer as a server that tells the truth, but may ignore If-Range, chunk, or send less."""
    validator = Validator(etag=version.tag, last_modified=second(version.changed), date=second(now))
    size = len(version.body)
    current = request is not None and request.if_range in (version.tag, second(version.changed))
    if request is None or (visit.honours_if_range and not current):
        length = None if visit.chunked else size
        return Response(
            status=200,
            validator=validator,
            content_length=length,
            transfer_chunked=visit.chunked,
        )
    if request.offset >= size:
        return Response(status=416, validator=Validator(), content_range=f"bytes */{size}")
    last = min(size, request.offset + visit.sends) - 1
    return Response(
        status=206,
        validator=validator,
        content_range=f"bytes {request.offset}-{last}/{size}",
        content_length=last + 1 - request.offset,
    )


def take(disk: bytes, file: File, verdict: Verdict, version: Version, visit: Visit) -> bytes:
    """Return what a worker has on disk after the answer, cut where the connection breaks."""
    if isinstance(verdict, Append):
        return disk + version.body[verdict.start : verdict.end][: visit.breaks_after]
    if isinstance(verdict, Fresh):
        return version.body[: visit.breaks_after]
    return b"" if isinstance(verdict, Restart) else disk


@settings(max_examples=300)
@given(histories(), VISITS)
def test_the_bytes_on_disk_are_always_of_one_version(
    history: list[Version], visits: list[Visit]
) -> None:
    """DESIGN 1.1: no mixed file, ever, while servers tell the truth about their versions."""
    now, disk, file = history[0].changed, b"", File(index=0, spec=SPEC)
    for visit in visits:
        now += visit.pause
        version = [known for known in history if known.changed <= now][-1]
        asked = plan(file)
        if isinstance(asked, Whole):
            break
        answer = serve(version, now, visit, asked)
        verdict = judge(file, asked, answer)
        disk = take(disk, file, verdict, version, visit)
        if isinstance(verdict, Fresh):
            file = replace(file, bytes_total=verdict.total, validator=answer.validator)
        file = replace(file, bytes_transferred=len(disk))
        sources = [known for known in history if known.body.startswith(disk)]
        assert sources, disk
    if isinstance(plan(file), Whole):
        assert any(known.body == disk for known in history)


@given(histories())
def test_the_simulation_does_resume(history: list[Version]) -> None:
    """The property above is worth something: files that do not change are continued."""
    version = history[0]
    assume(len(version.body) > 2 and version.tag != 'W/"x"')
    now = version.changed + 20
    first = Visit(pause=0, honours_if_range=True, sends=12, breaks_after=2, chunked=False)
    answer = serve(version, now, first, None)
    file = File(
        index=0,
        spec=SPEC,
        bytes_total=len(version.body),
        bytes_transferred=2,
        validator=answer.validator,
    )
    asked = plan(file)
    assert isinstance(asked, RangeRequest)
    verdict = judge(file, asked, serve(version, now, first, asked))
    assert verdict == Append(start=2, end=len(version.body), total=len(version.body))


@pytest.mark.parametrize(
    ("status", "etag", "told"),
    [
        (206, '"v1"', False),
        (206, '"v2"', True),
        (206, None, True),
        (200, '"v1"', False),
        (200, '"v2"', True),
        (416, None, True),
        (404, None, False),
        (503, None, False),
    ],
)
def test_an_answer_to_a_recheck_tells_of_a_change_or_of_nothing(
    status: int, etag: str | None, told: bool
) -> None:
    """Only an answer about the file is a reason to fetch it anew."""
    file = replace(PART, bytes_total=10, validator=Validator(etag='"v1"'))
    request = recheck(file)
    assert request is not None
    assert request.headers == {"Range": "bytes=9-", "If-Range": '"v1"'}
    assert changed(request, Response(status=status, validator=Validator(etag=etag))) is told


@pytest.mark.parametrize("total", [None, 0])
def test_what_cannot_be_recognised_is_not_rechecked(total: int | None) -> None:
    """Without a byte or a validator there is nothing to ask for."""
    known = Validator(etag='"v1"')
    assert recheck(replace(PART, bytes_total=total, validator=known)) is None
    assert recheck(replace(PART, bytes_total=10, validator=None)) is None
