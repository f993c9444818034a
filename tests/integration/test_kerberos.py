"""Negotiate with Kerberos: a real KDC, MIT's acceptor in this process, and the servers of Debian.

What happens without a KDC is in tests/unit/test_negotiate.py.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.apache_gssapi import NTLM_DOMAIN, NTLM_ODD_USER
from tests.support.clocks import shifted_clock
from tests.support.gss_acceptors import (
    KerberosAcceptor,
    NtlmAcceptor,
    accept,
    converse,
    ntlm_users,
    require_module,
)
from tests.support.kdc import REALM, Kdc, silent_port
from tests.support.kdc import kdc as new_kdc
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    USER,
    Server,
    require_program,
)
from tests.support.squid import Squid
from transferd.auth import kerberos
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthError,
    AuthRejected,
    CannotStart,
    NotMutual,
    Place,
    Reply,
    RequestLine,
    Session,
)
from transferd.auth.gss import Service
from transferd.auth.negotiate import LEGS, NegotiateSession
from transferd.auth.ntlm import NtlmSession
from transferd.auth.tickets import Tickets
from transferd.model.credentials import Credential, NegotiateOptions, Scheme, Secret, Target
from transferd.model.failures import kind_of

HTTP = Service("HTTP", "localhost")
BINDING = b"tls-server-end-point:" + bytes(range(32))
GET = RequestLine(method="GET", target="/a", url="http://localhost/a")
GET_TLS = replace(GET, url="https://localhost/a", channel_binding=BINDING)
NEGOTIATE = Challenge(scheme="negotiate")
_NOTHING = NegotiateOptions()


@pytest.fixture(autouse=True)
def _libraries() -> None:
    require_module("gssapi")
    require_module("krb5")


@dataclass
class Realm:
    """A KDC, and this process as a machine of its realm."""

    kdc: Kdc
    patch: pytest.MonkeyPatch

    def configure(self, *, ccache: Path | None = None, config: Path | None = None) -> None:
        """Be configured so from now on."""
        for name, value in self.kdc.environment(ccache=ccache, config=config).items():
            self.patch.setenv(name, value)

    def acceptor(self) -> KerberosAcceptor:
        """Make a server that has the key of HTTP/localhost."""
        return KerberosAcceptor(self.kdc.keytab)

    @property
    def tickets_issued(self) -> int:
        """How often somebody got a ticket from the KDC, for a secret or for another ticket."""
        log = (self.kdc.directory / "kdc.log").read_text(errors="replace")
        return sum("_REQ" in line and "ISSUE" in line for line in log.splitlines())


@pytest.fixture
def realm(kdc: Kdc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Realm:
    """The realm of the shared KDC; nobody has a ticket."""
    return join(kdc, monkeypatch, tmp_path)


@pytest.fixture
def own_realm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Realm]:
    """A realm whose KDC may be stopped and shifted."""
    with new_kdc() as kdc:
        yield join(kdc, monkeypatch, tmp_path)


def join(kdc: Kdc, patch: pytest.MonkeyPatch, directory: Path) -> Realm:
    """Make this process a machine of a realm."""
    made = Realm(kdc, patch)
    made.configure()
    patch.setenv("KRB5RCACHENAME", f"file2:{directory}/seen")
    return made


def session(
    username: str | None = USER,
    password: str = PASSWORD,
    *,
    host: str = "localhost",
    options: NegotiateOptions = _NOTHING,
    target: Target = Target.SERVER,
) -> NegotiateSession:
    """Make a session; without a user, the owner's own."""
    credential = Credential(
        target=target,
        scheme=Scheme.NEGOTIATE,
        username=username,
        password=Secret("" if username is None else password),
    )
    return NegotiateSession(credential, Place(host=host, randomness=bytes, negotiate=options))


def own(
    *, ccache: str | None = None, keytab: str | None = None, principal: str | None = None
) -> NegotiateSession:
    """Make a session of the owner's own identity."""
    options = NegotiateOptions(ccache=ccache, keytab=keytab, principal=principal)
    return session(None, options=options)


def begin(talker: NegotiateSession) -> bytes:
    """Begin a conversation and return the token that it sends first."""
    step = next(talker.converse(GET, NEGOTIATE))
    assert isinstance(step, Attempt)
    return token_of(step)


def token_of(attempt: Attempt) -> bytes:
    """Return the token of an attempt."""
    assert attempt.authorization is not None
    return base64.b64decode(attempt.authorization.removeprefix("Negotiate "), validate=True)


