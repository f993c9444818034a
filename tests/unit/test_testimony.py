"""What a worker may say, and what it may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from transferd.model.credentials import Scheme, Target
from transferd.model.errors import LinkBroken
from transferd.model.failures import FAILURES, Failure
from transferd.model.job import File, FileSpec, Inode, JobId, Part, Validator
from transferd.service.testimony import (
    Heed,
    Question,
    Record,
    RunMessage,
    examine_answer,
    examine_line,
    examine_run,
    legible,
)
from transferd.wire import bounds, chores, link
from transferd.wire.chores import Answer

JOB = JobId("00000000-0000-4000-8000-000000000001")
INODE = Inode(device=2**64 - 1, number=2**64 - 1, born=-(2**63))
#: A kind of message about a run, and what it says: (class, fields).
About = tuple[type[Any], dict[str, Any]]


def about(kind: type[Any], **fields: Any) -> RunMessage:
    """A message about the run."""
    message: RunMessage = kind(JOB, 1, **fields)
    return message


def scattered(*parts: tuple[int, int], offset: int = 5, total: int | None = 100) -> RunMessage:
    """A file that is there up to *offset*, and in parts behind that."""
    found = tuple(Part(start=start, end=end) for start, end in parts)
    return about(link.Durable, file=0, offset=offset, total=total, parts=found)


def failed(
    code: str = "http_404", message: str = "m", wait: float | None = None, **more: Any
) -> RunMessage:
    """A run that has failed."""
    failure = Failure(code=code, message=message, **more)
    return about(link.Failed, failure=failure, retry_after=wait)


def audited(host: str = "h:80", mechanism: str | None = None) -> RunMessage:
    """A credential that was accepted."""
    return about(
        link.Audited,
        accepted=True,
        target=Target.SERVER,
        scheme=Scheme.BASIC,
        host=host,
        mechanism=mechanism,
    )


SOUND: dict[str, RunMessage] = {
    "connected": about(link.Connected),
    "opened": about(link.Opened, file=0, inode=INODE),
    "progress": about(link.Progress, file=0, received=bounds.BYTES, total=bounds.BYTES),
    "progress of no known size": about(link.Progress, file=0, received=9),
    "durable": about(
        link.Durable,
        file=0,
        offset=0,
        total=0,
        validator=Validator(etag="x" * bounds.VALIDATOR, last_modified="", date=None),
    ),
    "durable in parts": scattered((6, 7), (7, 50), (99, 100)),
    "durable in many parts": scattered(*((n, n + 1) for n in range(10, 10 + bounds.PARTS))),
    "sized": about(link.Sized, file=0, total=bounds.BYTES),
    "reset": about(link.Reset, file=0),
    "done": about(link.FileDone, file=0, size=0, inode=INODE, http_status=206),
    "drained": about(link.Drained),
    "stopped": about(link.Stopped),
    "failed": failed(message="x" * bounds.SENTENCE, file="/" * bounds.PATH, http_status=999),
    "failed for a while": failed("http_503", wait=86_400.0),
    "audited": audited("h" * bounds.HOST, "m" * bounds.MECHANISM),
}
UNSOUND: dict[str, RunMessage] = {
    "a negative offset": about(link.Progress, file=0, received=-1),
    "more bytes than a file may have": about(link.Progress, file=0, received=bounds.BYTES + 1),
    "more bytes than there are": about(link.Durable, file=0, offset=2, total=1),
    "a part of no known size": scattered((6, 7), total=None),
    "a part without a hole before it": scattered((5, 7)),
    "a part of the beginning": scattered((0, 3), offset=0),
    "a part of nothing": scattered((7, 7)),
    "a part that ends before it begins": scattered((9, 8)),
    "parts that are not in order": scattered((20, 30), (7, 10)),
    "parts that overlap": scattered((7, 10), (9, 20)),
    "a part behind the end": scattered((90, 101)),
    "more parts than anybody has connections": scattered(
        *((n, n + 1) for n in range(10, 11 + bounds.PARTS))
    ),
    "a negative size": about(link.Sized, file=0, total=-1),
    "a size beyond everything": about(link.FileDone, file=0, size=2**70, inode=INODE),
    "a negative device": about(link.Opened, file=0, inode=Inode(device=-1, number=1)),
    "an inode of 65 bits": about(link.Opened, file=0, inode=Inode(device=1, number=2**64)),
    "a birth of 64 bits": about(
        link.FileDone, file=0, size=1, inode=Inode(device=1, number=1, born=2**63)
    ),
    "a status of four digits": about(link.FileDone, file=0, size=1, inode=INODE, http_status=1000),
    "a long etag": about(
        link.Durable, file=0, offset=1, validator=Validator(etag="x" * (bounds.VALIDATOR + 1))
    ),
    "a long date": about(
        link.Durable, file=0, offset=1, validator=Validator(date="x" * (bounds.VALIDATOR + 1))
    ),
    "an unknown code": failed("magic"),
    "no code": failed(""),
    "a code with a long number": failed("http_" + "9" * 5000),
    "a code with digits of another script": failed("http_\u0664\u0660\u0664"),
    "a code with a sign": failed("http_-40"),
    "a long message": failed(message="x" * (bounds.SENTENCE + 1)),
    "a long path": failed(file="/" * (bounds.PATH + 1)),
    "a long advice": failed(advice="x" * (bounds.SENTENCE + 1)),
    "a negative status": failed(http_status=-1),
    "a negative wait": failed("http_503", wait=-0.5),
    "an endless wait": failed("http_503", wait=float("inf")),
    "a wait that is no number": failed("http_503", wait=float("nan")),
    "a wait of two days": failed("http_503", wait=2 * 86_400.0),
    "a long host": audited("h" * (bounds.HOST + 1)),
    "a host of two lines": audited("h\nauth.accepted owner=0"),
    "a mechanism that steers": audited(mechanism="\x1b[2J"),
}


@pytest.mark.parametrize("name", sorted(SOUND))
def test_what_an_honest_worker_may_say_is_heard(name: str) -> None:
    """All of it, up to every bound."""
    assert examine_run(SOUND[name]) == SOUND[name]


@pytest.mark.parametrize("name", sorted(UNSOUND))
def test_what_no_honest_worker_says_breaks_the_link(name: str) -> None:
    """Nothing of it reaches the queue file, the log or an answer."""
    with pytest.raises(LinkBroken):
        examine_run(UNSOUND[name])


@pytest.mark.parametrize("code", sorted([*FAILURES, "http_000", "http_404", "http_999"]))
def test_every_known_failure_may_be_told(code: str) -> None:
    """What is accepted here has a kind everywhere else."""
    message = examine_run(failed(code))
    assert isinstance(message, link.Failed)
    assert message.failure.kind.advice


def test_texts_for_people_are_made_legible() -> None:
    """Paths in them may have any character; the path itself stays as it is."""
    message = examine_run(failed(message="a\nb\x9bc", advice="d\u2028e", file="/a\nb"))
    assert isinstance(message, link.Failed)
    failure = message.failure
    assert (failure.message, failure.advice, failure.file) == (
        "a\ufffdb\ufffdc",
        "d\ufffde",
        "/a\nb",
    )
    assert legible("Größe: 3 µs, 日本語 \U0001f600") == "Größe: 3 µs, 日本語 \U0001f600"


# ── lines for the log ──────────────────────────────────────────────────────────────────────


def test_a_line_for_the_log_may_have_every_kind_of_value() -> None:
    """As the log itself."""
    said = link.Said("warning", "file.stuck", {"a": 1, "b": "x", "c": True, "d": None, "e": 0.5})
    assert examine_line(said) == said


@pytest.mark.parametrize(
    "said",
    [
        link.Said("critical", "a.b"),
        link.Said("", "a.b"),
        link.Said("info", ""),
        link.Said("info", "a b"),
        link.Said("info", "a.b\nc"),
        link.Said("info", "A.B"),
        link.Said("info", "a" * 65),
        link.Said("info", "a.b", {str(n): n for n in range(bounds.FIELDS + 1)}),
        link.Said("info", "a.b", {"n" * (bounds.NAME + 1): 1}),
        link.Said("info", "a.b", {"n": "x" * (bounds.VALUE + 1)}),
        link.Said("info", "a.b", {"n": 2**64}),
        link.Said("info", "a.b", {"n": -(2**63) - 1}),
    ],
)
def test_a_line_for_the_log_is_bounded(said: link.Said) -> None:
    """In every direction."""
    with pytest.raises(LinkBroken):
        examine_line(said)


# ── answers ────────────────────────────────────────────────────────────────────────────────

INSPECT = Question.of(chores.Inspect(1, ("/a", "/b")))
PUBLISH = Question.of(
    chores.Publish(1, (chores.Publication(7, "/a", "/.a", Inode(device=1, number=1), True),))
)
DISCARD = Question.of(chores.Discard(1, (chores.Leftover(9, "/.a"),)))
COMMAND = Question.of(chores.RunCommand(1, ("/bin/true",), {}, ""))
SURVEY = Question.of(chores.Survey(1, ("/",)))
ASSUME = Question.of(chores.Assume(1, (chores.Holding(3, "/a", "/.a"),), 1001))


def refusing(kind: type[Any], *numbers: int, code: str = "local_busy", text: str = "m") -> Answer:
    """An answer that refuses these numbers."""
    answer: Answer = kind(1, tuple(chores.Refusal(number, code, text) for number in numbers))
    return answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (INSPECT, refusing(chores.Inspected)),
        (INSPECT, refusing(chores.Inspected, 0, 1, code="directory_missing")),
        (ASSUME, refusing(chores.Inspected, 3, code="anything")),
        (PUBLISH, refusing(chores.Published, 7)),
        (DISCARD, refusing(chores.Discarded, 9)),
        (COMMAND, chores.CommandEnded(1, None, "x" * bounds.DETAIL)),
        (COMMAND, chores.CommandEnded(1, -9)),
        (SURVEY, chores.Surveyed(1, ("/.a",))),
    ],
)
def test_an_answer_to_the_question_is_heard(question: Question, answer: Answer) -> None:
    """Refusals are of what was asked about."""
    assert examine_answer(question, answer) == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (None, refusing(chores.Inspected)),
        (INSPECT, refusing(chores.Published)),
        (INSPECT, refusing(chores.Inspected, 2)),
        (INSPECT, refusing(chores.Inspected, -1)),
        (INSPECT, refusing(chores.Inspected, 0, 0)),
        (INSPECT, refusing(chores.Inspected, 0, code="Not A Code")),
        (INSPECT, refusing(chores.Inspected, 0, text="x" * (bounds.SENTENCE + 1))),
        (ASSUME, refusing(chores.Inspected, 0)),
        (PUBLISH, refusing(chores.Published, 0)),
        (PUBLISH, refusing(chores.Published, 7, code="directory_missing")),
        (DISCARD, refusing(chores.Discarded, 7)),
        (COMMAND, chores.CommandEnded(1, 2**31)),
        (COMMAND, chores.CommandEnded(1, 0, "x" * (bounds.DETAIL + 1))),
        (SURVEY, chores.Surveyed(1, ("/" * (bounds.PATH + 1),))),
        (SURVEY, refusing(chores.Discarded)),
    ],
)
def test_an_answer_to_anything_else_breaks_the_link(
    question: Question | None, answer: Answer
) -> None:
    """What keeps a file from its name has a code that a job may fail with."""
    with pytest.raises(LinkBroken):
        examine_answer(question, answer)


# ── runs ───────────────────────────────────────────────────────────────────────────────────


def file(index: int, offset: int = 0) -> File:
    """A file of the run."""
    return File(
        index=index, spec=FileSpec(remote="http://h/", local=f"/{index}"), bytes_transferred=offset
    )


def done(index: int, size: int = 10) -> RunMessage:
    """A file is whole."""
    return about(link.FileDone, file=index, size=size, inode=INODE)


def durable(index: int, offset: int) -> RunMessage:
    """So much of a file is on disk."""
    return about(link.Durable, file=index, offset=offset)


def file_in_parts() -> File:
    """A file with 20 bytes, 5 of them at its beginning."""
    part = Part(start=10, end=25)
    return replace(file(0, 5), bytes_total=100, parts=(part,))


def opened(index: int) -> RunMessage:
    """A file has its temporary."""
    return about(link.Opened, file=index, inode=INODE)


CONNECTED, DRAINED = about(link.Connected), about(link.Drained)
STOPPED, FAILED = about(link.Stopped), failed()
RESET, PROGRESS = about(link.Reset, file=0), about(link.Progress, file=0, received=1)


def given(*files: File) -> Record:
    """A run whose worker was told of these files."""
    record = Record()
    record.give(files)
    return record


def test_a_run_goes_from_start_to_drained_and_on() -> None:
    """What is bounded by the files is news; what can be said for ever is talk."""
    record = given(file(0), file(1, 5))
    story = [
        (CONNECTED, Heed.NEWS),
        (CONNECTED, Heed.NOTHING),
        (opened(0), Heed.NEWS),
        (opened(0), Heed.NOTHING),
        (PROGRESS, Heed.TALK),
        (about(link.Sized, file=0, total=10), Heed.TALK),
        (durable(0, 7), Heed.TALK),
        (durable(0, 7), Heed.TALK),
        (RESET, Heed.TALK),
        (durable(0, 1), Heed.TALK),
        (audited(), Heed.TALK),
        (done(0), Heed.NEWS),
        (opened(1), Heed.NEWS),
        (done(1), Heed.NEWS),
        (DRAINED, Heed.NEWS),
    ]
    assert [record.hear(message) for message, _ in story] == [heed for _, heed in story]
    record.give([file(2)])
    assert record.hear(done(2)) is Heed.NEWS
    assert record.hear(DRAINED) is Heed.NEWS


@pytest.mark.parametrize(
    "said",
    [
        [done(2)],
        [opened(-1)],
        [durable(5, 1)],
        [about(link.Progress, file=9, received=1)],
        [about(link.Reset, file=9)],
        [about(link.Sized, file=9, total=1)],
        [done(0), done(0)],
        [done(0), durable(0, 10)],
        [done(0), RESET],
        [durable(0, 5), durable(0, 4)],
        [durable(1, 4)],
        [done(1, 4)],
        [durable(0, 5), done(0, 4)],
        [DRAINED],
        [done(0), DRAINED],
        [done(0), done(1), DRAINED, DRAINED],
        [STOPPED],
        [RESET] * 65,
    ],
)
def test_what_cannot_be_true_of_the_run_breaks_the_link(said: list[RunMessage]) -> None:
    """Its worker was given files 0, and 1 from the fifth byte on."""
    record = given(file(0), file(1, 5))
    for message in said[:-1]:
        record.hear(message)
    with pytest.raises(LinkBroken):
        record.hear(said[-1])


def test_parts_join_and_grow_in_any_order() -> None:
    """Only how much there is counts, beside how much of it is at the beginning."""
    record = given(file_in_parts())
    for parts, offset in (
        ([(10, 25)], 6),
        ([(10, 20), (40, 50)], 6),
        ([(40, 50)], 20),
        ([], 30),
    ):
        assert record.hear(scattered(*parts, offset=offset)) is Heed.TALK
    assert record.hear(done(0, 30)) is Heed.NEWS


@pytest.mark.parametrize(
    "said",
    [
        scattered((10, 25), offset=4),
        scattered((10, 24), offset=5),
        scattered(offset=19),
        done(0, 19),
    ],
)
def test_no_part_is_lost_unless_the_file_begins_anew(said: RunMessage) -> None:
    """What was on disk stays there."""
    record = given(file_in_parts())
    with pytest.raises(LinkBroken, match="goes back"):
        record.hear(said)
    record = given(file_in_parts())
    record.hear(RESET)
    record.hear(said)


def test_a_worker_has_not_more_files_open_than_a_job_has_streams() -> None:
    """Each of them is a line in the log, for each run."""
    record = given(*map(file, range(70)))
    for index in range(64):
        assert record.hear(opened(index)) is Heed.NEWS
    record.hear(done(0))
    record.hear(opened(64))
    with pytest.raises(LinkBroken, match="open at once"):
        record.hear(opened(65))


def test_nothing_is_done_before_anything_was_given() -> None:
    """A run number can be guessed before Start has arrived."""
    with pytest.raises(LinkBroken):
        Record().hear(DRAINED)


@pytest.mark.parametrize("last", [FAILED, STOPPED])
def test_after_its_end_a_run_has_nothing_more_to_say(last: RunMessage) -> None:
    """Whatever comes then is left unheard."""
    record = given(file(0))
    record.stopped = True
    assert record.hear(last) is Heed.NEWS
    for message in (done(0), DRAINED, FAILED, durable(9, -1)):
        assert record.hear(message) is Heed.NOTHING
