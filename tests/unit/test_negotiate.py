"""Negotiate without a KDC: when Kerberos cannot start, and NTLM inside SPNEGO.

What Kerberos does when it can is in tests/integration/test_kerberos.py.
"""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gss_acceptors import NtlmAcceptor, converse, ntlm_users
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    CannotStart,
    NotMutual,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.gss import service_at
from transferd.auth.negotiate import LEGS, NegotiateSession, usable
from transferd.model.credentials import Credential, NegotiateOptions, Scheme, Secret, Target

PASSWORD = "opensesame"
BINDING = b"tls-server-end-point:" + bytes(range(32))
GET = RequestLine(method="GET", target="/a", url="http://192.0.2.1/a")
GET_TLS = replace(GET, url="https://192.0.2.1/a", channel_binding=BINDING)
NEGOTIATE = Challenge(scheme="negotiate")
#: Kerberos has no name for it, so that it never starts here.
ADDRESS = "192.0.2.1"
ALLOWED = NegotiateOptions(ntlm=True)


@pytest.fixture(autouse=True, scope="module")
def _users() -> Iterator[None]:
    with ntlm_users():
        yield


def session(
    username: str | None = "CORP\\alice",
    password: str = PASSWORD,
    *,
    host: str = ADDRESS,
    options: NegotiateOptions = ALLOWED,
    target: Target = Target.SERVER,
) -> NegotiateSession:
    """Make a session."""
    credential = Credential(
        target=target, scheme=Scheme.NEGOTIATE, username=username, password=Secret(password)
    )
    return NegotiateSession(credential, Place(host=host, randomness=bytes, negotiate=options))


def inside() -> NtlmAcceptor:
    """Make a connection to a server that takes NTLM inside SPNEGO."""
    return NtlmAcceptor(scheme="Negotiate")


def line(token: bytes) -> str:
    """Write a token."""
    return f"Negotiate {base64.b64encode(token).decode()}"


# ── when Kerberos cannot start ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "2001:db8::7"])
def test_an_address_has_no_name_for_kerberos(host: str) -> None:
    """NG4: said as such, with what to do; NTLM is not spoken without leave."""
    talk = session(host=host, options=NegotiateOptions()).converse(GET, NEGOTIATE)
    with pytest.raises(CannotStart, match=rf"by their names, and {host} is an address") as raised:
        next(talk)
    assert raised.value.advice is not None
    assert "negotiate.spn" in raised.value.advice
    assert "--allow-ntlm" in raised.value.advice


def test_the_owners_own_identity_is_never_spoken_for_with_ntlm() -> None:
    """NT10: there is no implicit NTLM, so it is not advised either."""
    with pytest.raises(CannotStart) as raised:
        next(session(None, "").converse(GET, NEGOTIATE))
    assert raised.value.advice is not None
    assert "ntlm" not in raised.value.advice.lower()


@pytest.mark.parametrize("missing", ["gssapi", "krb5"])
def test_a_missing_library_is_named_with_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra compiles: the advice says what with."""
    monkeypatch.setitem(sys.modules, missing, None)
    talk = session(host="files.test", options=NegotiateOptions()).converse(GET, NEGOTIATE)
    with pytest.raises(CannotStart, match=r"Kerberos is not installed: .*(gssapi|krb5)") as raised:
        next(talk)
    assert raised.value.advice is not None
    install = f"{sys.executable} -m pip install gssapi krb5"
    for needed in (install, "gcc", "libkrb5-dev", "--allow-ntlm"):
        assert needed in raised.value.advice


def test_without_the_libraries_ntlm_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is for Kerberos alone."""
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.setitem(sys.modules, "krb5", None)
    acceptor = inside()
    converse(session(host="files.test"), acceptor, request=GET, challenge=NEGOTIATE)
    assert acceptor.user == "CORP\\alice"


