"""Tickets that end between one token and the next: what MIT tolerates of that, and what not."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.realm import GET, NEGOTIATE, Realm, own, token_of
from transferd.auth.flow import Attempt, CannotStart, Conversation, NotMutual, Reply
from transferd.auth.negotiate import NegotiateSession

LIFE = timedelta(seconds=2)


@pytest.fixture
def ticket(realm: Realm) -> Path:
    """A ticket cache whose ticket ends soon."""
    return realm.kdc.kinit(lifetime=LIFE)


def begun(talker: NegotiateSession) -> tuple[Conversation, Attempt]:
    """Begin a conversation; returns its first step besides."""
    talk = talker.converse(GET, NEGOTIATE)
    step = next(talk)
    assert isinstance(step, Attempt)
    return talk, step


def let_it_end() -> None:
    """Wait until a ticket has ended: nothing but time does that, and MIT counts whole seconds."""
    time.sleep(LIFE.total_seconds() + 1)


def falsified(reply: Reply) -> Reply:
    """Return *reply* with another final token."""
    (line,) = reply.authenticate
    token = bytearray(base64.b64decode(line.removeprefix("Negotiate ")))
    token[-1] ^= 1
    return replace(reply, authenticate=(f"Negotiate {base64.b64encode(token).decode()}",))


def test_what_is_under_way_outlives_its_ticket_and_nothing_else_does(
    realm: Realm, ticket: Path
) -> None:
    """The client is strict about the end, the server lenient (clockskew): none is retried in vain.

    A server that answers late proves itself all the same, and who cannot is refused as ever.
    """
    talker = own(ccache=f"FILE:{ticket}")
    acceptor = realm.acceptor()
    slow, sent = begun(talker)
    late, token = begun(talker)
    false, other = begun(talker)
    proof, forgery = acceptor.reply(sent), falsified(acceptor.reply(other))
    let_it_end()
    with pytest.raises(StopIteration):
        slow.send(proof)
    with pytest.raises(StopIteration):
        late.send(acceptor.reply(token))
    with pytest.raises(NotMutual, match="did not prove that it is HTTP/localhost"):
        false.send(forgery)
    with pytest.raises(CannotStart, match="the ticket has expired"):
        begun(talker)
    assert acceptor.errors == []
    realm.kdc.kinit(ccache=ticket)
    _, renewed = begun(talker)
    assert token_of(renewed) != token_of(sent)