def served(token: bytes) -> Reply:
    """Make a final reply with a token."""
    line = f"Negotiate {base64.b64encode(token).decode()}"
    return Reply(status=200, authenticate=(line,))


def failure(talker: NegotiateSession) -> AuthError:
    """Return what keeps a conversation from beginning."""
    with pytest.raises((CannotStart, AuthRejected)) as raised:
        begin(talker)
    return raised.value


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
    kerberos.open_kerberos(_Scripted([stale, fresh]), HTTP, None)
    with pytest.raises(CannotStart, match="the ticket has expired"):
        kerberos.open_kerberos(_Scripted([stale, stale]), HTTP, None)


class _Scripted(Tickets):
    """Tickets that are found in the given caches, one after the other; or not at all."""

    own = True
    remedy = "do something"

    def __init__(self, caches: list[str | Exception]) -> None:
        self._caches = caches

    def __str__(self) -> str:
        return "a script"

    def cache(self) -> str:
        found = self._caches[0]
        if isinstance(found, Exception):
            raise found
        return found

    def forget(self) -> None:
        self._caches.pop(0)


def expired(realm: Realm) -> str:
    """Return a cache with a ticket that ended an hour ago."""
    shift = timedelta(hours=-2)
    path = realm.kdc.directory / "expired.ccache"
    realm.kdc.stop()
    realm.kdc.start(clock=shift)
    subprocess.run(
        [require_program("kinit"), "-l", "1h", "-c", f"FILE:{path}", USER],
        env={**realm.kdc.environment(), **shifted_clock(realm.kdc.directory, shift)},
        input=f"{PASSWORD}\n".encode(),
        check=True,
        capture_output=True,
    )
    realm.kdc.stop()
    realm.kdc.start()
    return f"FILE:{path}"


def test_the_owners_kinit_counts_at_once(own_realm: Realm) -> None:
    """A cache is read anew each time: none, an expired one, a new one."""
    old = expired(own_realm)
    path = own_realm.kdc.directory / "owners.ccache"
    own_realm.configure(ccache=path)
    talker = own()
    error = failure(talker)
    assert f"with the ticket cache FILE:{path}: there is no ticket" in str(error)
    assert error.advice == "get a ticket with `kinit`, then resume"
    path.write_bytes(Path(old.removeprefix("FILE:")).read_bytes())
    error = failure(talker)
    assert "the ticket has expired" in str(error)
    assert error.advice == "get a ticket with `kinit`, then resume"
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


# ── what goes wrong on the way to a ticket ─────────────────────────────────────────────────


def test_a_kdc_that_is_down_is_waited_for(own_realm: Realm) -> None:
    """Transient: it is tried again by itself."""
    own_realm.kdc.stop()
    error = failure(session())
    assert isinstance(error, CannotStart)
    assert error.code == "kdc_unreachable"
    assert kind_of(error.code).transient
    assert f"Cannot contact any KDC for realm '{REALM}'" in str(error)
    assert error.advice is not None
    assert error.advice.startswith("wait: it is tried again by itself")


def test_a_kdc_with_another_time_is_named(own_realm: Realm) -> None:
    """NG9: the fact, not "wrong password"."""
    own_realm.kdc.stop()
    own_realm.kdc.start(clock=timedelta(hours=1))
    own_realm.configure(config=own_realm.kdc.configuration(kdc_timesync="0"))
    error = failure(session())
    assert isinstance(error, CannotStart)
    assert "the clocks of this machine and of the KDC differ too much" in str(error)
    assert error.advice is not None
    assert error.advice.startswith("set the clocks")


@pytest.mark.parametrize(
    ("username", "text", "advice"),
    [
        ("nobody", "the KDC does not know the user", "right realm"),
        (f"{USER}@NO.WHERE", "the realm is not known here", "user@REALM"),
        (f"NOWHERE\\{USER}", "the realm is not known here", "user@REALM"),
        ("a@b@c", "Malformed representation of principal", "set the right credentials"),
    ],
)
def test_a_name_that_leads_nowhere_is_no_refusal(
    realm: Realm, username: str, text: str, advice: str
) -> None:
    """Each its own message, with the name; another scheme may do."""
    error = failure(session(username))
    assert isinstance(error, CannotStart)
    assert text in str(error)
    assert error.advice is not None
    assert advice in error.advice


def test_a_service_that_the_kdc_does_not_know_is_named(realm: Realm) -> None:
    """NG9: the name that was asked for, and how to ask for another."""
    error = failure(session(host="nowhere.test"))
    assert isinstance(error, CannotStart)
    assert "the KDC does not know the service HTTP/nowhere.test" in str(error)
    assert error.advice is not None
    assert "negotiate.spn" in error.advice


