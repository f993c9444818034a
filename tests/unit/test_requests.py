"""Bodies of requests: what they become, and how a flaw in them is told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.model.credentials import (
    IMPLICIT_SCHEMES,
    PASSWORD_SCHEMES,
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Target,
)
from transferd.model.errors import BadRequest
from transferd.model.job import Cost, FileSpec, JobSpec, OnError, Priority, Settings, Timers
from transferd.model.limits import Limits
from transferd.wire import requests
from transferd.wire.bodies import FileBody, JobBody, JobPatch, NegotiateBody, PassportBody

LIMITS = Limits()
TIMERS = Timers(min_retry_delay=60.0, no_progress_timeout=100.0, max_download_time=200.0)
SETTINGS = Settings(name="before", timers=TIMERS, cacert="/ca.pem", proxy="direct", streams=4)
JOB_ID = "0123abcd-0000-4000-8000-0123456789ab"


def spec(limits: Limits = LIMITS, **body: Any) -> JobSpec:
    """Read a body that creates one job."""
    raw = json.dumps({"name": "a job", **body}).encode()
    creation = requests.parse_creation(raw, limits, TIMERS)
    assert not creation.many
    return creation.specs[0]


def refused(**body: Any) -> BadRequest:
    """Return the refusal of a body that creates one job."""
    with pytest.raises(BadRequest) as caught:
        spec(**body)
    return caught.value


def refused_raw(raw: bytes) -> BadRequest:
    """Return the refusal of a body as it stands."""
    with pytest.raises(BadRequest) as caught:
        requests.parse_creation(raw, LIMITS, TIMERS)
    return caught.value


def file(remote: str = "http://host/a", local: str = "/tmp/a", **more: Any) -> dict[str, Any]:
    """A file's body."""
    return {"remote": remote, "local": local, **more}


# ── jobs ───────────────────────────────────────────────────────────────────────────────────


def test_a_name_is_enough_for_a_job() -> None:
    """Everything else has a default; timers are the daemon's."""
    made = spec()
    assert made.settings == Settings(name="a job", timers=TIMERS)
    assert (made.files, made.credentials, made.headers) == ((), (), ())
    assert (made.id, made.start) == (None, False)


def test_every_field_of_a_body_reaches_the_spec() -> None:
    """What is asked for is not dropped."""
    made = spec(
        id=JOB_ID.upper(),
        description="two\nlines",
        priority="HIGH",
        files=[file(checksum="SHA256:" + "AB" * 32)],
        credentials=[{"scheme": "DIGEST", "username": "alice", "password": "hunter2"}],
        headers={"X-Token": "hunter2"},
        notify={"kinds": ["error", "ended"], "command": ["/bin/true", "x"]},
        auto_complete=True,
        on_error="cancel",
        overwrite=False,
        allow_cleartext=True,
        cost="No_Surcharge",
        cacert="/etc/ca.pem",
        proxy="http://u:p%3A@proxy:3128",
        negotiate={
            "spn": "HTTP/www",
            "proxy_spn": "proxy",
            "keytab": "/home/alice/a.keytab",
            "principal": "alice@R",
            "ccache": "KCM:",
            "ntlm": True,
        },
        passport={"configuration_url": "https://n/c", "login_host": "L:443", "realm": "r"},
        max_size=10,
        max_rate=1024,
        streams=2,
        min_retry_delay=5,
        no_progress_timeout=0,
        max_download_time=7.5,
        start=True,
    )
    assert made.settings == Settings(
        name="a job",
        description="two\nlines",
        priority=Priority.HIGH,
        cost=Cost.NO_SURCHARGE,
        notify_kinds=0x102,
        notify_command=("/bin/true", "x"),
        auto_complete=True,
        on_error=OnError.CANCEL,
        overwrite=False,
        allow_cleartext=True,
        header_names=("X-Token",),
        cacert="/etc/ca.pem",
        proxy="http://proxy:3128",
        negotiate=NegotiateOptions(
            spn="HTTP/www",
            proxy_spn="proxy",
            keytab="/home/alice/a.keytab",
            principal="alice@R",
            ccache="KCM:",
            ntlm=True,
        ),
        passport=PassportOptions(configuration_url="https://n/c", login_host="l:443", realm="r"),
        max_size=10,
        max_rate=1024,
        streams=2,
        timers=Timers(min_retry_delay=5.0, no_progress_timeout=0.0, max_download_time=7.5),
    )
    assert made.id == JOB_ID
    assert made.start
    assert str(made.files[0].checksum) == "sha256:" + "ab" * 32
    kept = [(each.label, each.password.reveal()) for each in made.credentials]
    assert [(label.target, label.scheme, label.username, word) for label, word in kept] == [
        (Target.SERVER, Scheme.DIGEST, "alice", "hunter2"),
        *((Target.PROXY, scheme, "u", "p:") for scheme in PASSWORD_SCHEMES),
    ]
    assert made.headers[0].value.reveal() == "hunter2"
    assert "hunter2" not in repr(made)


