"""NTLM: pyspnego's acceptor at the other end, what goes over the wire, and garbage."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gss_acceptors import HASH_LIKE, NtlmAcceptor, converse, ntlm_users
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    CannotStart,
    Conversation,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.ntlm import NtlmSession, usable
from transferd.model.credentials import Credential, Scheme, Secret, Target

PASSWORD = "opensesame"
BINDING = b"tls-server-end-point:" + bytes(range(32))
OTHER_BINDING = b"tls-server-end-point:" + bytes(32)
GET = RequestLine(method="GET", target="/a", url="http://files.test/a")
GET_TLS = replace(GET, url="https://files.test/a", channel_binding=BINDING)
NTLM = Challenge(scheme="ntlm")
ASKED = Reply(status=401, authenticate=("NTLM",))


@pytest.fixture(autouse=True, scope="module")
def _users() -> Iterator[None]:
    with ntlm_users():
        yield


def session(
    username: str = "CORP\\alice", password: str = PASSWORD, *, target: Target = Target.SERVER
) -> NtlmSession:
    """Make a session at files.test."""
    credential = Credential(
        target=target, scheme=Scheme.NTLM, username=username, password=Secret(password)
    )
    return NtlmSession(credential, Place(host="files.test", randomness=bytes))


def sent(step: object) -> bytes:
    """Return the token of an attempt."""
    assert isinstance(step, Attempt)
    assert step.authorization is not None
    scheme, token = step.authorization.split(" ")
    assert scheme == "NTLM"
    return base64.b64decode(token, validate=True)


def challenged(token: bytes) -> Reply:
    """Make a 401 with a message in it."""
    return Reply(status=401, authenticate=(f"NTLM {base64.b64encode(token).decode()}",))


def type2(pairs: bytes = b"", *, flags: int = 0x628A8205) -> bytes:
    """Write a challenge with that description of its target (MS-NLMP 2.2.1.2)."""
    info = pairs + bytes(4)
    header = b"NTLMSSP\0\2\0\0\0" + struct.pack("<HHI", 0, 0, 56)
    return (
        header
        + struct.pack("<I", flags)
        + b"serverch"
        + bytes(8)
        + struct.pack("<HHI", len(info), len(info), 56)
        + bytes(8)
        + info
    )


def av(kind: int, value: bytes) -> bytes:
    """Write one AV_PAIR."""
    return struct.pack("<HH", kind, len(value)) + value


def field(message: bytes, at: int) -> bytes:
    """Return the field of a message whose length and offset stand at *at*."""
    size, _, offset = struct.unpack_from("<HHI", message, at)
    return message[offset : offset + size]


def pairs_of(message: bytes) -> dict[int, bytes]:
    """Return the AV_PAIRs of the NTLMv2 response in a type 3 message (MS-NLMP 2.2.2.7)."""
    found: dict[int, bytes] = {}
    at, blob = 0, field(message, 20)[16 + 28 :]
    while True:
        kind, size = struct.unpack_from("<HH", blob, at)
        if kind == 0:
            return found
        found[kind] = blob[at + 4 : at + 4 + size]
        at += 4 + size


def type3(talk: Conversation, challenge: bytes | None = None) -> bytes:
    """Carry a conversation to its last message and return that."""
    next(talk)
    return sent(talk.send(challenged(challenge or type2(av(7, bytes(8))))))


# ── who gets in ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("CORP\\alice", PASSWORD),
        ("alice@corp.test", PASSWORD),
        ("bob", PASSWORD),
        ("BOB", PASSWORD),
        ("jürgen", 'p-ä, "q\\ ß日本€'),
        ("ju\u0308rgen", 'p-a\u0308, "q\\ ß日本€'),
        ("carol", HASH_LIKE),
        ("dave", "with:colon"),
    ],
)
def test_the_right_password_is_admitted_and_a_wrong_one_is_not(
    username: str, password: str
) -> None:
    """Every form of a name (NT8), every text as password; one attempt for a wrong one."""
    acceptor = NtlmAcceptor()
    converse(session(username, password), acceptor, request=GET, challenge=NTLM)
    assert acceptor.user is not None
    refusing = NtlmAcceptor()
    with pytest.raises(AuthRejected, match="refused user name or password of"):
        converse(session(username, password + "x"), refusing, request=GET, challenge=NTLM)
    assert len(refusing.tokens) == 2


@pytest.mark.parametrize(
    ("username", "domain", "user"),
    [
        ("CORP\\alice", "CORP", "alice"),
        ("corp\\Alice", "corp", "Alice"),
        ("alice@corp.test", "", "alice@corp.test"),
        ("bob", "", "bob"),
    ],
)
def test_each_form_of_a_user_name_goes_out_as_it_should(
    username: str, domain: str, user: str
) -> None:
    """NT8: a domain before a backslash, none with `@`; the case is kept."""
    message = type3(session(username).converse(GET, NTLM))
    assert field(message, 28).decode("utf-16-le") == domain
    assert field(message, 36).decode("utf-16-le") == user


def test_the_legs_are_pinned_from_the_challenge_on() -> None:
    """NT1: whatever connection the first leg takes, the last goes where the challenge came from."""
    attempts = converse(session(), NtlmAcceptor(), request=GET, challenge=NTLM)
    assert [attempt.pinned for attempt in attempts] == [False, True]


def test_a_later_request_relies_on_its_connection_first() -> None:
    """A token is never sent twice, nor unasked: on a known connection either would be refused."""
    talker, connection = session(), NtlmAcceptor()
    converse(talker, connection, request=GET, challenge=NTLM)
    assert [a.authorization for a in converse(talker, connection, request=GET)] == [None]
    other = NtlmAcceptor()
    assert len(converse(talker, other, request=GET)) == 3
    assert other.user == "CORP\\alice"
    assert len(set(connection.tokens + other.tokens)) == 4  # two type 3, one type 1, none


def test_a_proxy_is_answered_when_it_asks() -> None:
    """The proxy's status is another; an origin's 401 is none of the proxy's business."""
    acceptor = NtlmAcceptor(target=Target.PROXY)
    talker = session(target=Target.PROXY)
    converse(talker, acceptor, request=GET, challenge=NTLM)
    assert acceptor.user == "CORP\\alice"
    talk = talker.converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(ASKED)