def test_what_is_wrong_with_a_keytab_is_told(realm: Realm, tmp_path: Path) -> None:
    """Missing, no keytab, empty, without that principal, out of date: each its own message."""
    whole = realm.kdc.export(ODD_USER)
    garbage, empty = tmp_path / "garbage", tmp_path / "empty"
    garbage.write_bytes(b"garbage")
    empty.write_bytes(b"\x05\x02")
    for path, principal, text in (
        (tmp_path / "none", None, "the file does not exist"),
        (garbage, None, "the file is no keytab"),
        (empty, None, "there is no key for that principal in it (it is empty)"),
        (whole, USER, "there is no key for that principal in it"),
    ):
        error = failure(own(keytab=str(path), principal=principal))
        assert isinstance(error, CannotStart)
        assert f"the keytab {path}" in str(error)
        assert text in str(error)
        assert error.advice == "export the key to the keytab anew, then resume"


def test_what_is_wrong_with_a_cache_is_told(realm: Realm, tmp_path: Path) -> None:
    """Garbage, a kind that nobody knows, one that is not running."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"garbage")
    for ccache, text in (
        (f"FILE:{garbage}", "the ticket cache cannot be read"),
        (f"FILE:{tmp_path}", "the ticket cache cannot be read"),
        ("ODD:thing", "the ticket cache cannot be read"),
        ("KCM:", "there is no ticket"),
    ):
        error = failure(own(ccache=ccache))
        assert f"the ticket cache {ccache}: {text}" in str(error)
        assert error.advice == f"get a ticket with `kinit -c {ccache}`, then resume"


@pytest.mark.parametrize(
    ("code", "rejected", "text"),
    [
        (-1765328366, True, "locked or disabled"),
        (-1765328383, True, "the account has expired"),
        (-1765328361, True, "the password has expired"),
        (-1765328353, True, "the KDC refuses it"),
        (-1765328160, False, "the realm is not known here"),
        (-1765328164, False, "no KDC answers"),
        (13, False, "may not read the file"),
        (-1765328370, False, "KDC has no support for encryption type"),
    ],
)
def test_each_code_of_krb5_has_its_message(
    realm: Realm, code: int, rejected: bool, text: str
) -> None:
    """A refusal of the KDC is one; what it may be else lets another scheme try."""
    import krb5

    error = krb5.Krb5Error(krb5.init_context(), code)
    with pytest.raises(AuthRejected if rejected else CannotStart, match=text) as raised:
        kerberos.open_kerberos(_Scripted([error]), HTTP, None)
    assert "HTTP/localhost with a script" in str(raised.value)
    assert raised.value.advice is not None or raised.value.code == "kdc_unreachable"


def test_a_broken_configuration_is_told(realm: Realm, tmp_path: Path) -> None:
    """krb5.conf is the machine's: nothing of it may crash a worker."""
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults\n", encoding="utf-8")
    realm.configure(config=config)
    error = failure(session())
    assert "Improper format of Kerberos configuration file" in str(error)
    realm.configure()


def test_who_waits_for_a_silent_kdc_waits_alone(realm: Realm, tmp_path: Path) -> None:
    """A step may hang for as long as the library likes; nothing else depends on it."""
    with silent_port() as port:
        config = realm.kdc.configuration(path=tmp_path / "krb5.conf")
        with config.open("a", encoding="utf-8") as file:
            file.write(f"[realms]\n    SILENT.TEST = {{\n        kdc = 127.0.0.1:{port}\n    }}\n")
        realm.configure(config=config)
        hung = session(f"{USER}@SILENT.TEST")
        errors: list[AuthError] = []
        waiting = threading.Thread(target=lambda: errors.append(failure(hung)))
        waiting.start()
        acceptor = realm.acceptor()
        converse(session(), acceptor, request=GET, challenge=NEGOTIATE)
        assert acceptor.users == [f"{USER}@{REALM}"]
        assert waiting.is_alive()
    waiting.join()
    assert [error.code for error in errors] == ["kdc_unreachable"]


