"""Basic as a conversation: what is sent, when, and what ends it."""

from __future__ import annotations

import base64

import pytest

from transferd.auth.basic import BasicSession, usable
from transferd.auth.challenge import Challenge
from transferd.auth.flow import Attempt, AuthError, AuthRejected, CannotStart, Reply, RequestLine
from transferd.model.credentials import Credential, Scheme, Secret, Target

ASKED = Challenge(scheme="basic", params={"realm": "r"})
REFUSED = Reply(status=401, authenticate=('Basic realm="r"',))
SERVED = Reply(status=200)
GET = RequestLine(method="GET", target="/file")
PASSWORD = "open sesame"


def session(
    username: str = "alice", password: str = PASSWORD, target: Target = Target.SERVER
) -> BasicSession:
    """Make a session."""
    return BasicSession(
        Credential(target=target, scheme=Scheme.BASIC, username=username, password=Secret(password))
    )


def first(basic: BasicSession, challenge: Challenge | None = ASKED) -> str | None:
    """Return what the first attempt of a conversation carries."""
    return next(basic.converse(GET, challenge)).authorization


def decoded(value: str | None) -> bytes:
    """Return user and password of a header value."""
    assert value is not None
    scheme, _, pair = value.partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(pair, validate=True)


def test_the_example_of_the_rfc() -> None:
    """RFC 7617 2: Aladdin, open sesame."""
    assert first(session("Aladdin")) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_the_example_with_utf_8() -> None:
    """RFC 7617 2.1: the pound sign of user `test` goes as UTF-8."""
    assert first(session("test", "123£")) == "Basic dGVzdDoxMjPCow=="


@pytest.mark.parametrize("charset", [None, "UTF-8", "iso-8859-1"])
def test_the_encoding_is_utf_8_whatever_the_server_says(charset: str | None) -> None:
    """UTF-8 is the only charset that a challenge may name (RFC 7617 2.1)."""
    params = {"realm": "r"} | ({"charset": charset} if charset else {})
    value = first(session("jürgen", "größe"), Challenge(scheme="basic", params=params))
    assert decoded(value) == "jürgen:größe".encode()


def test_names_and_passwords_are_composed() -> None:
    """The same letters typed on another machine are the same bytes: NFC."""
    value = first(session("ju\u0308rgen", "gro\u0308\u00dfe"))
    assert decoded(value) == "jürgen:größe".encode()


@pytest.mark.parametrize(
    ("username", "password"),
    [("alice", 'p:a,s"s\\w'), ("CORP\\alice", ""), ("", "x"), ("alice@host", "p" * 65535)],
)
def test_odd_but_legal_credentials_pass(username: str, password: str) -> None:
    """Only the first colon separates; both halves may be empty (RFC 7617 2)."""
    assert decoded(first(session(username, password))) == f"{username}:{password}".encode()


@pytest.mark.parametrize(
    ("username", "password", "problem"),
    [
        ("al:ice", "x", "colon"),
        ("al\nice", "x", "user name has control"),
        ("al\x7fice", "x", "user name has control"),
        ("al\udcffice", "x", "not valid Unicode"),
        ("alice", "hunter2\r\nX: y", "password has control"),
        ("alice", "hunter2\0", "password has control"),
    ],
)
def test_what_cannot_be_expressed_is_refused(username: str, password: str, problem: str) -> None:
    """A colon would move the border, control characters are forbidden (RFC 7617 2)."""
    with pytest.raises(CannotStart, match=problem) as caught:
        first(session(username, password))
    assert "hunter2" not in str(caught.value)


def test_nothing_is_sent_before_a_challenge() -> None:
    """A server that does not ask does not learn the password (BITS: A5)."""
    talk = session().converse(GET, None)
    assert next(talk).authorization is None
    with pytest.raises(StopIteration):
        talk.send(SERVED)


