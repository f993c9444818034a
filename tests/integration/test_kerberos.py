"""Negotiate with Kerberos: whose tickets, how long, and what proves the server.

A real KDC, and MIT's acceptor in this process. What goes wrong is in test_kerberos_failures.py,
what happens without a KDC in tests/unit/test_negotiate.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gss_acceptors import (
    KerberosAcceptor,
    NtlmAcceptor,
    accept,
    converse,
    ntlm_users,
)
from tests.support.kdc import REALM
from tests.support.realm import (
    BINDING,
    GET,
    GET_TLS,
    NEGOTIATE,
    Realm,
    ScriptedTickets,
    begin,
    expired,
    failure,
    own,
    served,
    session,
    token_of,
)
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    USER,
)
from transferd.auth import kerberos
from transferd.auth.flow import (
    Attempt,
    AuthRejected,
    CannotStart,
    NotMutual,
    Reply,
)
from transferd.auth.gss import Service
from transferd.auth.negotiate import NegotiateSession
from transferd.model.credentials import NegotiateOptions, Target

HTTP = Service("HTTP", "localhost")


# ── whose tickets ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("username", "password", "principal"),
    [
        (USER, PASSWORD, USER),
        (f"{USER}@{REALM}", PASSWORD, USER),
        (f"{USER}@{REALM.lower()}", PASSWORD, USER),
        (f"{REALM.lower()}\\{USER}", PASSWORD, USER),
        (ODD_USER, ODD_PASSWORD, ODD_USER),
        ("ju\u0308rgen", ODD_PASSWORD.replace("ä", "a\u0308"), ODD_USER),
    ],
)
def test_the_right_password_is_admitted_and_a_wrong_one_is_not(
    realm: Realm, username: str, password: str, principal: str
) -> None:
    """Every form of a name, every text as password; the KDC refuses, and nothing is sent."""
    talker, acceptor = session(username, password), realm.acceptor()
    attempts = converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    assert acceptor.users == [f"{principal}@{REALM}"]
    assert talker.mechanism == "kerberos"
    assert [attempt.pinned for attempt in attempts] == [False]
    refused = failure(session(username, "tell-nobody"))
    assert isinstance(refused, AuthRejected)
    assert "the KDC refuses it" in str(refused)
    assert "tell-nobody" not in repr(refused) + repr(refused.__cause__)


def test_the_owners_ticket_cache_is_used(realm: Realm) -> None:
    """NG7: KRB5CCNAME, or the cache that the job names; and it is left as it was."""
    ccache = realm.kdc.kinit()
    realm.configure(ccache=ccache)
    other = realm.kdc.kinit(ODD_USER, password=ODD_PASSWORD)
    acceptor = realm.acceptor()
    for talker in (own(), own(ccache=f"FILE:{other}"), own(ccache=str(other), principal=ODD_USER)):
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
        talker.close()
    assert acceptor.users == [f"{name}@{REALM}" for name in (USER, ODD_USER, ODD_USER)]
    begin(own())


def test_of_a_collection_the_wanted_principal_is_used(realm: Realm, tmp_path: Path) -> None:
    """A directory holds caches of several identities."""
    for name, password in ((USER, PASSWORD), (ODD_USER, ODD_PASSWORD)):
        realm.kdc.kinit(name, password=password, ccache=tmp_path / f"tkt{len(name)}")
    acceptor = realm.acceptor()
    for name in (ODD_USER, USER):
        talker = own(ccache=f"DIR:{tmp_path}", principal=name)
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    assert acceptor.users == [f"{name}@{REALM}" for name in (ODD_USER, USER)]


def test_a_ticket_of_somebody_else_is_not_used(realm: Realm) -> None:
    """Who is named by the job is asked for, not whoever happens to be there."""
    error = failure(own(ccache=f"FILE:{realm.kdc.kinit()}", principal=ODD_USER))
    assert ODD_USER in str(error)
    assert error.advice is not None
    assert f"kinit -c FILE:{realm.kdc.directory}" in error.advice


def test_a_keytab_is_used(realm: Realm) -> None:
    """NG7: the first principal in it, or the one that the job names."""
    keytab = str(realm.kdc.export(ODD_USER, USER))
    acceptor = realm.acceptor()
    for talker in (own(keytab=keytab), own(keytab=keytab, principal=f"{USER}@{REALM}")):
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    assert acceptor.users == [f"{name}@{REALM}" for name in (ODD_USER, USER)]


def test_an_explicit_credential_never_becomes_the_owners_own(realm: Realm) -> None:
    """A wrong password is not made good by a ticket that is lying about."""
    realm.configure(ccache=realm.kdc.kinit())
    assert isinstance(failure(session(ODD_USER, "wrong")), AuthRejected)


def test_the_job_can_name_the_service(realm: Realm) -> None:
    """NG4: for an address, or a host whose service runs under another name."""
    acceptor = realm.acceptor()
    for spn in ("HTTP/localhost", "http/localhost", "localhost"):
        talker = session(host="127.0.0.1", options=NegotiateOptions(spn=spn))
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    assert len(acceptor.users) == 3


def test_nothing_is_delegated(realm: Realm) -> None:
    """NG8: the server can act in nobody's name; encryption is not asked for either."""
    from gssapi import RequirementFlag

    realm.configure(ccache=realm.kdc.kinit())
    for talker in (session(), own()):
        context, _, error = accept(realm.kdc.keytab, begin(talker))
        assert error is None
        assert RequirementFlag.delegate_to_peer not in context.actual_flags
        assert RequirementFlag.mutual_authentication in context.actual_flags