def test_a_connection_that_was_known_already_needs_no_second_leg() -> None:
    """An answer to the first message that is no challenge ends the conversation."""
    talk = session().converse(GET, NTLM)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=200))


def test_nothing_is_sent_to_a_server_that_asks_for_something_else() -> None:
    """A later 401 without NTLM is for the authenticator to choose by."""
    talk = session().converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=401, authenticate=('Basic realm="r"',)))


# ── what is in the messages ────────────────────────────────────────────────────────────────


def test_the_response_is_version_2_with_an_integrity_code() -> None:
    """NT5: a timestamp in the challenge means a MIC, and 24 zeros instead of LMv2."""
    message = type3(session().converse(GET, NTLM))
    assert len(field(message, 20)) > 24
    assert field(message, 12) == bytes(24)
    assert struct.unpack("<I", pairs_of(message)[6])[0] & 2
    assert message[72:88] != bytes(16)


def test_the_service_is_named() -> None:
    """NT6: whom the response is for is signed with it."""
    message = type3(session().converse(GET, NTLM))
    assert pairs_of(message)[9].decode("utf-16-le") == "HTTP/files.test"


def test_nothing_but_signing_is_asked_for() -> None:
    """HTTP uses neither sealing nor anybody's identity beyond this connection."""
    (flags,) = struct.unpack_from("<I", sent(next(session().converse(GET, NTLM))), 12)
    assert not flags & 0x20  # NTLMSSP_NEGOTIATE_SEAL


def test_version_1_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may not weaken what goes out: NTLMv1 is as good as the password."""
    monkeypatch.setenv("LM_COMPAT_LEVEL", "0")
    talk = session().converse(GET, NTLM)
    next(talk)
    with pytest.raises(AuthRejected, match="LM_COMPAT_LEVEL"):
        talk.send(challenged(type2()))


def test_a_library_that_cannot_begin_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent: another scheme may do."""
    monkeypatch.setenv("LM_COMPAT_LEVEL", "9")
    with pytest.raises(CannotStart, match="LM_COMPAT_LEVEL"):
        next(session().converse(GET, NTLM))


# ── channel binding ────────────────────────────────────────────────────────────────────────


def test_the_binding_is_that_of_the_connection_of_the_challenge() -> None:
    """The request's own binding may be of a connection that is gone by then."""
    acceptor = NtlmAcceptor(binding=BINDING, seen_binding=BINDING)
    request = replace(GET_TLS, channel_binding=OTHER_BINDING)
    converse(session(), acceptor, request=request, challenge=NTLM)
    assert acceptor.user == "CORP\\alice"


@pytest.mark.parametrize(
    ("seen", "request_line", "reason"),
    [
        (OTHER_BINDING, GET_TLS, "which is lost where something in between ends TLS"),
        (None, GET_TLS, "which there cannot be with its certificate"),
        (None, GET, "or it demands https"),
    ],
)
def test_a_demand_for_a_binding_is_named_as_a_possible_reason(
    seen: bytes | None, request_line: RequestLine, reason: str
) -> None:
    """NT7: an absent or wrong binding looks exactly like a wrong password."""
    acceptor = NtlmAcceptor(binding=BINDING, seen_binding=seen)
    with pytest.raises(AuthRejected, match=reason) as raised:
        converse(session(), acceptor, request=request_line, challenge=NTLM)
    assert type(acceptor.errors[0]).__name__ == "BadBindingsError"
    assert "CORP\\alice" in str(raised.value)


