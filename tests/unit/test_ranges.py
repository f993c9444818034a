"""Arithmetic of ranges: what is there of a file, what is missing, and who could begin where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transferd.model.job import File, FileSpec, Part, Validator
from transferd.transfer.ranges import NOTHING, Coverage, Splitting, cover, coverage_of, halve
from transferd.transfer.resume import RangeRequest, Whole, plan

VALIDATOR = Validator(etag='"v"')
SPEC = FileSpec(remote="http://127.0.0.1/f", local="/f")

parts = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
        lambda ends: Part(start=min(ends), end=max(ends))
    ),
    max_size=8,
)


def bytes_of(there: Coverage) -> set[int]:
    """Every byte that is there."""
    found = set(range(there.offset))
    for part in there.parts:
        found |= set(range(part.start, part.end))
    return found


@given(given_parts=parts)
def test_what_is_put_together_is_there_and_nothing_else(given_parts: list[Part]) -> None:
    """In any order, with overlaps; no byte is invented and none is lost."""
    there = cover(given_parts)
    expected = {byte for part in given_parts for byte in range(part.start, part.end)}
    assert bytes_of(there) == expected
    assert there.size == len(expected)
    ends = [there.offset]
    for part in there.parts:
        assert ends[-1] < part.start < part.end
        ends.append(part.end)
    assert there.end == ends[-1]


@given(given_parts=parts, total=st.integers(41, 50))
def test_the_gap_is_the_first_that_is_missing(given_parts: list[Part], total: int) -> None:
    """Whoever fills one gap after the other has the whole file in the end."""
    there = cover(given_parts)
    while (gap := there.gap(total)) is not None:
        assert gap.start == there.offset
        assert not bytes_of(there) & set(range(gap.start, gap.end))
        there = cover(
            [Part(start=0, end=there.offset), *there.parts, Part(start=gap.start, end=gap.end)]
        )
    assert there == Coverage(offset=total)


def test_parts_that_cannot_be_told_are_left_out() -> None:
    """The queue keeps so many; what is not kept is fetched again."""
    three = tuple(Part(start=10 * n, end=10 * n + 5) for n in range(1, 4))
    there = Coverage(offset=3, parts=three)
    assert there.limited(2) == Coverage(offset=3, parts=three[:2])
    assert NOTHING.gap(0) is None


def test_a_file_with_parts_goes_on_at_its_first_hole() -> None:
    """Only the hole is asked for; with none left nothing is."""
    file = File(
        index=0,
        spec=SPEC,
        bytes_total=100,
        bytes_transferred=10,
        parts=(Part(start=40, end=100),),
        validator=VALIDATOR,
    )
    assert coverage_of(file).size == 70
    asked = plan(file)
    assert asked == RangeRequest(offset=10, if_range='"v"', last=39)
    assert asked.headers["Range"] == "bytes=10-39"


def test_a_file_that_is_there_up_to_its_end_needs_no_request() -> None:
    """All bytes of one version are the file."""
    file = File(index=0, spec=SPEC, bytes_total=9, bytes_transferred=9, validator=VALIDATOR)
    assert plan(file) == Whole(size=9)


def test_parts_beyond_the_end_are_no_parts() -> None:
    """A file that has become shorter starts from zero."""
    file = File(
        index=0,
        spec=SPEC,
        bytes_total=50,
        parts=(Part(start=40, end=60),),
        validator=VALIDATOR,
    )
    assert plan(file) is None


def test_the_largest_part_is_halved() -> None:
    """Where most is left somebody else can help most; nobody begins for too little."""
    open_parts = [Part(start=0, end=10), Part(start=20, end=60)]
    assert halve(open_parts, 20) == (1, 40)
    assert halve(open_parts, 21) is None
    assert halve([], 1) is None


def test_a_connection_must_pay() -> None:
    """It must be worth the time that is left, and bring a gain that was measured."""
    splitting = Splitting(rest=3.0, gain=1.15)
    assert splitting.pays(300, 100.0)
    assert not splitting.pays(299, 100.0)
    assert not splitting.pays(300, 0.0)
    assert splitting.paid(100.0, 115.0)
    assert not splitting.paid(100.0, 114.0)