def test_no_field_of_a_body_is_forgotten() -> None:
    """A new field must be read where the others are."""
    read = {"name", "description", "priority", "on_error", "cacert", "max_size", "auto_complete"}
    read |= {"overwrite", "allow_cleartext", "streams", "notify", "proxy", *vars_of_timers()}
    read |= {"negotiate", "passport", "cost", "max_rate"}
    assert set(JobPatch.__struct_fields__) == read
    beside = {"id", "type", "files", "credentials", "headers", "start"}
    assert set(JobBody.__struct_fields__) == read | beside
    for body, options in ((NegotiateBody, NegotiateOptions), (PassportBody, PassportOptions)):
        assert set(body.__struct_fields__) == {each.name for each in dataclasses.fields(options)}


def vars_of_timers() -> set[str]:
    """Names of the timers."""
    return {field.name for field in dataclasses.fields(Timers)}


def test_userinfo_of_a_url_becomes_a_basic_credential() -> None:
    """The URL is kept without it, and no answer can tell it."""
    made = spec(files=[file("http://alice:hunter2@host/a"), file("http://host/b", "/tmp/b")])
    assert [each.remote for each in made.files] == ["http://host/a", "http://host/b"]
    (kept,) = made.credentials
    assert (kept.target, kept.scheme, kept.username) == (Target.SERVER, Scheme.BASIC, "alice")
    assert kept.password.reveal() == "hunter2"


@pytest.mark.parametrize(
    "remotes",
    [
        ("http://a:1@host/a", "http://a:2@host/b"),
        ("http://a:1@host/a", "http://b:1@host/b"),
        ("http://a:1@host/a", "http://other/b"),
        ("http://a:1@host/a", "https://host/b"),
        ("http://a:1@host/a", "http://host:8080/b"),
    ],
)
def test_a_password_in_a_url_serves_its_own_origin_only(remotes: tuple[str, str]) -> None:
    """A job's credentials go to all its origins, so that such a job would leak."""
    files = [file(remote, f"/tmp/{index}") for index, remote in enumerate(remotes)]
    assert refused(files=files).code == "credentials_conflict"


def test_one_user_may_be_named_in_urls_of_several_origins() -> None:
    """Then it is meant for each of them."""
    files = [file("http://a:1@host/a", "/tmp/a"), file("http://a:1@other/b", "/tmp/b")]
    assert len(spec(files=files).credentials) == 1


def test_a_url_and_a_credential_cannot_both_name_the_basic_user() -> None:
    """Which one counts would be a guess."""
    named = {"scheme": "basic", "username": "a", "password": "2"}
    error = refused(files=[file("http://a:1@host/a")], credentials=[named])
    assert error.code == "credentials_conflict"
    assert refused(credentials=[named, named]).code == "credentials_conflict"