# ── one context per exchange, one ticket for many ──────────────────────────────────────────


def test_later_requests_carry_fresh_tokens_for_the_same_ticket(own_realm: Realm) -> None:
    """A replayed token would be refused; the KDC is not asked again."""
    talker, acceptor = session(), own_realm.acceptor()
    sent = converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    own_realm.kdc.stop()
    for _ in range(3):
        sent += converse(talker, acceptor, request=GET)
    assert len(set(map(token_of, sent))) == 4
    assert acceptor.users == [f"{USER}@{REALM}"] * 4


def test_a_server_that_keeps_connections_authenticated_gets_no_second_token(
    realm: Realm,
) -> None:
    """NG2: Persistent-Auth: true; a 401 ends it, and the fresh challenge is answered."""
    talker, acceptor = session(), realm.acceptor()
    acceptor.persistent = "true"
    converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    acceptor.known = True
    assert [a.authorization for a in converse(talker, acceptor, request=GET)] == [None]
    acceptor.known, acceptor.persistent = False, None
    assert len(converse(talker, acceptor, request=GET)) == 2
    assert len(converse(talker, acceptor, request=GET)) == 1
    assert acceptor.errors == []


def test_a_token_that_nobody_asked_for_may_be_refused_once(realm: Realm) -> None:
    """The server may have a new key, for which a new ticket is needed: that one counts."""
    talker, acceptor = session(), realm.acceptor()
    converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    before = realm.tickets_issued
    attempts = converse(talker, _Refusing(acceptor, times=1), request=GET)
    assert len(attempts) == 2
    assert realm.tickets_issued == before + 2
    with pytest.raises(AuthRejected, match="refused the Kerberos ticket for HTTP/localhost"):
        converse(talker, _Refusing(acceptor, times=2), request=GET)


@dataclass
class _Refusing:
    """Says so many times that it has not heard anything, then goes on as the acceptor does."""

    acceptor: KerberosAcceptor
    times: int

    def reply(self, attempt: Attempt) -> Reply:
        if not self.times:
            return self.acceptor.reply(attempt)
        self.times -= 1
        return Reply(status=401, authenticate=("Negotiate",))


def test_a_later_request_that_is_asked_for_something_else_is_left_alone(realm: Realm) -> None:
    """Without Negotiate among the offers the authenticator chooses again."""
    talker = session()
    converse(talker, realm.acceptor(), request=GET, challenge=NEGOTIATE)
    talk = talker.converse(GET, None)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(Reply(status=401, authenticate=('Basic realm="r"',)))


