"""What a caller may say of authentication: every flaw has its code, and no secret is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transferd.model import authentication
from transferd.model.authentication import check_credential
from transferd.model.credentials import (
    IMPLICIT_SCHEMES,
    PASSWORD_SCHEMES,
    Credential,
    PassportOptions,
    Scheme,
    Target,
)
from transferd.model.errors import BadRequest
from transferd.model.limits import Limits
from transferd.model.urls import check_configuration_url, check_login_host

LIMITS = Limits()


def code_of(check: Callable[[str, Limits], str], text: str) -> str:
    """Return the code of a refused text."""
    with pytest.raises(BadRequest) as caught:
        check(text, LIMITS)
    assert len(caught.value.detail) < 400
    return caught.value.code


def refused(username: str | None, password: str | None, scheme: Scheme) -> BadRequest:
    """Return the refusal of a credential."""
    with pytest.raises(BadRequest) as caught:
        check_credential(Target.SERVER, scheme, username, password, LIMITS)
    return caught.value


# ── credentials ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize(
    ("username", "password", "code"),
    [
        ("alice", None, "credentials_incomplete"),
        (None, "hunter2", "credentials_incomplete"),
        ("a\r\nb", "hunter2", "username_invalid"),
        ("a\0b", "hunter2", "username_invalid"),
        ("\ud800", "hunter2", "username_invalid"),
        ("x" * 301, "hunter2", "username_too_long"),
        ("alice", "hunter2\n", "password_invalid"),
        ("alice", "hunter2\r", "password_invalid"),
        ("alice", "hunter2\0", "password_invalid"),
        ("alice", "hunter2\ud800", "password_invalid"),
        ("alice", "hunter2" * 10_000, "password_too_long"),
        ("alice", "ü" * 65_537, "password_too_long"),
    ],
)
def test_a_credential_is_refused_without_telling_it(
    scheme: Scheme, username: str | None, password: str | None, code: str
) -> None:
    """Half an identity is none (BITS.md A9), and what a header cannot carry is refused."""
    error = refused(username, password, scheme)
    assert error.code == code
    assert "hunter2" not in error.detail


@pytest.mark.parametrize("scheme", [each for each in Scheme if each is not Scheme.BASIC])
def test_lengths_are_those_of_bits_and_only_basic_minds_a_colon(scheme: Scheme) -> None:
    """A13: a user has 300 characters, a password 65,536, whatever their bytes."""
    kept = check_credential(Target.PROXY, scheme, "a:" + "b" * 298, "ü" * 65_536, LIMITS)
    assert (kept.target, kept.scheme, kept.username) == (Target.PROXY, scheme, "a:" + "b" * 298)
    assert len(kept.password) == 2 * 65_536


def test_basic_cannot_carry_a_colon_in_the_user() -> None:
    """RFC 7617 2: the first colon ends the user."""
    assert refused("a:b", "hunter2", Scheme.BASIC).code == "username_invalid"


@pytest.mark.parametrize("username", ["CORP\\alice", "alice@corp.example", "alice"])
def test_every_form_of_a_windows_user_is_taken_as_it_is(username: str) -> None:
    """A14: what it means is the scheme's to say."""
    assert check_credential(Target.SERVER, Scheme.NTLM, username, "s", LIMITS).username == username


def test_neither_user_nor_password_is_the_implicit_identity_for_negotiate() -> None:
    """A9: whoever the owner is already."""
    kept = check_credential(Target.SERVER, Scheme.NEGOTIATE, None, None, LIMITS)
    assert kept.implicit
    assert kept.username is None
    assert len(kept.password) == 0
    assert not check_credential(Target.SERVER, Scheme.NEGOTIATE, "", "", LIMITS).implicit


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        (Scheme.BASIC, "give both"),
        (Scheme.DIGEST, "give both"),
        (Scheme.NTLM, "no Linux machine keeps what NTLM would need"),
        (Scheme.PASSPORT, "a login server takes nothing else"),
    ],
)
def test_other_schemes_have_no_implicit_identity_and_say_why(scheme: Scheme, why: str) -> None:
    """A8, and NT10 for NTLM."""
    error = refused(None, None, scheme)
    assert error.code == "credentials_incomplete"
    assert f"{scheme} without a user and a password: " in error.detail
    assert why in error.detail
    assert scheme not in IMPLICIT_SCHEMES


def test_one_password_is_meant_for_every_scheme_but_passport() -> None:
    """A6; Passport's password goes to a login server, and wants settings of its own."""
    assert set(PASSWORD_SCHEMES) == set(Scheme) - {Scheme.PASSPORT}


def test_a_credential_hides_its_password() -> None:
    """No secret has a repr."""
    kept = check_credential(Target.SERVER, Scheme.NTLM, "alice", "hunter2", LIMITS)
    assert isinstance(kept, Credential)
    assert "hunter2" not in repr(kept)


# ── Negotiate ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["HTTP/www.example.org", "host", "http/a-b.c_d.", "HTTP/1.2.3.4"])
def test_a_service_name_is_a_service_and_a_host_or_a_host(text: str) -> None:
    """RFC 4559 4.1."""
    assert authentication.check_spn(text, LIMITS) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "HTTP/", "/host", "a/b/c", "HTTP/h:80", "HTTP/h@R", "-h", "h..i", "h i", "h\n"),
        *("ü", "h" * 64, ".".join(["label"] * 50), "s" * 64 + "/host"),
    ],
)
def test_another_service_name_is_refused(text: str) -> None:
    """What the Kerberos library would read in a way of its own is not passed on."""
    assert code_of(authentication.check_spn, text) == "spn_invalid"