@pytest.mark.parametrize("scheme", PASSWORD_SCHEMES)
def test_a_password_in_a_proxys_url_is_for_every_scheme_that_the_proxy_may_speak(
    scheme: Scheme,
) -> None:
    """The URL does not tell which (BITS.md A6); a second one for the same scheme is a guess."""
    proxy = "https://u:p@proxy:3128"
    named = {"target": "proxy", "scheme": scheme.value, "username": "a", "password": "2"}
    assert refused(proxy=proxy, credentials=[named]).code == "credentials_conflict"
    beside = spec(proxy=proxy, credentials=[named | {"target": "server"}])
    assert {each.scheme for each in beside.credentials if each.target is Target.PROXY} == set(
        PASSWORD_SCHEMES
    )
    assert beside.settings.proxy == "https://proxy:3128"


def test_several_jobs_are_read_as_one_request() -> None:
    """All are judged before any is made."""
    raw = json.dumps({"jobs": [{"name": "a"}, {"name": "b", "id": JOB_ID}]}).encode()
    creation = requests.parse_creation(raw, LIMITS, TIMERS)
    assert creation.many
    assert [each.settings.name for each in creation.specs] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ({"jobs": []}, "value_invalid", "$.jobs"),
        ({"jobs": None}, "wrong_type", "$.jobs"),
        ({"jobs": [{"name": "a"}], "name": "b"}, "unknown_field", "name"),
        ({"jobs": [{"name": "a"}, {"name": ""}]}, "name_invalid", "$.jobs[1].name"),
        ({"jobs": [{"name": "a"}] * 1001}, "too_many_jobs", "1000"),
        ({"jobs": [{"name": "a", "id": JOB_ID}] * 2}, "id_invalid", "$.jobs"),
        (
            {"jobs": [{"name": "a", "files": [file(), file(remote="ftp://h/")]}]},
            "url_scheme_unsupported",
            "$.jobs[0].files[1]",
        ),
    ],
)
def test_a_flaw_in_one_of_several_jobs_refuses_all(body: object, code: str, place: str) -> None:
    """The message says which one it is."""
    error = refused_raw(json.dumps(body).encode())
    assert error.code == code
    assert place in error.detail


def test_more_files_than_the_limit_are_refused() -> None:
    """The limit is the daemon's."""
    files = [file(local=f"/tmp/{index}") for index in range(3)]
    assert len(spec(Limits(files_per_job=3), files=files).files) == 3
    with pytest.raises(BadRequest, match="at most 2") as caught:
        spec(Limits(files_per_job=2), files=files)
    assert caught.value.code == "too_many_files"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x" * 10_000}, "name_too_long"),
        ({"name": "a\0b"}, "name_invalid"),
        ({"description": "\x1b"}, "description_invalid"),
        ({"id": "1"}, "id_invalid"),
        ({"type": "upload"}, "unknown_type"),
        ({"priority": "urgent"}, "unknown_priority"),
        ({"cost": "free"}, "unknown_cost"),
        ({"on_error": "retry"}, "unknown_on_error"),
        ({"notify": {"kinds": ["done"]}}, "unknown_kind"),
        ({"notify": {"command": ["true"]}}, "command_invalid"),
        ({"cacert": "ca.pem"}, "path_not_absolute"),
        ({"proxy": "proxy"}, "proxy_invalid"),
        ({"max_size": 2**63}, "value_invalid"),
        ({"max_size": -1}, "value_invalid"),
        ({"streams": 0}, "value_invalid"),
        ({"streams": 65}, "value_invalid"),
        ({"max_rate": 1023}, "value_invalid"),
        ({"max_rate": 2**63}, "value_invalid"),
        ({"min_retry_delay": 0}, "value_invalid"),
        ({"max_download_time": 1e300}, "value_invalid"),
        ({"files": [file("ftp://host/a")]}, "url_scheme_unsupported"),
        ({"files": [file("host/a")]}, "url_invalid"),
        ({"files": [file(local="a")]}, "path_not_absolute"),
        ({"files": [file(checksum="md4:00")]}, "checksum_invalid"),
        ({"files": [file(), file("http://host/b")]}, "duplicate_destination"),
        ({"headers": {"Host": "x"}}, "header_invalid"),
        ({"headers": {"X": "v" * 20_000}}, "headers_too_large"),
        ({"credentials": [{"scheme": "kerberos"}]}, "unknown_scheme"),
        ({"credentials": [{"scheme": "passport"}]}, "credentials_incomplete"),
        ({"credentials": [{"scheme": "NTLM"}]}, "credentials_incomplete"),
        ({"credentials": [{"scheme": "negotiate", "username": "a"}]}, "credentials_incomplete"),
        ({"proxy": "https://proxy"}, "proxy_invalid"),
        ({"negotiate": {"spn": "HTTP/h:80"}}, "spn_invalid"),
        ({"negotiate": {"proxy_spn": ""}}, "spn_invalid"),
        ({"negotiate": {"keytab": "a.keytab"}}, "path_not_absolute"),
        ({"negotiate": {"principal": "a\n"}}, "principal_invalid"),
        ({"negotiate": {"ccache": "MEMORY:x"}}, "ccache_invalid"),
        ({"negotiate": {"ntlm": 1}}, "wrong_type"),
        ({"negotiate": {"delegate": True}}, "unknown_field"),
        ({"negotiate": None}, "wrong_type"),
        ({"passport": {"configuration_url": "http://n/"}}, "configuration_url_invalid"),
        ({"passport": {"login_host": "https://l"}}, "login_host_invalid"),
        ({"passport": {"realm": "a,b"}}, "realm_invalid"),
        ({"passport": {"password": "hunter2"}}, "unknown_field"),
        ({"credentials": [{"scheme": "basic", "target": "origin"}]}, "unknown_target"),
        ({"credentials": [{"scheme": "basic"}]}, "credentials_incomplete"),
    ],
)
def test_every_refused_value_has_its_code_and_its_place(body: dict[str, Any], code: str) -> None:
    """Programs read the code, people the place."""
    error = refused(**body)
    assert error.code == code
    (field,) = body
    assert f" - at `$.{field}" in error.detail


