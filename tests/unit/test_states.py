"""The state table is the law."""

from __future__ import annotations

import pytest

from transferd.model.errors import InvalidTransition
from transferd.model.states import FINAL, TRANSITIONS, JobEvent, JobState, advance, mermaid

S, E = JobState, JobEvent


def test_every_state_is_in_the_table() -> None:
    """A state without a row would make every event illegal by accident."""
    assert set(TRANSITIONS) == set(JobState)


def test_every_state_is_reachable_from_suspended() -> None:
    """A job is made suspended (BITS T1); a state that cannot be reached is dead."""
    reached = {S.SUSPENDED}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(JobState)


def test_final_states_have_no_way_out() -> None:
    """Every call on a job that has left the queue is BG_E_INVALID_STATE."""
    assert all(not TRANSITIONS[state] for state in FINAL)
    assert {state for state, moves in TRANSITIONS.items() if not moves} == FINAL


@pytest.mark.parametrize("state", [state for state in JobState if state not in FINAL])
def test_every_living_job_can_be_completed_cancelled_resumed_and_suspended(state: JobState) -> None:
    """BITS 1.3.2: the four verbs are legal in every state that is not final."""
    assert advance(state, E.COMPLETE) is S.ACKNOWLEDGED
    assert advance(state, E.CANCEL) is S.CANCELLED
    assert not advance(state, E.RESUME).final
    assert not advance(state, E.SUSPEND).final


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (S.CONNECTING, E.RESUME, S.CONNECTING),
        (S.TRANSFERRING, E.RESUME, S.TRANSFERRING),
        (S.TRANSFERRED, E.RESUME, S.TRANSFERRED),
        (S.TRANSFERRED, E.SUSPEND, S.TRANSFERRED),
        (S.ERROR, E.SUSPEND, S.ERROR),
        (S.ERROR, E.RESUME, S.QUEUED),
        (S.TRANSFERRING, E.REQUEUE, S.QUEUED),
        (S.TRANSIENT_ERROR, E.RETRY, S.QUEUED),
        (S.TRANSIENT_ERROR, E.FAIL, S.ERROR),
    ],
)
def test_the_choices_where_bits_is_silent_hold(
    state: JobState, event: JobEvent, after: JobState
) -> None:
    """Resume and suspend of a job that runs or is done change nothing; interruptions requeue."""
    assert advance(state, event) is after


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (S.SUSPENDED, E.DISPATCH),
        (S.QUEUED, E.FINISH),
        (S.ERROR, E.RETRY),
        (S.TRANSFERRED, E.DISPATCH),
        (S.CANCELLED, E.RESUME),
        (S.ACKNOWLEDGED, E.CANCEL),
    ],
)
def test_a_missing_entry_is_an_illegal_move(state: JobState, event: JobEvent) -> None:
    """The one exception names the state and the event."""
    with pytest.raises(InvalidTransition, match=f"cannot {event.value} a job that is") as raised:
        advance(state, event)
    assert raised.value.code == "invalid_state"


def test_the_diagram_names_every_state_and_every_event_that_moves() -> None:
    """The picture in the README is drawn from the table."""
    drawn = mermaid()
    moving = {e for s, moves in TRANSITIONS.items() for e, after in moves.items() if after is not s}
    assert all(state.label in drawn for state in JobState)
    assert all(event.value in drawn for event in moving)
