"""An honest worker keeps within what the daemon takes, whatever servers and paths are like."""

from __future__ import annotations

from typing import Any

import pytest

from transferd.model.credentials import Scheme, Target
from transferd.model.failures import Failure
from transferd.model.job import JobId
from transferd.service.testimony import Question, examine_answer, examine_line, examine_run
from transferd.wire import bounds, chores, codec, link
from transferd.wire.message import Message

JOB = JobId("00000000-0000-4000-8000-000000000001")
LONG = "\x01" * 100_000


def sizes(items: list[int]) -> list[list[int]]:
    """Split items that are as large as they say."""
    return [list(batch) for batch in bounds.questions(items, lambda size: size)]


def test_questions_are_split_by_number_and_by_names() -> None:
    """Nothing is left out, and one large item is a question of its own."""
    large = bounds.QUESTION_NAMES
    assert sizes([]) == []
    assert sizes([1, 2, 3]) == [[1, 2, 3]]
    assert sizes([large * 2, 1]) == [[large * 2], [1]]
    assert sizes([1, large, large - 1, 1, 1]) == [[1], [large], [large - 1, 1], [1]]
    assert [len(batch) for batch in sizes([1] * 2500)] == [1000, 1000, 500]


def test_the_largest_honest_answer_fits_into_a_line() -> None:
    """Everything is refused, in sentences that name each path twice, with every byte escaped."""
    name = "\x01" * 31
    paths = [f"/{name}"] * 1024
    batch = next(bounds.questions(paths, lambda path: len(path.encode())))
    sentence = f"cannot give {name} its name: {name} is " + "x" * 200
    refusals = tuple(
        chores.Refusal(n, "local_directory_missing", sentence) for n in range(len(batch))
    )
    assert len(codec.encode(chores.Published(2**53, refusals))) < bounds.LINE


def test_what_was_cut_to_fit_is_believed() -> None:
    """Texts that a server, a path or a command may have made are as long as they like."""
    failure = Failure(code="http_404", message=LONG, file=LONG, advice=LONG)
    messages: list[Any] = [
        link.Failed(JOB, 1, failure),
        link.Audited(JOB, 1, True, Target.SERVER, Scheme.BASIC, "h" * 1000, "m" * 1000),
    ]
    for message in messages:
        examine_run(bounds.bounded(message))  # type: ignore[arg-type]
    fields: dict[str, Any] = {f"{n}{'n' * 100}": LONG for n in range(100)}
    said = bounds.bounded(link.Said("info", "a.b", fields))
    assert isinstance(said, link.Said)
    examine_line(said)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (chores.Inspect(1, ("/a",)), chores.Inspected(1, (chores.Refusal(0, "c", LONG),))),
        (chores.RunCommand(1, (), {}, ""), chores.CommandEnded(1, 1, LONG)),
        (chores.Survey(1, ("/",)), chores.Surveyed(1, ("/" + "\x01" * 4000,) * 1000)),
    ],
)
def test_an_answer_that_was_cut_to_fit_is_believed(question: chores.Chore, answer: Message) -> None:
    """And it is one line."""
    cut: Any = bounds.bounded(answer)
    examine_answer(Question.of(question), cut)
    assert len(codec.encode(cut)) < bounds.LINE


def test_what_fits_stays_as_it_is() -> None:
    """Only what is too long is touched."""
    message = link.Failed(JOB, 1, Failure(code="http_404", message="it is gone", file="/a"))
    assert bounds.bounded(message) == message
    assert bounds.cut("abc", 3) == "abc"
    assert bounds.cut("abcd", 3) == "ab…"