# ── what a server says when it refuses ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hours", "said"), [(-1, "Clock skew too great"), (1, "Ticket not yet valid")]
)
def test_a_server_with_another_time_is_named(own_realm: Realm, hours: int, said: str) -> None:
    """NG9: its KRB-ERROR is read; the ticket is of a KDC that lives an hour away."""
    own_realm.kdc.stop()
    own_realm.kdc.start(clock=timedelta(hours=hours))
    with pytest.raises(AuthRejected, match=rf"{said} \(GSS status 851968/\d+\)") as e:
        converse(session(), own_realm.acceptor(), request=GET, challenge=NEGOTIATE)
    assert e.value.advice is not None
    assert "of the server" in e.value.advice


def test_a_server_without_the_key_is_named(realm: Realm) -> None:
    """NG9: it runs as another service than its host's."""
    talker = session(host="elsewhere.test")
    with pytest.raises(AuthRejected, match=r"for HTTP/elsewhere\.test.* not found in keytab") as e:
        converse(talker, realm.acceptor(), request=GET, challenge=NEGOTIATE)
    assert e.value.advice is not None
    assert "negotiate.spn" in e.value.advice


def test_a_server_that_says_nothing_is_quoted_so(realm: Realm) -> None:
    """Who was refused, for what, and that no reason was given."""
    talk = session().converse(GET, NEGOTIATE)
    next(talk)
    with pytest.raises(AuthRejected) as raised:
        talk.send(Reply(status=401, authenticate=("Negotiate",)))
    assert str(raised.value) == (
        "the server refused the Kerberos ticket for HTTP/localhost, got with the password of"
        f" '{USER}', and does not say why"
    )


def test_a_server_that_wants_ever_more_tokens_is_left(realm: Realm) -> None:
    """H2: no exchange of Kerberos takes so many."""

    @dataclass
    class Insatiable:
        attempts: int = 0

        def reply(self, attempt: Attempt) -> Reply:
            self.attempts += 1
            # accept-incomplete, and nothing in it.
            token = bytes.fromhex("a1073005a0030a0101")
            return replace(served(token), status=401)

    server = Insatiable()
    with pytest.raises(AuthRejected):
        converse(session(), server, request=GET, challenge=NEGOTIATE)
    assert server.attempts <= LEGS


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


# ── the servers of Debian ──────────────────────────────────────────────────────────────────


@dataclass
class Wire:
    """One connection to a real server or proxy."""

    port: int
    target: str
    of: Target = Target.SERVER
    replies: list[Reply] = field(default_factory=list)
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("localhost", self.port)

    def reply(self, attempt: Attempt) -> Reply:
        """Send the request, as it is."""
        names = ("Authorization", "WWW-Authenticate", "Authentication-Info")
        if self.of is Target.PROXY:
            names = (f"Proxy-{names[0]}", "Proxy-Authenticate", f"Proxy-{names[2]}")
        sent = {} if attempt.authorization is None else {names[0]: attempt.authorization}
        self.connection.request("GET", self.target, headers=sent)
        answer = self.connection.getresponse()
        answer.read()
        self.replies.append(
            Reply(
                status=answer.status,
                authenticate=tuple(answer.headers.get_all(names[1], ())),
                authentication_info=tuple(answer.headers.get_all(names[2], ())),
                headers=tuple(answer.headers.items()),
            )
        )
        return self.replies[-1]


@dataclass(frozen=True)
class Peers:
    """All servers that know the realm."""

    apache: Server
    lighttpd: Server
    squid: Squid

    def wire(self, peer: str) -> Wire:
        """Connect to "SERVER PLACE"."""
        server, place = peer.split()
        if server == "squid":
            return Wire(self.squid.ports[place], "/real.bin")
        if server == "proxy":
            return Wire(self.squid.ports[place], self.apache.url("/real.bin"), Target.PROXY)
        found = self.apache if server == "apache" else self.lighttpd
        return Wire(found.port, f"/{place}/real.bin")


@pytest.fixture
def peers(realm: Realm, apache_gssapi: Server, lighttpd_kerberos: Server, squid: Squid) -> Peers:
    """All servers that know the realm, and a file on each."""
    apache_gssapi.put(b"content", name="real.bin")
    return Peers(apache_gssapi, lighttpd_kerberos, squid)


def admitted(talker: Session, wire: Wire, *, times: int = 2) -> list[int]:
    """Send requests on a connection; return the status of each reply."""
    with contextlib.closing(wire.connection):
        challenge = wire.reply(Attempt(authorization=None))
        assert challenge.status == CHALLENGE_STATUS[wire.of]
        wire.replies.clear()
        converse(talker, wire, request=GET, challenge=NEGOTIATE)
        for _ in range(times - 1):
            converse(talker, wire, request=GET)
        return [reply.status for reply in wire.replies]