# ── JSON ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"not json", "malformed_json"),
        (b'{"name":"a"} {}', "malformed_json"),
        (b'{"name":"a",}', "malformed_json"),
        (b"{'name':'a'}", "malformed_json"),
        (b'\xef\xbb\xbf{"name":"a"}', "malformed_json"),
        (b'{"name":"\xff"}', "malformed_json"),
        (b'{"\xff":1}', "malformed_json"),
        ('{"name":"a"}'.encode("utf-16"), "malformed_json"),
        (b'{"name":"\\ud800"}', "malformed_json"),
        (b'{"name":"\x01"}', "malformed_json"),
        (b'{"name":"a","min_retry_delay":NaN}', "malformed_json"),
        (b'{"name":"a","min_retry_delay":Infinity}', "malformed_json"),
        (b'{"name":"a","name":"b"}', "malformed_json"),
        (
            b'{"name":"a","files":[{"remote":"http://h/","local":"/a","local":"/b"}]}',
            "malformed_json",
        ),
        (b'{"name":"a","headers":{"X":"1","X":"2"}}', "malformed_json"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed_json"),
        (b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed_json"),
        (b'{"name":"a","min_retry_delay":1e999}', "value_invalid"),
        (b'{"name":"a","min_retry_delay":' + b"9" * 5000 + b"}", "value_invalid"),
        (b'{"name":"a","max_size":' + b"9" * 30 + b"}", "value_invalid"),
        (b'{"name":"a","max_size":' + b"9" * 5000 + b"}", "value_invalid"),
        (b"[]", "wrong_type"),
        (b"null", "wrong_type"),
        (b'"text"', "wrong_type"),
        (b'{"name":1}', "wrong_type"),
        (b'{"name":null}', "wrong_type"),
        (b'{"name":"a","start":"true"}', "wrong_type"),
        (b'{"name":"a","start":1}', "wrong_type"),
        (b'{"name":"a","max_size":1.0}', "wrong_type"),
        (b'{"name":"a","files":{}}', "wrong_type"),
        (b'{"name":"a","files":[[]]}', "wrong_type"),
        (b'{"name":"a","headers":{"X":1}}', "wrong_type"),
        (b"{}", "missing_field"),
        (b'{"name":"a","files":[{"remote":"http://h/"}]}', "missing_field"),
        (b'{"name":"a","credentials":[{}]}', "missing_field"),
        (b'{"name":"a","Name":"b"}', "unknown_field"),
        (b'{"name":"a","password":"hunter2"}', "unknown_field"),
        (b'{"name":"a","owner":0}', "unknown_field"),
        (b'{"name":"a","state":"transferred"}', "unknown_field"),
        (b'{"name":"a","files":[{"remote":"http://h/","local":"/a","mode":7}]}', "unknown_field"),
    ],
)
def test_json_is_read_strictly(raw: bytes, code: str) -> None:
    """No text stands for two things, and no field is passed over."""
    assert refused_raw(raw).code == code