def test_a_proxy_demands_no_binding() -> None:
    """What is between us and a proxy has no binding, so none is blamed."""
    acceptor = NtlmAcceptor(target=Target.PROXY)
    with pytest.raises(AuthRejected) as raised:
        converse(session(password="x", target=Target.PROXY), acceptor, request=GET, challenge=NTLM)
    assert str(raised.value) == "the proxy refused user name or password of 'CORP\\alice' (NTLM)"


@pytest.mark.parametrize(
    "pairs",
    [
        av(2, b"C\0") + av(10, bytes(range(16))),
        av(2, b"C\0") + av(0, b"") + av(10, bytes(range(16))),
        av(10, bytes(16)) + av(10, bytes(range(16))),
        av(10, bytes(range(16))) + av(7, bytes(8)),
    ],
    ids=["last", "after the end", "twice", "first"],
)
def test_a_challenge_with_a_binding_in_it_is_not_answered(pairs: bytes) -> None:
    """It would be signed along, and pass for ours at the server whose binding it is."""
    talk = session().converse(GET, NTLM)
    next(talk)
    with pytest.raises(AuthRejected, match="the client's to say"):
        talk.send(challenged(type2(pairs)))


def test_a_binding_of_our_own_takes_the_place_of_one_in_a_challenge() -> None:
    """What is signed names the connection that we have, whatever the server says of it."""
    talk = session().converse(GET_TLS, NTLM)
    next(talk)
    challenge = replace(challenged(type2(av(10, bytes(range(16))))), channel_binding=BINDING)
    expected = hashlib.md5(struct.pack("<5I", 0, 0, 0, 0, len(BINDING)) + BINDING)  # noqa: S324
    assert pairs_of(sent(talk.send(challenge)))[10] == expected.digest()


# ── servers that do not play along ─────────────────────────────────────────────────────────


def test_a_server_that_does_not_go_on_refused_nobody_yet() -> None:
    """What it refused is the first message, which says nothing of who asks."""
    talk = session().converse(GET, NTLM)
    next(talk)
    with pytest.raises(AuthRejected, match="does not go on with it") as raised:
        talk.send(ASKED)
    assert "password" not in str(raised.value)


def test_a_further_message_after_the_last_is_not_answered() -> None:
    """NT1: MS-NTHT 3.1.5.1."""
    talk = session().converse(GET, NTLM)
    type3(talk)
    with pytest.raises(AuthRejected, match="refused"):
        talk.send(challenged(type2()))


def test_a_challenge_that_nobody_asked_for_is_not_answered() -> None:
    """NT1: the first challenge has no message in it."""
    token = base64.b64encode(type2()).decode()
    assert usable(NTLM)
    assert not usable(Challenge(scheme="ntlm", token68=token))
    assert not usable(Challenge(scheme="negotiate"))
    talk = session().converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(challenged(type2()))


def garbage() -> st.SearchStrategy[bytes]:
    """Messages that begin well, and others."""
    whole = type2(av(1, b"N\0") + av(7, bytes(8)))
    return st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(b"NTLMSSP\0\2\0\0\0".__add__),
        st.integers(0, len(whole)).map(lambda end: whole[:end]),
        st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)).map(
            lambda change: whole[: change[0]] + bytes([change[1]]) + whole[change[0] + 1 :]
        ),
    )


@given(garbage())
def test_garbage_is_refused_or_answered_and_never_crashes(token: bytes) -> None:
    """Whatever a server sends as its challenge."""
    talk = session().converse(GET, NTLM)
    next(talk)
    with contextlib.suppress(AuthRejected):
        assert len(field(sent(talk.send(challenged(token))), 20)) > 24


@pytest.mark.parametrize("line", ["NTLM !!!", "NTLM abc", "NTLM a-_~", "NTLM a=b=c ,"])
def test_what_is_no_base64_is_refused(line: str) -> None:
    """A token that cannot be read is no challenge."""
    talk = session().converse(GET, NTLM)
    next(talk)
    with pytest.raises(AuthRejected):
        talk.send(Reply(status=401, authenticate=(line,)))


# ── secrets ────────────────────────────────────────────────────────────────────────────────


def test_neither_password_nor_token_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Promise 5: the library would log each token when everything is logged."""
    caplog.set_level(logging.DEBUG)
    acceptor = NtlmAcceptor()
    with pytest.raises(AuthRejected) as raised:
        converse(session(password="tell-nobody"), acceptor, request=GET, challenge=NTLM)
    seen = caplog.text + repr(raised.value) + repr(raised.value.__cause__)
    assert "tell-nobody" not in seen
    assert not any(base64.b64encode(token).decode() in seen for token in acceptor.tokens if token)


def test_a_worker_that_speaks_neither_loads_no_library() -> None:
    """pyspnego, gssapi and krb5 are loaded by who speaks them, for memory and start-up time."""
    check = (
        "import sys, transferd.auth.ntlm, transferd.auth.negotiate;"
        "print([name for name in ('spnego', 'gssapi', 'krb5') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"
