"""Kerberos that does not work: each reason has a message of its own, and something to do."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.gss_acceptors import (
    converse,
)
from tests.support.kdc import REALM, silent_port
from tests.support.realm import (
    GET,
    NEGOTIATE,
    Realm,
    ScriptedTickets,
    failure,
    own,
    served,
    session,
)
from tests.support.servers import (
    ODD_USER,
    USER,
)
from transferd.auth import kerberos
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    CannotStart,
    Reply,
)
from transferd.auth.gss import Service
from transferd.auth.negotiate import LEGS
from transferd.model.credentials import Target
from transferd.model.failures import kind_of

HTTP = Service("HTTP", "localhost")


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
    assert "--spn (negotiate.spn)" in error.advice


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
        assert error.advice == (
            "export the key to the keytab anew"
            if principal is None
            else f"name one that is in it with --principal (`klist -k {path}` lists them), or"
            " export the key anew"
        )


def test_what_is_wrong_with_a_cache_is_told(realm: Realm, tmp_path: Path) -> None:
    """Garbage, a kind that nobody knows, one that is not running, one without a ticket."""
    import krb5

    empty, context = f"FILE:{tmp_path}/empty", krb5.init_context()
    cache = krb5.cc_resolve(context, empty.encode())
    krb5.cc_initialize(context, cache, krb5.parse_name_flags(context, USER.encode()))
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"garbage")
    for ccache, text in (
        (f"FILE:{garbage}", "the ticket cache cannot be read"),
        (f"FILE:{tmp_path}", "the ticket cache cannot be read"),
        ("ODD:thing", "the ticket cache cannot be read"),
        ("KCM:", "there is no ticket"),
        (empty, "Credential cache is empty"),
    ):
        error = failure(own(ccache=ccache))
        assert f"the ticket cache {ccache}: {text}" in str(error)
        assert error.advice == f"get a ticket with `kinit -c {ccache}`"


def test_nobody_waits_for_a_pipe(realm: Realm, tmp_path: Path) -> None:
    """krb5 opens files with every thread of the process waiting: one pipe would end all jobs."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Open and with something in it, or this test would wait where it should fail.
    kept = os.open(pipe, os.O_RDWR)
    os.write(kept, b"garbage")
    try:
        cache = "the ticket cache cannot be read"
        for talker, text in (
            (own(keytab=str(pipe)), "the file is no keytab"),
            (own(ccache=str(pipe)), cache),
            (own(ccache=f"FILE:{pipe}"), cache),
            (own(ccache=f"DIR::{pipe}"), cache),
            (own(ccache=str(pipe), principal=USER), cache),
        ):
            error = failure(talker)
            assert isinstance(error, CannotStart)
            assert f"{text} (it is no regular file)" in str(error)
    finally:
        os.close(kept)


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
        kerberos.open_kerberos(ScriptedTickets([error]), HTTP, Target.SERVER, None)
    assert "HTTP/localhost with a script" in str(raised.value)
    assert raised.value.advice is not None or raised.value.code == "kdc_unreachable"


def test_a_broken_configuration_is_told(realm: Realm, tmp_path: Path) -> None:
    """krb5.conf is the machine's: nothing of it may crash a worker."""
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults\n", encoding="utf-8")
    # What other tests have left behind cannot be freed without a configuration.
    gc.collect()
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
    assert "--spn (negotiate.spn)" in e.value.advice


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