def test_the_place_of_a_flaw_is_told() -> None:
    """A body may have a hundred thousand files."""
    wrong, unknown = {"remote": "http://h/", "local": 1}, file() | {"m`o - at `$.x`de": 1}
    for second in (wrong, unknown):
        raw = json.dumps({"name": "a", "files": [file(), second]}).encode()
        assert " - at `$.files[1]" in refused_raw(raw).detail


def test_an_unknown_name_is_quoted_short() -> None:
    """It is hostile input like any other."""
    detail = refused_raw(json.dumps({"name": "a", "\x1b" + "k" * 1000: 1}).encode()).detail
    assert "'\\x1b" + "k" * 79 + "'…" in detail
    assert len(detail) < 200


@given(st.binary(max_size=200))
def test_no_bytes_whatsoever_break_the_reader(raw: bytes) -> None:
    """Every body is understood or refused with a code."""
    for body in (raw, b'{"name":' + raw + b"}", b'{"name":"' + raw + b'"}'):
        if read(body) is None:
            assert refused_raw(body).code


def read(raw: bytes) -> requests.Creation | None:
    """Read a body; None when it is refused."""
    try:
        return requests.parse_creation(raw, LIMITS, TIMERS)
    except BadRequest:
        return None


# ── repeated requests ──────────────────────────────────────────────────────────────────────

FULL: dict[str, Any] = {
    "files": [file("http://host/a"), file("http://host/b", "/tmp/b")],
    "credentials": [{"scheme": "digest", "username": "alice", "password": "hunter2"}],
    "headers": {"X-Token": "hunter2", "X-Other": "1"},
    "proxy": "http://u:p@proxy:3128",
}


def test_a_repeated_request_has_the_same_fingerprint() -> None:
    """Neither the id nor the order of names in the JSON counts."""
    again = dict(reversed(FULL.items()))
    assert spec(**FULL).fingerprint == spec(id=JOB_ID, **again).fingerprint
    assert len(spec().fingerprint) == 32


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another"},
        {"priority": "low"},
        {"start": True},
        {"files": FULL["files"][:1]},
        {"files": FULL["files"][::-1]},
        {"credentials": [{"scheme": "digest", "username": "bob", "password": "hunter2"}]},
        {"headers": {"X-Token": "hunter2"}},
        {"proxy": "http://v:p@proxy:3128"},
        {"min_retry_delay": 60},
        {"negotiate": {"ntlm": True}},
        {"passport": {"realm": "r"}},
        {"credentials": [{"scheme": "negotiate"}]},
    ],
)
def test_another_request_has_another_fingerprint(other: dict[str, Any]) -> None:
    """An id that was used for one thing is not given away for another."""
    assert spec(**FULL).fingerprint != spec(**FULL | other).fingerprint


