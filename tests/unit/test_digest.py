"""Digest: the vectors of the RFCs, the header, and the conversation with all its turns."""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.auth import proof
from transferd.auth.challenge import Challenge, parse_challenges
from transferd.auth.digest import STALE_ROUNDS, DigestSession
from transferd.auth.flow import (
    AuthError,
    AuthRejected,
    CannotStart,
    Conversation,
    NotMutual,
    Place,
    Randomness,
    Reply,
    RequestLine,
)
from transferd.auth.proof import Use, authorization, read_offer, usable
from transferd.model.credentials import Credential, Scheme, Secret, Target

GET = RequestLine(method="GET", target="/dir/index.html")
SERVED = Reply(status=200)
PASSWORD = "Circle of Life"


def credential(
    username: str = "Mufasa", password: str = PASSWORD, target: Target = Target.SERVER
) -> Credential:
    """Make a credential."""
    return Credential(
        target=target, scheme=Scheme.DIGEST, username=username, password=Secret(password)
    )


def challenge(**changes: str | None) -> Challenge:
    """Make a challenge; a parameter that is None is left out, "_" stands for "-"."""
    given = {"realm": "r", "nonce": "n1", "qop": "auth", "algorithm": "SHA-256"} | changes
    return Challenge(scheme="digest", params={k: v for k, v in given.items() if v is not None})


def refusal(**changes: str | None) -> Reply:
    """Make a 401 with that challenge."""
    params = ", ".join(f'{name}="{value}"' for name, value in challenge(**changes).params.items())
    return Reply(status=401, authenticate=(f"Digest {params}",))


def counting() -> DigestSession:
    """Make a session whose cnonces are 00, 01, 02…"""
    numbers = itertools.count()
    return DigestSession(credential(), place(lambda size: bytes([next(numbers)])))


def place(randomness: Randomness = bytes) -> Place:
    """Make a place; without another source every cnonce is zero."""
    return Place(host="host", randomness=randomness)


def fields(value: str | None) -> Mapping[str, str]:
    """Read a header value back."""
    assert value is not None
    (read,) = parse_challenges([value])
    assert read.scheme == "digest"
    return read.params


def say(talk: Conversation, reply: Reply | None = None) -> Mapping[str, str]:
    """Go on with a conversation and read what it sends."""
    return fields((next(talk) if reply is None else talk.send(reply)).authorization)


def end(talk: Conversation, reply: Reply = SERVED) -> None:
    """See a conversation end with *reply*."""
    with pytest.raises(StopIteration):
        talk.send(reply)


def value_of(
    challenge: Challenge,
    *,
    who: Credential | None = None,
    request: RequestLine = GET,
    cnonce: str = "c",
) -> str:
    """Return the first answer to a challenge."""
    offer = read_offer(challenge)
    assert offer is not None
    use = Use(
        offer=offer,
        request=request,
        nonce=offer.nonce,
        cnonce=cnonce,
        count=1,
        key_nonce=offer.nonce,
        key_cnonce=cnonce,
    )
    return authorization(use, who or credential())


def hashed(algorithm: str, text: str) -> str:
    """H, from the algorithm's name alone; nothing of the product in it."""
    function = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}[
        algorithm.removesuffix("-sess")
    ]
    return hashlib.new(function, text.encode(), usedforsecurity=False).hexdigest()


def expected(
    sent: Mapping[str, str],
    *,
    method: str = "GET",
    username: str = "Mufasa",
    password: str = PASSWORD,
    key: tuple[str, str] | None = None,
    body: str = "",
) -> str:
    """Compute the response anew, by RFC 7616 3.4.1-3.4.3, from the fields that were sent."""
    algorithm = sent.get("algorithm", "MD5")
    a1 = f"{username}:{sent['realm']}:{password}"
    if algorithm.endswith("-sess"):
        nonce, cnonce = key or (sent["nonce"], sent["cnonce"])
        a1 = f"{hashed(algorithm, a1)}:{nonce}:{cnonce}"
    a2 = f"{method}:{sent['uri']}"
    if sent.get("qop") == "auth-int":
        a2 += f":{hashed(algorithm, body)}"
    middle = [sent["nonce"]]
    if "qop" in sent:
        middle += [sent["nc"], sent["cnonce"], sent["qop"]]
    return hashed(algorithm, ":".join([hashed(algorithm, a1), *middle, hashed(algorithm, a2)]))