@pytest.mark.parametrize(
    ("host", "spn", "expected"),
    [
        ("files.test", None, "HTTP/files.test"),
        ("files.test.", None, "HTTP/files.test"),
        ("192.0.2.1", "files.test", "HTTP/files.test"),
        ("files.test", "http/other.test", "HTTP/other.test"),
        ("files.test", "cifs/Other.test", "cifs/Other.test"),
    ],
)
def test_the_service_is_named_by_the_url_or_the_job(
    host: str, spn: str | None, expected: str
) -> None:
    """NG4: no port, no canonicalisation, HTTP in capitals and any other service as it is."""
    assert str(service_at(Place(host=host, randomness=bytes), spn)) == expected


def test_negotiate_with_a_hint_is_still_negotiate() -> None:
    """NG6: data in the first challenge is overlooked."""
    assert usable(NEGOTIATE)
    assert usable(Challenge(scheme="negotiate", token68="abcd"))
    assert not usable(Challenge(scheme="ntlm"))


# ── NTLM inside ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("raw", [False, True])
def test_ntlm_inside_admits_the_right_password_and_no_other(raw: bool) -> None:
    """NG1, NG6: three legs, pinned, in SPNEGO; a server may go on without SPNEGO."""
    talker, acceptor = session(), NtlmAcceptor(scheme="Negotiate", raw=raw)
    if raw:
        acceptor = _Unwrapping(scheme="Negotiate", raw=True)
    attempts = converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    assert acceptor.user == "CORP\\alice"
    assert [attempt.pinned for attempt in attempts] == [False, True]
    assert talker.mechanism == "ntlm"
    with pytest.raises(AuthRejected, match=r"refused user name or password of 'CORP\\alice'"):
        converse(session(password="x"), inside(), request=GET, challenge=NEGOTIATE)


class _Unwrapping(NtlmAcceptor):
    """Takes the first NTLM message out of its SPNEGO, and goes on without."""

    def reply(self, attempt: Attempt) -> Reply:
        assert attempt.authorization is not None
        token = base64.b64decode(attempt.authorization.partition(" ")[2])
        raw = token[token.index(b"NTLMSSP\0") :]
        return super().reply(replace(attempt, authorization=line(raw)))


def test_a_refusal_says_why_it_was_ntlm() -> None:
    """Never silently: the reason why Kerberos could not start goes with it."""
    with pytest.raises(AuthRejected) as raised:
        converse(session(password="x"), inside(), request=GET, challenge=NEGOTIATE)
    text = str(raised.value)
    assert "NTLM was spoken inside Negotiate" in text
    assert "192.0.2.1 is an address" in text


@pytest.mark.parametrize("persistent", [None, "true", "false"])
def test_ntlm_inside_belongs_to_the_connection(persistent: str | None) -> None:
    """NG2: later requests carry nothing until they are asked; then they begin anew."""
    talker = session()
    first = NtlmAcceptor(scheme="Negotiate", persistent=persistent)
    converse(talker, first, request=GET, challenge=NEGOTIATE)
    assert [a.authorization for a in converse(talker, first, request=GET)] == [None]
    other = inside()
    attempts = converse(talker, other, request=GET)
    assert [attempt.pinned for attempt in attempts] == [False, False, True]
    assert other.user == "CORP\\alice"


@pytest.mark.parametrize(("seen", "admitted"), [(BINDING, True), (b"other", False), (None, False)])
def test_ntlm_inside_is_bound_to_its_connection(seen: bytes | None, admitted: bool) -> None:
    """The binding is that of the connection of the challenge; a wrong or absent one is refused."""
    acceptor = NtlmAcceptor(scheme="Negotiate", binding=BINDING, seen_binding=seen)
    if admitted:
        converse(session(), acceptor, request=GET_TLS, challenge=NEGOTIATE)
        assert acceptor.user == "CORP\\alice"
    else:
        with pytest.raises(AuthRejected, match="or it demands a binding"):
            converse(session(), acceptor, request=GET_TLS, challenge=NEGOTIATE)
        assert type(acceptor.errors[0]).__name__ == "BadBindingsError"