def test_a_default_that_is_written_down_is_the_same_request() -> None:
    """Null is what is meant by nothing."""
    written = {"negotiate": {"spn": None, "ntlm": None}, "passport": {"realm": None}}
    assert spec(**FULL).fingerprint == spec(**FULL | written).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"credentials": [{"scheme": "digest", "username": "alice", "password": "else"}]},
        {"headers": {"X-Token": "else", "X-Other": "1"}},
        {"proxy": "http://u:else@proxy:3128"},
    ],
)
def test_no_secret_enters_the_fingerprint(other: dict[str, Any]) -> None:
    """A stored digest of a password could be tried against a list of passwords."""
    assert spec(**FULL).fingerprint == spec(**FULL | other).fingerprint
    one = spec(files=[file("http://a:1@host/a")])
    assert one.fingerprint == spec(files=[file("http://a:2@host/a")]).fingerprint
    assert one.fingerprint != spec(files=[file("http://b:1@host/a")]).fingerprint


# ── files, patches, identities ─────────────────────────────────────────────────────────────


def test_one_file_and_several_are_added_alike() -> None:
    """The body is a file, or a list of them."""
    expected = FileSpec(remote="http://host/a", local="/tmp/a")
    for body in (file(), {"files": [file()]}):
        addition = requests.parse_addition(json.dumps(body).encode(), LIMITS)
        assert addition.specs == (expected,)
        assert addition.credential is None


def test_userinfo_of_added_files_is_told_with_its_origins() -> None:
    """Whoever adds them must know whom the password was written for."""
    files = [file("http://alice:hunter2@host/a"), file("http://host:80/b", "/tmp/b")]
    addition = requests.parse_addition(json.dumps({"files": files}).encode(), LIMITS)
    assert [each.remote for each in addition.specs] == ["http://host/a", "http://host:80/b"]
    assert addition.credential is not None
    assert addition.credential.label == CredentialLabel(
        target=Target.SERVER, scheme=Scheme.BASIC, username="alice"
    )
    assert addition.origins == {("http", "host", 80)}
    assert "hunter2" not in repr(addition)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"files": []}, "value_invalid"),
        ({"files": [file(), file()]}, "duplicate_destination"),
        (file("http://a@host/a"), "credentials_incomplete"),
        (file("http://a:hunter2%00@host/a"), "password_invalid"),
        (
            {"files": [file("http://a:hunter2@host/a"), file("http://b/", "/tmp/b")]},
            "credentials_conflict",
        ),
        (file("gopher://host/a"), "url_scheme_unsupported"),
        ({"files": [file()], "start": True}, "unknown_field"),
        ({}, "missing_field"),
    ],
)
def test_files_to_add_are_judged_like_those_of_a_new_job(body: object, code: str) -> None:
    """All of them, before any is added."""
    with pytest.raises(BadRequest) as caught:
        requests.parse_addition(json.dumps(body).encode(), LIMITS)
    assert caught.value.code == code
    assert "hunter2" not in caught.value.detail


def patched(**body: Any) -> Settings:
    """Apply the patch of a body."""
    return requests.parse_patch(json.dumps(body).encode(), LIMITS)(SETTINGS)


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    """Null takes a setting away where that has a meaning."""
    assert patched() == SETTINGS
    assert patched(name="after") == dataclasses.replace(SETTINGS, name="after")
    assert patched(max_rate=2048).max_rate == 2048
    assert patched(max_rate=None).max_rate is None
    assert patched(cacert=None, proxy=None, streams=None, max_size=5) == dataclasses.replace(
        SETTINGS, cacert=None, proxy=None, streams=None, max_size=5
    )
    timers = dataclasses.replace(TIMERS, no_progress_timeout=0.0)
    assert patched(no_progress_timeout=0).timers == timers
    assert patched(notify={"kinds": [], "command": ["/bin/x"]}) == dataclasses.replace(
        SETTINGS, notify_kinds=0, notify_command=("/bin/x",)
    )