def test_tickets_that_end_soon_are_got_anew(own_realm: Realm) -> None:
    """A long job outlives its first ticket, by password and by keytab, and nobody notices."""
    config = own_realm.kdc.configuration(ticket_lifetime="50s")
    own_realm.configure(config=config)
    keytab = str(own_realm.kdc.export(USER))
    for talker in (session(), own(keytab=keytab)):
        begin(talker)
        before = own_realm.tickets_issued
        begin(talker)
        assert own_realm.tickets_issued == before + 2
    own_realm.kdc.stop()
    assert failure(session()).code == "kdc_unreachable"


def test_a_ticket_that_ended_unseen_is_got_anew_once(own_realm: Realm) -> None:
    """A clock that was set, a ticket shorter than it said: the KDC is asked, not the owner."""
    stale, fresh = expired(own_realm), f"FILE:{own_realm.kdc.kinit()}"
    kerberos.open_kerberos(ScriptedTickets([stale, fresh]), HTTP, Target.SERVER, None)
    with pytest.raises(CannotStart, match="the ticket has expired"):
        kerberos.open_kerberos(ScriptedTickets([stale, stale]), HTTP, Target.SERVER, None)


def test_the_owners_kinit_counts_at_once(own_realm: Realm) -> None:
    """A cache is read anew each time: none, an expired one, a new one."""
    old = expired(own_realm)
    path = own_realm.kdc.directory / "owners.ccache"
    own_realm.configure(ccache=path)
    talker = own()
    error = failure(talker)
    assert f"with the ticket cache FILE:{path}: there is no ticket" in str(error)
    assert error.advice == "get a ticket with `kinit`"
    path.write_bytes(Path(old.removeprefix("FILE:")).read_bytes())
    error = failure(talker)
    assert "the ticket has expired" in str(error)
    assert error.advice == "get a ticket with `kinit`"
    own_realm.kdc.kinit(ccache=path)
    begin(talker)


@pytest.mark.parametrize("end", [NegotiateSession.close, lambda _: None], ids=["closed", "dropped"])
def test_tickets_of_ours_do_not_outlive_their_session(
    realm: Realm, end: Callable[[NegotiateSession], None]
) -> None:
    """krb5 keeps a cache in memory, with its keys, until somebody destroys it."""
    import krb5

    talker = session()
    begin(talker)
    context = krb5.init_context()
    name = talker._tickets.cache()
    assert krb5.cc_resolve(context, name.encode()).principal is not None
    end(talker)
    del talker
    # pyspnego keeps an exception, and with it every frame that led there, until then.
    gc.collect()
    with pytest.raises(krb5.Krb5Error):
        _ = krb5.cc_resolve(context, name.encode()).principal


# ── the final token ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("proof", [True, False])
def test_the_final_token_is_right_or_missing(realm: Realm, proof: bool) -> None:
    """NG3: squid and lighttpd send none."""
    acceptor = realm.acceptor()
    acceptor.proof = proof
    talker = session()
    converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
    converse(talker, acceptor, request=GET)
    assert len(acceptor.users) == 2


@pytest.mark.parametrize(
    "token",
    [
        b"garbage",
        # accept-completed without a proof; reject.
        bytes.fromhex("a1073005a0030a0100"),
        bytes.fromhex("a1073005a0030a0102"),
        b"NTLMSSP\0\2\0\0\0" + bytes(60),
    ],
    ids=["garbage", "empty", "reject", "ntlm"],
)
def test_a_final_token_without_a_proof_is_refused(realm: Realm, token: bytes) -> None:
    """RFC 4559 5: the body is not to be used. With the content, or with any other status."""
    for status in (200, 302, 403):
        talk = session().converse(GET, NEGOTIATE)
        next(talk)
        with pytest.raises(NotMutual, match="did not prove that it is HTTP/localhost"):
            talk.send(replace(served(token), status=status))


def test_no_token_crashes_the_libraries(realm: Realm) -> None:
    """Whatever comes back: a change anywhere in a real proof, in its SPNEGO or its Kerberos."""
    talker = session()
    _, proof, _ = accept(realm.kdc.keytab, begin(talker))
    assert proof is not None

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, len(proof) - 1), st.integers(0, 255), st.booleans())
    def answer(at: int, value: int, final: bool) -> None:
        talk = talker.converse(GET, NEGOTIATE)
        next(talk)
        token = proof[:at] + bytes([value]) + proof[at + 1 :]
        reply = served(token) if final else replace(served(token), status=401)
        with pytest.raises(NotMutual if final else AuthRejected):
            talk.send(reply)

    answer()