def test_a_challenge_is_answered_without_being_told_of_it_first() -> None:
    """A conversation that starts bare goes on when the server asks."""
    talk = session().converse(GET, None)
    assert next(talk).authorization is None
    assert decoded(talk.send(REFUSED).authorization) == b"alice:open sesame"
    with pytest.raises(StopIteration):
        talk.send(SERVED)


def test_after_a_challenge_every_request_carries_credentials() -> None:
    """One challenge an origin is enough (RFC 7617 2.2)."""
    basic = session()
    talk = basic.converse(GET, ASKED)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(SERVED)
    for _ in range(2):
        assert decoded(first(basic, None)) == b"alice:open sesame"


def test_a_wrong_password_is_sent_once() -> None:
    """The second 401 ends it: trying again could lock the account."""
    talk = session(password="hunter2").converse(GET, ASKED)
    next(talk)
    with pytest.raises(AuthRejected, match=r"the server refused .* 'alice'") as caught:
        talk.send(REFUSED)
    assert "hunter2" not in str(caught.value)


def test_a_refusal_without_a_challenge_is_a_refusal() -> None:
    """A 401 that no longer asks for Basic, after an answer, refuses the answer."""
    talk = session().converse(GET, ASKED)
    next(talk)
    with pytest.raises(AuthRejected):
        talk.send(Reply(status=401, authenticate=("Negotiate",)))


def test_a_password_refused_later_is_not_sent_again() -> None:
    """Credentials that went along unasked and are refused are refused for good."""
    basic = session()
    first(basic)
    talk = basic.converse(GET, None)
    next(talk)
    with pytest.raises(AuthRejected):
        talk.send(REFUSED)
    assert first(basic, None) is None


def test_a_place_that_asks_for_another_scheme_refuses_nothing() -> None:
    """Credentials that went along unasked, and a 401 without Basic: the choice is open again."""
    basic = session()
    first(basic)
    talk = basic.converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=401, authenticate=('Digest realm="r", nonce="n"',)))
    assert first(basic, None) is None


@pytest.mark.parametrize("status", [200, 206, 302, 403, 404, 407, 503])
def test_any_other_status_stands(status: int) -> None:
    """Only the challenge of its own target refuses a credential."""
    talk = session().converse(GET, ASKED)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=status))


def test_a_proxy_refuses_with_407() -> None:
    """A 401 through a proxy is the server's affair, a 407 the proxy's."""
    proxied = session(target=Target.PROXY)
    talk = proxied.converse(GET, ASKED)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(REFUSED)
    talk = proxied.converse(GET, None)
    next(talk)
    with pytest.raises(AuthRejected, match="the proxy refused"):
        talk.send(Reply(status=407, authenticate=("Basic",)))


def test_a_closed_session_has_forgotten_the_challenge() -> None:
    """After close nothing goes out unasked."""
    basic = session()
    first(basic)
    basic.close()
    assert first(basic, None) is None


def test_only_basic_is_usable() -> None:
    """A challenge without a realm is still Basic."""
    assert usable(Challenge(scheme="basic"))
    assert not usable(Challenge(scheme="digest"))
    assert session().scheme is Scheme.BASIC


@pytest.mark.parametrize("value", ["Basic x\r\nX: y", "Basic \n", "Basic \0", "Basic \x7f"])
def test_no_header_with_a_line_break_leaves(value: str) -> None:
    """The last door before the wire refuses what would begin another header."""
    with pytest.raises(AuthError, match="control characters"):
        Attempt(authorization=value)


def test_the_password_is_in_no_repr() -> None:
    """What a log or a traceback shows has no password, in clear or in base64."""
    basic = session(password="hunter2")
    talk = basic.converse(GET, ASKED)
    attempt = next(talk)
    disguised = base64.b64encode(b"alice:hunter2").decode()
    for thing in (basic, talk, attempt, ASKED, GET):
        assert "hunter2" not in repr(thing)
        assert disguised not in repr(thing)