class _Tampering(NtlmAcceptor):
    """Changes its final token: `change` gets it, and returns another."""

    def __init__(self, change: bytes) -> None:
        super().__init__(scheme="Negotiate")
        self._change = change

    def reply(self, attempt: Attempt) -> Reply:
        reply = super().reply(attempt)
        if reply.status != 200:
            return reply
        token = base64.b64decode(reply.authenticate[0].partition(" ")[2])
        return replace(
            reply,
            authenticate=(line(self._change or token[:-5] + bytes([token[-5] ^ 1]) + token[-4:]),),
        )


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"garbage",
        # accept-completed with a mechListMIC that is wrong; reject.
        bytes.fromhex("a11b3019a0030a0100a312041001000000" + "00" * 12),
        bytes.fromhex("a1073005a0030a0102"),
    ],
    ids=["flipped", "garbage", "mic", "reject"],
)
def test_the_list_of_mechanisms_is_verified(change: bytes) -> None:
    """NG6: who strips a mechanism from the list cannot sign it. The reply is not to be used."""
    with pytest.raises(NotMutual, match="did not prove that it is HTTP/"):
        converse(session(), _Tampering(change), request=GET, challenge=NEGOTIATE)


def test_a_final_token_that_wants_an_answer_is_not_final() -> None:
    """A challenge that comes with the content proves nothing, and is not answered."""
    talk = session().converse(GET, NEGOTIATE)
    step = next(talk)
    assert isinstance(step, Attempt)
    challenge = inside().reply(step)
    with pytest.raises(NotMutual, match="it is not the last one"):
        talk.send(replace(challenge, status=200))


def test_a_proxy_has_a_service_name_of_its_own() -> None:
    """NG5: HTTP/proxyhost, or what the job says for the proxy."""
    options = NegotiateOptions(ntlm=True, spn="HTTP/server.test", proxy_spn="HTTP/192.0.2.9")
    talk = session(target=Target.PROXY, options=options).converse(GET, NEGOTIATE)
    next(talk)
    acceptor = NtlmAcceptor(scheme="Negotiate", target=Target.PROXY)
    talker = session(target=Target.PROXY, password="x", options=options)
    with pytest.raises(AuthRejected, match=r"the proxy refused .* 192\.0\.2\.9 is an address"):
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)


def test_the_legs_are_bounded() -> None:
    """H2: a server that always wants one more token does not get it."""
    acceptor = inside()
    talk = session().converse(GET, NEGOTIATE)
    step, sent = next(talk), 1
    reply = acceptor.reply(step) if isinstance(step, Attempt) else Reply(status=500)
    with contextlib.suppress(AuthRejected):
        while sent <= LEGS:
            talk.send(reply)
            sent += 1
    assert sent <= LEGS


def test_nothing_is_sent_to_a_server_that_asks_for_something_else() -> None:
    """A later 401 without Negotiate is for the authenticator to choose by."""
    talk = session().converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=401, authenticate=('Basic realm="r"', "Negotiate !")[:1]))


@given(st.binary(min_size=1, max_size=120), st.booleans())
def test_garbage_is_refused_and_never_crashes(token: bytes, final: bool) -> None:
    """Whatever comes back for the first token, with a challenge or with the content."""
    talk = session().converse(GET, NEGOTIATE)
    next(talk)
    reply = Reply(status=200 if final else 401, authenticate=(line(token),))
    with pytest.raises(NotMutual if final else AuthRejected):
        talk.send(reply)


@pytest.mark.parametrize("text", ["Negotiate !!!", "Negotiate abc", "negotiate  a-_~"])
def test_what_is_no_base64_proves_nothing(text: str) -> None:
    """A final token that cannot be read is a wrong one, not an absent one."""
    talk = session().converse(GET, NEGOTIATE)
    next(talk)
    with pytest.raises(NotMutual):
        talk.send(Reply(status=200, authenticate=(text,)))