def test_a_proof_of_another_exchange_is_refused(realm: Realm) -> None:
    """Nor one that was changed: only who has the service's key can make it, for this token."""
    talker = session()
    _, proof, _ = accept(realm.kdc.keytab, begin(talker))
    assert proof is not None
    talk = talker.converse(GET, NEGOTIATE)
    next(talk)
    with pytest.raises(NotMutual, match="Mutual authentication failed"):
        talk.send(served(proof))
    talk = talker.converse(GET, NEGOTIATE)
    step = next(talk)
    assert isinstance(step, Attempt)
    _, proof, _ = accept(realm.kdc.keytab, token_of(step))
    assert proof is not None
    with pytest.raises(NotMutual):
        talk.send(served(proof[:-3] + bytes([proof[-3] ^ 1]) + proof[-2:]))


def test_after_a_wrong_proof_nothing_is_remembered(realm: Realm) -> None:
    """The next request of such a session carries nothing."""
    talker = session()
    talk = talker.converse(GET, NEGOTIATE)
    next(talk)
    with pytest.raises(NotMutual):
        talk.send(served(b"garbage"))
    step = next(talker.converse(GET, None))
    assert isinstance(step, Attempt)
    assert step.authorization is None


# ── channel binding ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("bound", "admitted"), [(BINDING, True), (b"other", False), (None, False)])
def test_a_ticket_is_bound_to_its_connection(
    realm: Realm, bound: bytes | None, admitted: bool
) -> None:
    """A server that knows its binding refuses a wrong one, and ours the absence of any."""
    acceptor = realm.acceptor()
    acceptor.binding = BINDING
    request = replace(GET_TLS, channel_binding=bound)
    if admitted:
        converse(session(), acceptor, request=request, challenge=NEGOTIATE)
        assert acceptor.users == [f"{USER}@{REALM}"]
        return
    with pytest.raises(AuthRejected):
        converse(session(), acceptor, request=request, challenge=NEGOTIATE)
    assert acceptor.users == []


def test_a_refused_binding_is_named_as_a_reason(realm: Realm) -> None:
    """MIT says "generic error" for it."""
    acceptor = realm.acceptor()
    acceptor.binding = b"other"
    with pytest.raises(AuthRejected, match="as it does when a channel binding is wrong"):
        converse(session(), acceptor, request=GET_TLS, challenge=NEGOTIATE)


def test_a_later_answer_is_bound_to_the_connection_of_its_challenge(realm: Realm) -> None:
    """The first token of a request has the request's binding, the next that of the reply."""
    talker, acceptor = session(), realm.acceptor()
    acceptor.binding = acceptor.seen_binding = BINDING
    converse(talker, acceptor, request=GET_TLS, challenge=NEGOTIATE)
    stale = replace(GET_TLS, channel_binding=b"of a connection that is gone")
    assert len(converse(talker, acceptor, request=stale)) == 2
    assert acceptor.users == [f"{USER}@{REALM}"] * 2


# ── NTLM instead ───────────────────────────────────────────────────────────────────────────


def test_ntlm_is_spoken_only_where_kerberos_cannot_start(realm: Realm) -> None:
    """Openly, and never after the KDC has refused the password: that would count twice."""
    allowed = NegotiateOptions(ntlm=True)
    with ntlm_users():
        talker, acceptor = session("bob", options=allowed), NtlmAcceptor(scheme="Negotiate")
        converse(talker, acceptor, request=GET, challenge=NEGOTIATE)
        assert (talker.mechanism, acceptor.user) == ("ntlm", "bob")
    talker = session(password="wrong", options=allowed)
    assert isinstance(failure(talker), AuthRejected)
    talker = session(options=allowed)
    converse(talker, realm.acceptor(), request=GET, challenge=NEGOTIATE)
    assert talker.mechanism == "kerberos"