@pytest.mark.parametrize("text", ["alice", "alice@EXAMPLE.ORG", "host/www.example.org@R", "Jürgen"])
def test_a_principal_is_taken_as_it_is(text: str) -> None:
    """Its grammar is the Kerberos library's."""
    assert authentication.check_principal(text, LIMITS) == text


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\0", "\x7f", "\ud800", "x" * 1025])
def test_a_principal_is_one_printable_text(text: str) -> None:
    """Control characters are nobody's name."""
    assert code_of(authentication.check_principal, text) == "principal_invalid"


@pytest.mark.parametrize(
    "text",
    [
        "/tmp/krb5cc_1000",
        "FILE:/tmp/krb5cc_1000",
        "DIR:/run/user/1000/krb5cc",
        "DIR::/run/user/1000/krb5cc/tkt1",
        "KCM:",
        "KCM:1000:2",
        "KEYRING:persistent:1000",
    ],
)
def test_a_ticket_cache_has_a_type_or_is_a_file(text: str) -> None:
    """What MIT Kerberos calls its caches on Linux."""
    assert authentication.check_ccache(text, LIMITS) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "krb5cc",
        "MEMORY:",
        "MEMORY:x",
        "API:x",
        "file:/tmp/x",
        "FILE:",
        "FILE:tmp/x",
        "FILE::/tmp/x",
        "FILE:/tmp/../x",
        "DIR:x",
        "KEYRING:",
        "KCM:a\nb",
        "KCM:" + "x" * 300,
        "/tmp/\0",
    ],
)
def test_another_ticket_cache_is_refused(text: str) -> None:
    """A cache in memory is none of the owner's, and a relative path nobody's."""
    assert code_of(authentication.check_ccache, text) == "ccache_invalid"


# ── Passport ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://nexus.example/rdr/pprdr.asp", "https://nexus.example/rdr/pprdr.asp"),
        ("HTTPS://nexus.example:8443/#x", "https://nexus.example:8443/"),
        ("http://127.0.0.1:8080/config", "http://127.0.0.1:8080/config"),
        ("http://localhost/config", "http://localhost/config"),
        ("http://[::1]:1/", "http://[::1]:1/"),
    ],
)
def test_a_passport_configuration_comes_over_https_or_from_here(text: str, kept: str) -> None:
    """BITS.md 2.7: whoever can change it gets passwords."""
    assert check_configuration_url(text, LIMITS) == kept


@pytest.mark.parametrize(
    "text",
    [
        "http://nexus.example/",
        "http://10.0.0.1/",
        "https://alice:hunter2@nexus.example/",
        "http://alice:hunter2@127.0.0.1/",
        "ftp://nexus.example/",
        "nexus.example",
        "https://nexus.example/ä",
        "https://" + "x" * 9000,
    ],
)
def test_another_passport_configuration_is_refused(text: str) -> None:
    """Neither in clear text, nor with a password in it."""
    with pytest.raises(BadRequest) as caught:
        check_configuration_url(text, LIMITS)
    assert caught.value.code == "configuration_url_invalid"
    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Login.Example", "login.example"),
        ("login.example:8443", "login.example:8443"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[::0001]:443", "[::1]:443"),
    ],
)
def test_a_login_host_is_kept_as_an_origin_would_have_it(text: str, kept: str) -> None:
    """It is compared with the host of a URL."""
    assert check_login_host(text) == kept


@pytest.mark.parametrize(
    "text",
    ["", ":443", "a b", "https://login.example", "login.example/x", "u@h", "h:0", "h:x"],
)
def test_another_login_host_is_refused(text: str) -> None:
    """A host, not a URL and not a pattern."""
    with pytest.raises(BadRequest) as caught:
        check_login_host(text)
    assert caught.value.code == "login_host_invalid"


def test_a_url_as_login_host_is_told_what_of_it_is_the_host() -> None:
    """People copy it from where the login page is."""
    with pytest.raises(BadRequest, match=r"it is a URL; write the host alone: 127\.0\.0\.2:363$"):
        check_login_host("https://127.0.0.2:363/login.srf?x")


@pytest.mark.parametrize("text", ["Passport.NET", "a b", "x"])
def test_a_realm_is_printable(text: str) -> None:
    """It is compared with one parameter of a comma list (MS-PASS 2.2.1)."""
    assert authentication.check_realm(text, LIMITS) == text


@pytest.mark.parametrize("text", ["", " ", "a,b", " a", "a ", "a\nb", "ü", "x" * 1025])
def test_another_realm_is_refused(text: str) -> None:
    """What could never be equal to a parameter is a mistake."""
    assert code_of(authentication.check_realm, text) == "realm_invalid"


def test_what_a_job_says_of_passport_counts_member_by_member() -> None:
    """The configuration file fills what the job leaves out, and nothing else."""
    defaults = PassportOptions(configuration_url="https://n/", login_host="l", realm="r")
    assert PassportOptions().over(defaults) == defaults
    assert PassportOptions(login_host="m").over(defaults) == PassportOptions(
        configuration_url="https://n/", login_host="m", realm="r"
    )
    assert defaults.over(PassportOptions()) == defaults
