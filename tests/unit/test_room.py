"""How connections and bodies are shared out between callers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.api.room import FREE_BYTES, Bodies, Room
from transferd.model.errors import Unavailable

LARGEST = 10 * FREE_BYTES


def fill(room: Room, uid: int) -> int:
    """Let somebody take all that he can; returns how many connections that is."""
    while room.admits(uid):
        room.enter(uid)
    return room.held(uid)


def test_nobody_holds_more_than_he_leaves_free() -> None:
    """The first gets a half, the second one a half of the rest; operators find a reserve."""
    room = Room(1024)
    assert [fill(room, uid) for uid in range(1, 8)] == [480, 240, 120, 60, 30, 15, 8]
    taken = sum(room.held(uid) for uid in range(1, 8))
    for _ in range(1024 - taken):
        assert not room.full
        room.enter(0)
    assert room.full


@given(st.integers(16, 4096), st.lists(st.integers(1, 5), max_size=60))
def test_whoever_comes_later_finds_room(most: int, greedy: list[int]) -> None:
    """As long as those before him are fewer than connections can be halved."""
    room = Room(most)
    uids = list(dict.fromkeys(greedy))
    for uid in greedy:
        fill(room, uid)
    if 2 ** (len(uids) + 1) < most:
        assert fill(room, 99) >= 1


@given(st.integers(1, 200), st.integers(1, 50))
def test_who_leaves_makes_room_again(most: int, count: int) -> None:
    """Nothing is kept of somebody who has gone."""
    room = Room(most)
    for _ in range(count):
        room.enter(1)
    for _ in range(count):
        room.leave(1)
    assert room.held(1) == 0
    assert fill(room, 1) == fill(Room(most), 1)


def test_bodies_of_one_caller_are_no_larger_than_the_largest() -> None:
    """One hostile user holds one body's worth of memory, however many connections he has."""
    bodies = Bodies()
    first, second, other = bodies.ration(1), bodies.ration(1), bodies.ration(2)
    first.take(LARGEST // 2, LARGEST)
    with pytest.raises(Unavailable) as refused:
        second.take(LARGEST, LARGEST)
    assert refused.value.code == "too_much_at_once"
    other.take(LARGEST, LARGEST)
    second.close()
    third = bodies.ration(1)
    third.take(LARGEST // 2, LARGEST)
    for ration in (first, third, other):
        ration.close()
    bodies.ration(1).take(LARGEST, LARGEST)


def test_bodies_of_all_callers_are_bounded() -> None:
    """However many users conspire; small requests are served all the same."""
    bodies = Bodies()
    for uid in range(4):
        bodies.ration(uid).take(LARGEST + FREE_BYTES, LARGEST)
    with pytest.raises(Unavailable) as refused:
        bodies.ration(9).take(FREE_BYTES + 1, LARGEST)
    assert refused.value.code == "too_much_at_once"
    bodies.ration(0).take(FREE_BYTES, LARGEST)


@given(st.lists(st.integers(0, 3 * FREE_BYTES), max_size=9))
def test_a_body_that_comes_in_pieces_counts_as_one(pieces: list[int]) -> None:
    """Its first bytes are free once, not once for each piece."""
    bodies = Bodies()
    ration = bodies.ration(1)
    total = 0
    for piece in pieces:
        total += piece
        largest = max(1, total - FREE_BYTES)
        ration.take(piece, largest)
    if total > FREE_BYTES + 1:
        with pytest.raises(Unavailable):
            ration.take(1, total - FREE_BYTES)