@pytest.mark.parametrize(
    "peer",
    [
        "apache kerberos",
        "apache bound",
        "apache negotiate",
        "apache spnego",
        "apache every",
        "lighttpd kerberos",
        "squid origin-negotiate",
        "proxy negotiate",
    ],
)
def test_kerberos_is_admitted_by_real_servers(peers: Peers, peer: str) -> None:
    """With a password, a ticket of the owner's, and a keytab; two requests on one connection."""
    wire = peers.wire(peer)
    talker = session(target=wire.of)
    assert admitted(talker, wire) == [200, 200]
    assert talker.mechanism == "kerberos"
    told = dict(wire.replies[0].headers).get("X-User", f"{USER}@{REALM}")
    assert told == f"{USER}@{REALM}"


def test_tickets_and_keytabs_are_admitted_by_real_servers(peers: Peers, realm: Realm) -> None:
    """The owner's own identity, at each kind of acceptor."""
    realm.configure(ccache=realm.kdc.kinit())
    keytab = str(realm.kdc.export(USER))
    for peer in ("apache kerberos", "lighttpd kerberos", "squid origin-negotiate"):
        for talker in (own(), own(keytab=keytab)):
            assert admitted(talker, peers.wire(peer)) == [200, 200]


@pytest.mark.parametrize(
    ("peer", "target"),
    [
        ("apache spnego-ntlm", Target.SERVER),
        ("apache spnego", Target.SERVER),
    ],
)
def test_ntlm_inside_is_admitted_by_real_servers(peers: Peers, peer: str, target: Target) -> None:
    """gss-ntlmssp, behind MIT's SPNEGO; a later request needs no token, a wrong password fails."""
    allowed = NegotiateOptions(ntlm=True)

    def talker(password: str) -> NegotiateSession:
        # Kerberos knows no such realm.
        return session(f"{NTLM_DOMAIN}\\{USER}", password, options=allowed, target=target)

    right = talker(PASSWORD)
    assert admitted(right, peers.wire(peer)) == [401, 200, 200]
    assert right.mechanism == "ntlm"
    with pytest.raises(AuthRejected, match="refused user name or password"):
        admitted(talker("wrong"), peers.wire(peer))


@pytest.mark.parametrize(
    "peer", ["apache ntlm", "apache negotiate", "squid origin-ntlm", "proxy ntlm"]
)
@pytest.mark.parametrize(
    ("username", "password"),
    [(f"{NTLM_DOMAIN}\\{USER}", PASSWORD), (USER, PASSWORD), (NTLM_ODD_USER, ODD_PASSWORD)],
)
def test_ntlm_is_admitted_by_real_servers(
    peers: Peers, peer: str, username: str, password: str
) -> None:
    """gss-ntlmssp and Samba, raw; a later request needs no token, a wrong password fails."""
    if not peer.startswith("apache"):
        password = PASSWORD
    wire = peers.wire(peer)

    def talker(password: str) -> NtlmSession:
        return NtlmSession(
            Credential(
                target=wire.of, scheme=Scheme.NTLM, username=username, password=Secret(password)
            ),
            Place(host="localhost", randomness=bytes),
        )

    challenge = CHALLENGE_STATUS[wire.of]
    assert admitted(talker(password), wire) == [challenge, 200, 200]
    with pytest.raises(AuthRejected, match="refused user name or password"):
        admitted(talker("wrong"), peers.wire(peer))


@pytest.mark.parametrize("place", ["kerberos", "bound", "negotiate"])
def test_a_real_server_proves_itself(peers: Peers, place: str) -> None:
    """NG3: mod_auth_gssapi sends a final token, and it is accepted as right."""
    wire = peers.wire(f"apache {place}")
    admitted(session(), wire, times=1)
    (final,) = wire.replies
    assert [line.startswith("Negotiate ") for line in final.authenticate] == [True]


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("apache kerberos", r": The ticket isn't for us \(GSS status 851968/2529638947\)"),
        ("lighttpd kerberos", ", and does not say why"),
        ("squid origin-negotiate", ", and does not say why"),
    ],
)
def test_a_real_server_refuses_a_ticket_and_is_quoted(peers: Peers, peer: str, reason: str) -> None:
    """NG9: a ticket for a service whose key it does not have; most say nothing."""
    talker = session(options=NegotiateOptions(spn="HTTP/elsewhere.test"))
    with pytest.raises(AuthRejected, match=f"HTTP/elsewhere.test, .* '{USER}'{reason}"):
        admitted(talker, peers.wire(peer))