def test_a_patch_changes_members_of_a_group_one_by_one() -> None:
    """Null puts the default back: of a member, or of all of them."""
    before = dataclasses.replace(
        SETTINGS,
        negotiate=NegotiateOptions(spn="HTTP/a", principal="alice", ntlm=True),
        passport=PassportOptions(login_host="l", realm="r"),
    )

    def after(**body: Any) -> Settings:
        return requests.parse_patch(json.dumps(body).encode(), LIMITS)(before)

    assert after() == after(negotiate={}, passport={}) == before
    changed = after(negotiate={"spn": "HTTP/b", "ntlm": None, "principal": None})
    assert changed == dataclasses.replace(before, negotiate=NegotiateOptions(spn="HTTP/b"))
    changed = after(passport={"realm": None, "configuration_url": "https://n/"})
    options = PassportOptions(login_host="l", configuration_url="https://n/")
    assert changed == dataclasses.replace(before, passport=options)
    assert after(negotiate=None, passport=None) == SETTINGS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": None}, "wrong_type"),
        ({"negotiate": {"spn": "HTTP/a", "delegate": True}}, "unknown_field"),
        ({"negotiate": {"ccache": "MEMORY:"}}, "ccache_invalid"),
        ({"passport": {"configuration_url": "https://u:hunter2@h/"}}, "configuration_url_invalid"),
        ({"proxy": "https://u:hunter2@proxy:3128"}, "credentials_in_url"),
        ({"name": ""}, "name_invalid"),
        ({"priority": "x"}, "unknown_priority"),
        ({"min_retry_delay": 0.5}, "value_invalid"),
        ({"proxy": "http://u:hunter2@proxy:3128"}, "credentials_in_url"),
        ({"proxy": "socks5://u:hunter2@proxy:1080"}, "proxy_invalid"),
        ({"headers": {"X": "hunter2"}}, "unknown_field"),
        ({"files": []}, "unknown_field"),
        ({"id": JOB_ID}, "unknown_field"),
        ({"state": "transferred"}, "unknown_field"),
    ],
)
def test_a_patch_is_judged_before_it_is_applied(body: object, code: str) -> None:
    """A refused patch changes nothing, not even half."""
    with pytest.raises(BadRequest) as caught:
        requests.parse_patch(json.dumps(body).encode(), LIMITS)
    assert caught.value.code == code
    assert "hunter2" not in caught.value.detail


def test_an_identity_becomes_a_credential_for_the_slot_of_the_path() -> None:
    """Target and scheme are not in the body."""
    raw = b'{"username":"CORP\\\\alice","password":"hunter2"}'
    kept = requests.parse_identity(raw, Target.PROXY, Scheme.DIGEST, LIMITS)
    assert (kept.target, kept.scheme, kept.username) == (Target.PROXY, Scheme.DIGEST, "CORP\\alice")
    assert kept.password.reveal() == "hunter2"


@pytest.mark.parametrize("raw", [b'{"username":"x"}', b'{"username":null,"password":"x"}'])
@pytest.mark.parametrize("scheme", Scheme)
def test_half_an_identity_is_refused(raw: bytes, scheme: Scheme) -> None:
    """What it would mean is not defined (BITS.md A9)."""
    with pytest.raises(BadRequest) as caught:
        requests.parse_identity(raw, Target.SERVER, scheme, LIMITS)
    assert caught.value.code == "credentials_incomplete"


@pytest.mark.parametrize("raw", [b"{}", b'{"username":null,"password":null}'])
@pytest.mark.parametrize("scheme", Scheme)
def test_no_identity_at_all_is_the_implicit_one_where_there_is_one(
    raw: bytes, scheme: Scheme
) -> None:
    """BITS.md A8, A9: with NULL for both, negotiate uses what the owner has already."""
    if scheme in IMPLICIT_SCHEMES:
        assert requests.parse_identity(raw, Target.PROXY, scheme, LIMITS).implicit
        return
    with pytest.raises(BadRequest) as caught:
        requests.parse_identity(raw, Target.PROXY, scheme, LIMITS)
    assert caught.value.code == "credentials_incomplete"


def test_bodies_with_secrets_have_no_telling_repr() -> None:
    """They may end up in a traceback with locals."""
    body = FileBody(remote="http://a:hunter2@host/", local="/a")
    assert "hunter2" not in repr(body)
    assert "hunter2" not in repr(JobPatch(proxy="http://a:hunter2@proxy:1"))