# ── vectors ────────────────────────────────────────────────────────────────────────────────

RFC_7616 = {
    "realm": "http-auth@example.org",
    "qop": "auth, auth-int",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
}


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    """RFC 7616 3.9.1, to the letter: order, quoting and response."""
    value = value_of(
        Challenge(scheme="digest", params=RFC_7616 | {"algorithm": algorithm}),
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert value == (
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", '
        f'algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
        f'response="{response}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )


def test_the_example_of_rfc_2617() -> None:
    """RFC 2617 3.5, through a session: "Circle Of Life", with the other O."""
    talk = DigestSession(
        credential(password="Circle Of Life"), place(lambda size: bytes.fromhex("0a4f113b"))
    ).converse(
        GET,
        Challenge(
            scheme="digest",
            params={
                "realm": "testrealm@host.com",
                "qop": "auth,auth-int",
                "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
                "opaque": "5ccc069c403ebaf9f0171e9517f40e41",
            },
        ),
    )
    sent = say(talk)
    assert sent["response"] == "6629fae49393a05397450978507c4ef1"
    assert "algorithm" not in sent


def test_the_example_of_rfc_2069() -> None:
    """RFC 2069 2.4 in its corrected form (erratum 749: the printed response is wrong)."""
    value = value_of(
        Challenge(
            scheme="digest",
            params={
                "realm": "testrealm@host.com",
                "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
                "opaque": "5ccc069c403ebaf9f0171e9517f40e41",
            },
        ),
        who=credential(password="CircleOfLife"),
    )
    sent = fields(value)
    assert sent["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert not {"nc", "cnonce", "qop"} & sent.keys()


RFC_7616_USERHASH = {
    "realm": "api@example.org",
    "qop": "auth",
    "algorithm": "SHA-512-256",
    "nonce": "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
    "opaque": "HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS",
    "charset": "UTF-8",
}


def test_sha_512_256_is_the_real_one() -> None:
    """RFC 7616 3.9.2 with erratum 4897: the RFC prints SHA-512 cut short, which is another hash.

    FIPS 180-4 gives SHA-512/256 its own initial value; the numbers here are computed from the
    formula and are those of the erratum.
    """
    value = value_of(
        Challenge(scheme="digest", params=RFC_7616_USERHASH | {"userhash": "true"}),
        who=credential("Jäsøn Doe", "Secret, or not?"),
        request=RequestLine(method="GET", target="/doe.json"),
        cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    )
    sent = fields(value)
    assert sent["username"] == hashed("SHA-512-256", "Jäsøn Doe:api@example.org")
    assert sent["username"].startswith("793263caabb707a56211940d90411ea4")
    assert sent["response"] == expected(sent, username="Jäsøn Doe", password="Secret, or not?")
    assert sent["response"].startswith("3798d4131c277846293534c3edc11bd8")
    truncated = hashlib.sha512("Jäsøn Doe:api@example.org".encode()).hexdigest()[:64]
    assert truncated.startswith("488869477bf257147b804c45308cd62a"), "what the RFC prints"
    assert value.endswith(", userhash=true")


@pytest.mark.parametrize("qop", ["auth", "auth-int"])
@pytest.mark.parametrize("session", ["", "-sess"])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512-256"])
def test_every_algorithm_and_qop(algorithm: str, session: str, qop: str) -> None:
    """Each of the six algorithms with each qop gives what the formula gives."""
    request = RequestLine(method="PUT", target="/up?a=b", body=b"payload")
    asked = challenge(algorithm=algorithm + session, qop=qop)
    sent = fields(value_of(asked, request=request))
    assert (sent["algorithm"], sent["qop"]) == (algorithm + session, qop)
    assert sent["response"] == expected(sent, method="PUT", body="payload")


# ── what can be answered ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "SHA-1"},
        {"algorithm": "SHA-512"},
        {"algorithm": "MD5-"},
        {"qop": "auth-conf"},
        {"algorithm": "MD5-sess", "qop": None},
        {"realm": None},
        {"nonce": None},
        {"realm": "caf\udce9"},
        {"nonce": "a\r\nX: y"},
        {"opaque": "a\x00"},
    ],
)
def test_what_cannot_be_answered_is_not_usable(changes: dict[str, str | None]) -> None:
    """An unknown algorithm or qop, missing or unsendable values: another challenge is taken."""
    asked = challenge(**changes)
    assert not usable(asked)
    with pytest.raises(CannotStart, match="cannot answer"):
        next(counting().converse(GET, asked))


def test_another_scheme_is_not_digest() -> None:
    """Parameters do not make a scheme."""
    assert not usable(Challenge(scheme="basic", params=challenge().params))


@pytest.mark.parametrize(
    ("algorithm", "strength"),
    [(None, "md5"), ("md5", "md5"), ("MD5-sess", "md5"), ("sha-256", "sha"), ("SHA-256", "sha")],
)
def test_the_strength_is_that_of_the_hash(algorithm: str | None, strength: str) -> None:
    """No algorithm means MD5; names are compared without case."""
    other = {"md5": "sha", "sha": "md5"}[strength]
    asked = challenge(algorithm=algorithm)
    assert usable(asked, strength)
    assert not usable(asked, other)
    assert usable(asked)


@pytest.mark.parametrize(
    ("qop", "used"),
    [
        ("auth", "auth"),
        ("auth-int", "auth-int"),
        ("auth-int,auth", "auth"),
        (" AUTH-INT ,\tauth-conf", "auth-int"),
        ("", None),
        (None, None),
    ],
)
def test_auth_is_preferred(qop: str | None, used: str | None) -> None:
    """auth before auth-int; none named means the formula of RFC 2069."""
    offer = read_offer(challenge(qop=qop))
    assert offer is not None
    assert offer.qop == used


def test_an_algorithm_that_openssl_lacks_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-512/256 may be missing from a build of OpenSSL; the other challenge is taken then."""
    monkeypatch.setattr(hashlib, "algorithms_available", {"md5", "sha256"})
    assert set(proof._algorithms()) == {"md5", "md5-sess", "sha-256", "sha-256-sess"}


# ── the header ─────────────────────────────────────────────────────────────────────────────


def test_what_is_quoted_and_what_is_not() -> None:
    """RFC 7616 3.4: algorithm, qop, nc and userhash are tokens, all else is quoted."""
    value = value_of(challenge(opaque="o", userhash="TRUE"))
    pairs = dict(part.split("=", 1) for part in value.removeprefix("Digest ").split(", "))
    bare = {name for name, text in pairs.items() if not text.startswith('"')}
    assert bare == {"algorithm", "qop", "nc", "userhash"}
    assert pairs["nc"] == "00000001"


def test_quotes_and_backslashes_are_escaped_and_hashed_plain() -> None:
    """What is hashed is the value, what is sent is its quoted form."""
    who = credential('CORP\\al"ice')
    value = value_of(challenge(realm='a "b" \\c', nonce='n"', opaque="\\"), who=who)
    assert 'username="CORP\\\\al\\"ice"' in value
    assert 'realm="a \\"b\\" \\\\c"' in value
    assert 'nonce="n\\""' in value
    assert 'opaque="\\\\"' in value
    sent = fields(value)
    assert sent["response"] == expected(sent, username='CORP\\al"ice')


@given(st.text(), st.text(), st.text(), st.text())
def test_no_value_can_begin_another_header(
    username: str, realm: str, nonce: str, opaque: str
) -> None:
    """Whatever user and server come up with, the header has no control character in it."""
    asked = challenge(realm=realm, nonce=nonce, opaque=opaque)
    talk = DigestSession(credential(username), place()).converse(GET, asked)
    try:
        value = next(talk).authorization
    except CannotStart:
        return
    assert value is not None
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value)
    assert fields(value)["realm"] == realm


def test_a_target_with_a_line_break_is_not_sent() -> None:
    """The last door before the wire."""
    request = RequestLine(method="GET", target="/a\r\nX: y")
    with pytest.raises(AuthError, match="control characters"):
        next(counting().converse(request, challenge()))


@pytest.mark.parametrize("username", ["al:ice", "al\nice", "al\x00ice", "al\udcffice"])
def test_an_impossible_user_name_is_refused(username: str) -> None:
    """A colon would move the border within A1 (RFC 7616 4); controls could split a header."""
    with pytest.raises(CannotStart, match="user name"):
        value_of(challenge(userhash="true"), who=credential(username))


def test_a_password_is_only_hashed() -> None:
    """Nothing is forbidden in a password that is never sent."""
    who = credential(password='a:b\n\x00\\"ä')
    sent = fields(value_of(challenge(), who=who))
    assert sent["response"] == expected(sent, password='a:b\n\x00\\"ä')


def test_user_and_password_are_composed() -> None:
    """The same letters typed on another machine hash alike: NFC (RFC 7616 3.3)."""
    who = credential("ju\u0308rgen", "gro\u0308\u00dfe")
    sent = fields(value_of(challenge(algorithm=None), who=who))
    assert sent["username"] == "jürgen"
    assert sent["response"] == expected(sent, username="jürgen", password="größe")


@pytest.mark.parametrize(
    "changes",
    [{}, {"algorithm": None, "charset": "UTF-8"}, {"algorithm": "MD5", "userhash": "false"}],
)
def test_a_modern_server_gets_the_extended_notation(changes: dict[str, str | None]) -> None:
    """RFC 7616 3.4: a name beyond ASCII goes as username*, and username is not sent."""
    value = value_of(challenge(**changes), who=credential("Jäsøn 'Doe'/x"))
    assert "username*=UTF-8''J%C3%A4s%C3%B8n%20%27Doe%27%2Fx, " in value
    sent = fields(value)
    assert "username" not in sent
    assert unquote(sent["username*"].removeprefix("UTF-8''")) == "Jäsøn 'Doe'/x"
    assert sent["response"] == expected(sent, username="Jäsøn 'Doe'/x")


def test_an_old_server_gets_plain_utf_8() -> None:
    """A server without a trace of RFC 7616 would miss `username` (obs-text, RFC 9110 5.6.4)."""
    value = value_of(challenge(algorithm="MD5"), who=credential("Jäsøn"))
    assert 'username="Jäsøn"' in value


def test_the_hash_of_the_user_name_replaces_it() -> None:
    """RFC 7616 3.4.4: userhash=true, and neither username* nor the name itself."""
    value = value_of(challenge(userhash="true"), who=credential("Jäsøn"))
    sent = fields(value)
    assert sent["username"] == hashed("SHA-256", "Jäsøn:r")
    assert sent["userhash"] == "true"
    assert "username*" not in sent
    assert sent["response"] == expected(sent, username="Jäsøn")


# ── the conversation ───────────────────────────────────────────────────────────────────────


def test_one_challenge_one_answer() -> None:
    """401, then the file: two requests, the second with the right response."""
    talk = counting().converse(GET, challenge(opaque="o"))
    sent = say(talk)
    assert sent["response"] == expected(sent)
    assert (sent["nc"], sent["cnonce"], sent["opaque"]) == ("00000001", "00", "o")
    end(talk)


def test_the_cnonce_is_long_enough_to_be_unguessable() -> None:
    """128 bits from the given source of randomness."""
    sent = say(DigestSession(credential(), place(secrets.token_bytes)).converse(GET, challenge()))
    other = say(DigestSession(credential(), place(secrets.token_bytes)).converse(GET, challenge()))
    assert len(bytes.fromhex(sent["cnonce"])) == 16
    assert sent["cnonce"] != other["cnonce"]


def test_nothing_is_sent_before_a_challenge() -> None:
    """Without a nonce there is nothing to send (BITS: A5)."""
    talk = counting().converse(GET, None)
    assert next(talk).authorization is None
    assert say(talk, refusal())["nonce"] == "n1"
    end(talk)


def test_a_bare_start_takes_the_strongest_challenge() -> None:
    """SHA before MD5, and the server's first of those (RFC 7616 3.7)."""
    talk = counting().converse(GET, None)
    next(talk)
    lines = (
        'Basic realm="b", Digest realm="r", nonce="m", qop="auth", algorithm=MD5',
        'Digest realm="r", nonce="x", qop="auth", algorithm=SHA-999',
        'Digest realm="r", nonce="s", qop="auth", algorithm=SHA-512-256',
        'Digest realm="r", nonce="t", qop="auth", algorithm=SHA-256',
    )
    assert say(talk, Reply(status=401, authenticate=lines))["nonce"] == "s"


def test_later_requests_use_the_nonce_again() -> None:
    """The first attempt of the next request carries credentials, with the next count."""
    session = counting()
    head = session.converse(RequestLine(method="HEAD", target="/a"), challenge())
    first = say(head)
    end(head)
    get = session.converse(RequestLine(method="GET", target="/b"), None)
    second = say(get)
    end(get)
    assert [first["nc"], second["nc"]] == ["00000001", "00000002"]
    assert first["response"] == expected(first, method="HEAD")
    assert second["response"] == expected(second, method="GET")
    assert second["uri"] == "/b"


def test_overlapping_conversations_never_share_a_count() -> None:
    """A nonce with the same count twice is a replay (RFC 7616 3.4)."""
    session = counting()
    one, two = session.converse(GET, challenge()), session.converse(GET, challenge())
    sent = [say(one), say(two), say(session.converse(GET, None))]
    end(two)
    sent.append(say(session.converse(GET, None)))
    end(one)
    assert [each["nc"] for each in sent] == ["00000001", "00000002", "00000003", "00000004"]
    for each in sent:
        assert each["response"] == expected(each)


def test_the_count_is_hexadecimal() -> None:
    """Eight lower-case hexadecimal digits."""
    session = counting()
    say(session.converse(GET, challenge()))
    counts = [say(session.converse(GET, None))["nc"] for _ in range(30)]
    assert (counts[8], counts[-1]) == ("0000000a", "0000001f")


def test_a_stale_nonce_is_no_failure() -> None:
    """RFC 7616 3.3: the same password with the new nonce, counted from one."""
    session = counting()
    say(session.converse(GET, challenge()))
    talk = session.converse(GET, None)
    assert say(talk)["nc"] == "00000002"
    sent = say(talk, refusal(nonce="n2", stale="TRUE"))
    assert (sent["nonce"], sent["nc"], sent["cnonce"]) == ("n2", "00000001", "01")
    assert sent["response"] == expected(sent)
    end(talk)


def test_a_server_that_always_says_stale_is_left() -> None:
    """A few fresh nonces that are stale at once are enough."""
    talk = counting().converse(GET, challenge())
    for number in range(STALE_ROUNDS + 1):
        say(talk, None if number == 0 else refusal(nonce=f"n{number}", stale="true"))
    with pytest.raises(AuthRejected, match="calls every nonce stale"):
        talk.send(refusal(nonce="last", stale="true"))


def test_a_nonce_that_comes_back_as_stale_goes_on_counting() -> None:
    """Counts are those of a nonce, however often it is handed out."""
    talk = counting().converse(GET, challenge())
    assert say(talk)["nc"] == "00000001"
    assert say(talk, refusal(nonce="n1", stale="true"))["nc"] == "00000002"


@pytest.mark.parametrize("stale", [None, "false", "maybe"])
def test_a_wrong_password_is_tried_once(stale: str | None) -> None:
    """A fresh nonce that is refused without stale=true means the password."""
    session = DigestSession(credential(password="hunter2"), place())
    talk = session.converse(GET, challenge())
    say(talk)
    with pytest.raises(AuthRejected, match=r"refused .* 'Mufasa' \(Digest SHA-256") as caught:
        talk.send(refusal(nonce="n2", stale=stale))
    assert "hunter2" not in str(caught.value)
    assert next(session.converse(GET, None)).authorization is None


def test_a_refusal_without_a_challenge_is_a_refusal() -> None:
    """A 401 that asks for nothing we know, after an answer, refuses the answer."""
    talk = counting().converse(GET, challenge(algorithm=None))
    say(talk)
    with pytest.raises(AuthRejected, match="Digest MD5"):
        talk.send(Reply(status=401, authenticate=("Basic",)))


def test_a_forgotten_nonce_does_not_cost_the_password() -> None:
    """A server that lost its nonces may not say stale; the fresh challenge is answered once."""
    session = counting()
    say(session.converse(GET, challenge()))
    talk = session.converse(GET, None)
    say(talk)
    sent = say(talk, refusal(nonce="n2", realm="other"))
    assert (sent["nonce"], sent["realm"], sent["nc"]) == ("n2", "other", "00000001")
    with pytest.raises(AuthRejected):
        talk.send(refusal(nonce="n3"))


def test_a_session_keeps_to_its_strength() -> None:
    """A session that began with SHA is not talked down to MD5: the choice is open again."""
    session = counting()
    say(session.converse(GET, challenge()))
    talk = session.converse(GET, None)
    say(talk)
    end(talk, refusal(algorithm="MD5"))
    assert next(session.converse(GET, None)).authorization is None


def test_a_stale_answer_must_be_of_the_same_strength() -> None:
    """Nor by calling the nonce stale."""
    talk = counting().converse(GET, challenge())
    say(talk)
    with pytest.raises(AuthRejected):
        talk.send(refusal(algorithm="MD5", stale="true"))


@pytest.mark.parametrize("status", [200, 206, 302, 403, 404, 407, 503])
def test_any_other_status_stands(status: int) -> None:
    """Only the challenge of its own target refuses a credential."""
    talk = counting().converse(GET, challenge())
    say(talk)
    end(talk, Reply(status=status))


def test_a_proxy_asks_with_407() -> None:
    """The same conversation on the other status."""
    session = DigestSession(credential(target=Target.PROXY), place())
    talk = session.converse(RequestLine(method="CONNECT", target="host:443"), challenge())
    sent = say(talk)
    assert sent["response"] == expected(sent, method="CONNECT")
    stale = refusal(nonce="n2", stale="true")
    say(talk, Reply(status=407, authenticate=stale.authenticate))
    end(talk, Reply(status=401, authenticate=stale.authenticate))


def test_a_closed_session_has_forgotten_its_nonce() -> None:
    """After close nothing goes out unasked."""
    session = counting()
    say(session.converse(GET, challenge()))
    session.close()
    assert next(session.converse(GET, None)).authorization is None


# ── what the server says of itself ─────────────────────────────────────────────────────────


def info(**params: str) -> Reply:
    """Make a 200 with Authentication-Info."""
    return Reply(
        status=200,
        authentication_info=(", ".join(f'{name}="{value}"' for name, value in params.items()),),
    )


def test_nextnonce_is_used_next() -> None:
    """RFC 7616 3.5: the next request takes it, counted from one."""
    session = counting()
    talk = session.converse(GET, challenge(opaque="o"))
    say(talk)
    end(talk, info(nextnonce="n2"))
    sent = say(session.converse(GET, None))
    assert (sent["nonce"], sent["nc"], sent["opaque"]) == ("n2", "00000001", "o")
    assert sent["response"] == expected(sent)


def test_nextnonce_that_is_the_same_changes_nothing() -> None:
    """A count that began anew under the same nonce would be a replay."""
    session = counting()
    talk = session.converse(GET, challenge())
    say(talk)
    end(talk, info(nextnonce="n1"))
    assert say(session.converse(GET, None))["nc"] == "00000002"


def test_nextnonce_does_not_undo_a_newer_nonce() -> None:
    """Of two overlapping conversations the one that ends late does not bring back the past."""
    session = counting()
    one, two = session.converse(GET, challenge()), session.converse(GET, challenge())
    say(one)
    say(two)
    end(two, info(nextnonce="n2"))
    end(one, info(nextnonce="n3"))
    assert say(session.converse(GET, None))["nonce"] == "n2"


def test_nextnonce_after_close_stays_forgotten() -> None:
    """A reply that comes in late does not wake a closed session."""
    session = counting()
    talk = session.converse(GET, challenge())
    say(talk)
    session.close()
    end(talk, info(nextnonce="n2"))
    assert next(session.converse(GET, None)).authorization is None


def test_nextnonce_that_cannot_be_sent_is_ignored() -> None:
    """Bytes that are not UTF-8 cannot be echoed."""
    session = counting()
    talk = session.converse(GET, challenge())
    say(talk)
    end(talk, info(nextnonce="caf\udce9"))
    assert say(session.converse(GET, None))["nonce"] == "n1"


def test_the_session_key_outlives_its_nonce() -> None:
    """RFC 7616 3.4.2: a -sess key is made of the first nonce and cnonce after the challenge."""
    session = counting()
    talk = session.converse(GET, challenge(algorithm="SHA-256-sess"))
    first = say(talk)
    end(talk, info(nextnonce="n2"))
    again = say(session.converse(GET, None))
    assert again["nonce"] == "n2"
    assert again["response"] == expected(again, key=("n1", first["cnonce"]))


def test_requests_under_one_nonce_share_the_cnonce() -> None:
    """So that servers which take the first cnonce and such as take the last agree on the key."""
    session = counting()
    one = say(session.converse(GET, challenge(algorithm="MD5-sess")))
    two = say(session.converse(GET, None))
    assert one["cnonce"] == two["cnonce"]
    assert two["response"] == expected(two)


def rspauth(sent: Mapping[str, str]) -> str:
    """Prove what a server that knows the secret proves: the method is empty (RFC 7616 3.5)."""
    return expected(sent, method="")


@pytest.mark.parametrize("changes", [{}, {"qop": None}, {"algorithm": "MD5-sess"}])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_server_that_knows_the_secret_is_believed(
    changes: dict[str, str | None], case: type[str]
) -> None:
    """rspauth over the nonce, cnonce and count of this very request."""
    session = counting()
    say(session.converse(GET, challenge(**changes)))
    talk = session.converse(GET, None)
    sent = say(talk)
    end(talk, info(rspauth=case(rspauth(sent)), qop="auth", nextnonce="n2"))
    assert say(session.converse(GET, None))["nonce"] == "n2"


@pytest.mark.parametrize("wrong", ["", "00", "é\udce9", "the response itself"])
def test_a_wrong_proof_is_not_believed(wrong: str) -> None:
    """A mismatch means another server than the one that knows the secret."""
    session = counting()
    talk = session.converse(GET, challenge())
    sent = say(talk)
    proved = sent["response"] if wrong.startswith("the") else wrong
    with pytest.raises(NotMutual, match="rspauth"):
        talk.send(info(rspauth=proved, nextnonce="n2"))
    assert next(session.converse(GET, None)).authorization is None


def test_the_proof_of_an_earlier_request_is_a_replay() -> None:
    """The proof must be over the count that this request used."""
    session = counting()
    first = say(session.converse(GET, challenge()))
    talk = session.converse(GET, None)
    say(talk)
    with pytest.raises(NotMutual):
        talk.send(info(rspauth=rspauth(first), nc=first["nc"]))


def test_a_proof_survives_a_newer_nonce() -> None:
    """What another conversation has brought in the meantime does not matter."""
    session = counting()
    slow = session.converse(GET, challenge())
    sent = say(slow)
    quick = session.converse(GET, None)
    say(quick)
    end(quick, info(nextnonce="n2"))
    end(slow, info(rspauth=rspauth(sent)))


def test_a_proof_over_a_body_is_left_open() -> None:
    """With auth-int rspauth is over the body of the response, which comes later."""
    talk = counting().converse(GET, challenge(qop="auth-int"))
    say(talk)
    end(talk, info(rspauth="00"))


def test_a_bare_reply_proves_nothing() -> None:
    """Authentication-Info without credentials in the request is not looked at."""
    talk = counting().converse(GET, None)
    next(talk)
    end(talk, info(rspauth="00", nextnonce="n"))


def test_the_password_is_in_no_repr() -> None:
    """What a log or a traceback shows has neither the password nor what is made from it."""
    session = DigestSession(credential(password="hunter2"), place())
    talk = session.converse(GET, challenge())
    attempt = next(talk)
    offer = read_offer(challenge())
    response = fields(attempt.authorization)["response"]
    secret = hashed("SHA-256", "Mufasa:r:hunter2")
    for thing in (session, session._nonce, session._credential, talk, attempt, offer, GET):
        for text in ("hunter2", response, secret):
            assert text not in repr(thing)


def test_nothing_made_from_the_password_is_kept() -> None:
    """H(A1) opens the realm as well as the password does; a session computes it anew."""
    session = DigestSession(credential(password="hunter2"), place())
    say(session.converse(GET, challenge(algorithm="MD5-sess")))
    kept = set(strings(session))
    inner = hashed("MD5", "Mufasa:r:hunter2")
    assert inner not in kept
    assert hashed("MD5", f"{inner}:n1:{'00' * 16}") not in kept
    assert "n1" in kept


def strings(thing: object) -> Iterator[str]:
    """Find every string that a session holds."""
    if isinstance(thing, str):
        yield thing
    for name in getattr(type(thing), "__slots__", ()):
        yield from strings(getattr(thing, name))
