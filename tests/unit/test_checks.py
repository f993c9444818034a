"""Values that a caller names: what passes as it is, what is refused, and under which code."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.model import checks, urls
from transferd.model.errors import BadRequest
from transferd.model.job import CHECKSUM_ALGORITHMS, Checksum, FileSpec, OnError, Priority
from transferd.model.limits import Limits
from transferd.model.states import JobState

LIMITS = Limits()


def refused(check: Callable[..., object], *args: object, **kwargs: object) -> BadRequest:
    """Return the refusal of a check that must refuse."""
    with pytest.raises(BadRequest) as caught:
        check(*args, **kwargs)
    return caught.value


def judged(url: str) -> urls.Address | str:
    """Return what a URL is, or why it is none."""
    try:
        return urls.check_remote(url, LIMITS)
    except BadRequest as error:
        return error.code


# ── URLs ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://host.example/a/b.iso", "https://host.example/a/b.iso"),
        ("HTTPS://Host.Example/A?B=%2F&c=1", "https://Host.Example/A?B=%2F&c=1"),
        ("http://host", "http://host"),
        ("http://host?x=1", "http://host?x=1"),
        ("http://host:8080/", "http://host:8080/"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1:80/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://[0:0::1]/x", "http://[::1]/x"),
        ("http://my_host.internal./x", "http://my_host.internal./x"),
        ("http://host/a#section", "http://host/a"),
        ("http://host/a;v=1,2/(b)/[c]|{d}^`e'!*$", "http://host/a;v=1,2/(b)/[c]|{d}^`e'!*$"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://host/p?mail=a@b", "http://host/p?mail=a@b"),
    ],
)
def test_a_url_goes_out_as_it_came_in(text: str, url: str) -> None:
    """Nothing is escaped; only fragment, foreign alphabets and spelling of the scheme change."""
    address = urls.check_remote(text, LIMITS)
    assert address.url == url
    assert address.userinfo is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/path",
        "//host/path",
        "http:/host/path",
        "http:host",
        "http://",
        "http:///path",
        "http://:80/",
        "http://host:/",
        "http://host:0/",
        "http://host:65536/",
        "http://host:80a/",
        "http://host:-1/",
        "http://ho st/",
        "http://host/a b",
        "http://host/a\tb",
        "http://host/a\r\nX: y",
        "http://host/\0",
        "http://host/\x7f",
        "http://host\\@evil/",
        "http://host/a\\b",
        'http://host/"',
        "http://host/<x>",
        "http://host/ä",
        "http://host/%",
        "http://host/100%.txt",
        "http://host/%g0",
        "http://host/?q=%2",
        "http://%68ost/",
        "http://[::1/",
        "http://[::g]/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.x]/",
        "http://::1/",
        "http://a..b/",
        "http://-a/",
        "http://a-/",
        "http://.a/",
        "http://" + "a" * 64 + "/",
        "http://" + "a." * 127 + "a/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://127.0.0.256/",
        "http://1.2.3.4.5/",
        "http://host.0x10/",
        "http://ho‥st/",
        "http://\ud800/",
        "http://host,host/",
    ],
)
def test_a_url_that_parsers_would_read_differently_is_refused(text: str) -> None:
    """What is not one clear http URL is `url_invalid`."""
    assert refused(urls.check_remote, text, LIMITS).code == "url_invalid"


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "file:///etc/passwd", "data:,x", "host:80/x", "unix:/run/x", "httpx://h"],
)
def test_a_url_of_another_scheme_is_refused_by_name(text: str) -> None:
    """Only http and https are fetched."""
    error = refused(urls.check_remote, text, LIMITS)
    assert error.code == "url_scheme_unsupported"
    assert "use http or https" in error.detail


def test_a_url_may_be_as_long_as_the_limit_and_no_longer() -> None:
    """The limit is in characters of what came in."""
    text = "http://h/".ljust(LIMITS.url_chars, "x")
    assert urls.check_remote(text, LIMITS).url == text
    assert refused(urls.check_remote, text + "x", LIMITS).code == "url_too_long"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://Host/", ("http", "host", 80)),
        ("https://host/", ("https", "host", 443)),
        ("https://host:444/", ("https", "host", 444)),
        ("http://[::1]/", ("http", "[::1]", 80)),
    ],
)
def test_the_origin_has_the_port_that_is_meant(text: str, origin: tuple[str, str, int]) -> None:
    """Two spellings of one origin are equal."""
    assert urls.check_remote(text, LIMITS).origin == origin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://alice:secret@host/x", ("alice", "secret")),
        ("http://alice:a%3Ab%40c%2F@host/x", ("alice", "a:b@c/")),
        ("http://CORP%5Calice:p:q@host/x", ("CORP\\alice", "p:q")),
        ("http://a@b:c@host/x", ("a@b", "c")),
        ("http://:token@host/x", ("", "token")),
        ("http://%C3%BC:%C3%A4@host/x", ("ü", "ä")),
    ],
)
def test_userinfo_is_split_off_and_unescaped(text: str, expected: tuple[str, str]) -> None:
    """The URL is kept without it."""
    address = urls.check_remote(text, LIMITS)
    assert address.url == "http://host/x"
    assert address.userinfo is not None
    assert urls.split_userinfo(address.userinfo) == expected


def test_userinfo_without_a_password_is_refused() -> None:
    """Nobody is asked for the other half later."""
    assert refused(urls.split_userinfo, "alice").code == "credentials_incomplete"


def test_userinfo_that_is_not_text_is_refused() -> None:
    """A password is UTF-8 on its way to the vault."""
    assert refused(urls.split_userinfo, "a:%FF").code == "url_invalid"


@pytest.mark.parametrize(
    "text",
    [
        "http://alice:hunter2@host:99999/",
        "http://alice:hunter2@ho st/",
        "http://alice:hun/ter2@host/",
        "http://alice:hunter2/@host/",
        "http://alice:hunter2?@host/",
        "http:alice:hunter2@host/",
        "http://alice:%hunter2@host/",
        "http://host/ä?token=hunter2",
        "http://host/a b#hunter2",
    ],
)
def test_a_refused_url_is_quoted_without_its_secrets(text: str) -> None:
    """Neither userinfo nor query nor fragment stands in a message."""
    error = refused(urls.check_remote, text, LIMITS)
    assert "hun" not in error.detail
    assert "ter2" not in error.detail
    assert "hunter2" not in repr(urls.check_proxy("http://alice:hunter2@host:80", LIMITS))


@given(st.text(max_size=300), st.sampled_from(["", "http://", "https://host/", "http://u:p@"]))
def test_no_text_whatsoever_breaks_the_url_check(text: str, prefix: str) -> None:
    """Every text passes or is refused with a code; what passes is ASCII without spaces."""
    verdict = judged(prefix + text)
    if isinstance(verdict, str):
        assert verdict in {"url_invalid", "url_scheme_unsupported"}
        return
    assert verdict.url.isascii()
    assert not {" ", "\r", "\n", "\0", "#"} & set(verdict.url)
    assert urls.check_remote(verdict.url, LIMITS).url == verdict.url


@pytest.mark.parametrize(
    ("text", "url", "userinfo"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("http://proxy:3128/", "http://proxy:3128", None),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://u:p@proxy:3128", "http://proxy:3128", "u:p"),
        ("https://proxy:3129", "https://proxy:3129", None),
        ("HTTPS://u:p@proxy:443", "https://proxy:443", "u:p"),
    ],
)
def test_a_proxy_is_kept_without_userinfo(text: str, url: str, userinfo: str | None) -> None:
    """Its user and password go into the vault."""
    address = urls.check_proxy(text, LIMITS)
    assert address is not None
    assert (address.url, address.userinfo) == (url, userinfo)


def test_direct_is_no_proxy() -> None:
    """The word is read in any case."""
    assert urls.check_proxy("Direct", LIMITS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "http://proxy",
        "https://proxy",
        "socks5://proxy:1080",
        "http://proxy:3128/path",
        "http://proxy:3128?x",
        "http://:3128",
        "http://pro xy:3128",
        "http://proxy:0",
        "http://" + "a." * 4000 + ":80",
    ],
)
def test_a_proxy_is_refused_unless_it_is_host_and_port(text: str) -> None:
    """A proxy needs its port: there is no common default."""
    assert refused(urls.check_proxy, text, LIMITS).code == "proxy_invalid"


# ── paths ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["/a", "/home/alice/ä b.iso", "/a/.hidden", "/a/...", "/a/b\nc"])
def test_an_absolute_path_passes_as_it_is(text: str) -> None:
    """The kernel decides the rest."""
    assert checks.check_destination(text, LIMITS) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "path_invalid"),
        ("a/b", "path_not_absolute"),
        ("~/a", "path_not_absolute"),
        ("./a", "path_not_absolute"),
        ("/", "path_invalid"),
        ("/a/", "path_invalid"),
        ("/a//b", "path_invalid"),
        ("//a", "path_invalid"),
        ("/a/./b", "path_invalid"),
        ("/a/../b", "path_invalid"),
        ("/a/..", "path_invalid"),
        ("/a\0b", "path_invalid"),
        ("/a/\ud800", "path_invalid"),
        ("/" + "a" * 256, "path_too_long"),
        ("/" + "ä" * 128, "path_too_long"),
        ("/" + "a/" * 2048 + "b", "path_too_long"),
    ],
)
def test_a_path_that_means_several_things_is_refused(text: str, code: str) -> None:
    """Nothing is resolved here, so that two names of one file cannot slip in."""
    assert refused(checks.check_path, text, LIMITS).code == code


def test_a_destination_leaves_room_for_its_partial_file() -> None:
    """The partial file has a longer name in the same directory."""
    directory = "/" + "d" * 254
    exact = directory * 15 + "/" + "d" * 200
    assert len(exact) < LIMITS.path_bytes
    short, long = exact + "/a", exact + "/" + "a" * (LIMITS.path_bytes - len(exact) - 1)
    assert checks.check_destination(short, LIMITS) == short
    assert checks.check_path(long, LIMITS) == long
    assert refused(checks.check_destination, long, LIMITS).code == "path_too_long"


def test_two_files_of_a_job_may_not_share_a_destination() -> None:
    """The second one would replace the first."""
    one = FileSpec(remote="http://h/1", local="/a")
    checks.check_distinct([one, FileSpec(remote="http://h/1", local="/b")])
    twins = [one, FileSpec(remote="http://h/2", local="/a")]
    assert refused(checks.check_distinct, twins).code == "duplicate_destination"


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["notify-send"],
        ["./run"],
        ["/usr/bin/"],
        ["/bin/sh", "a\0b"],
        ["/bin/sh"] * 65,
        ["/bin/sh", "x" * 4000],
    ],
)
def test_a_command_is_an_absolute_program(words: list[str]) -> None:
    """There is no PATH search and no shell."""
    assert refused(checks.check_command, words, LIMITS).code == "command_invalid"


def test_a_command_keeps_its_words() -> None:
    """No word is taken apart."""
    words = ["/usr/bin/notify-send", "all done; rm -rf $HOME", ""]
    assert checks.check_command(words, LIMITS) == tuple(words)
    assert checks.check_command(None, LIMITS) is None


# ── texts, words, numbers ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "name_invalid"),
        ("  ", "name_invalid"),
        ("a\nb", "name_invalid"),
        ("a\0", "name_invalid"),
        ("\x1b[31m", "name_invalid"),
        ("\x9b", "name_invalid"),
        ("x" * 257, "name_too_long"),
        ("x" * 10_000, "name_too_long"),
    ],
)
def test_a_name_is_one_line(text: str, code: str) -> None:
    """It stands in tables and logs."""
    assert refused(checks.check_name, text, LIMITS).code == code


def test_a_description_may_have_lines_but_no_other_control_characters() -> None:
    """It is shown as a paragraph."""
    assert checks.check_description("a\n\tb", LIMITS) == "a\n\tb"
    assert refused(checks.check_description, "a\rb", LIMITS).code == "description_invalid"
    assert refused(checks.check_description, "x" * 1025, LIMITS).code == "description_too_long"


def test_an_id_is_a_uuid_in_lower_case() -> None:
    """One job has one spelling."""
    text = "0123ABCD-0000-4000-8000-0123456789ab"
    assert checks.check_id(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0123abcd00004000800001234567890a",
        "{0123abcd-0000-4000-8000-0123456789ab}",
        "urn:uuid:0123abcd-0000-4000-8000-0123456789ab",
        "0123abcd-0000-4000-8000-0123456789ab\n",
        "0123abcd-0000-4000-8000-0123456789a٣",
    ],
)
def test_other_spellings_of_an_id_are_refused(text: str) -> None:
    """An id is a key and a part of file names."""
    assert refused(checks.check_id, text).code == "id_invalid"


def test_words_are_read_in_any_case() -> None:
    """As the schemes are."""
    assert checks.check_priority("Foreground") is Priority.FOREGROUND
    assert checks.check_on_error("CANCEL") is OnError.CANCEL
    assert checks.check_type("Download") == "download"
    assert checks.check_states(["queued", "Error"]) == {JobState.QUEUED, JobState.ERROR}


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (checks.check_priority, "unknown_priority"),
        (checks.check_on_error, "unknown_on_error"),
        (checks.check_type, "unknown_type"),
        (lambda text: checks.check_states([text]), "unknown_state"),
    ],
)
@pytest.mark.parametrize("text", ["", "0", "upload", "high\u0000"])
def test_an_unknown_word_is_refused_with_the_known_ones(
    check: Callable[[str], object], code: str, text: str
) -> None:
    """The message names what may be used."""
    error = refused(check, text)
    assert error.code == code
    assert "it is one of" in error.detail


@pytest.mark.parametrize("value", [-1.0, 0.5, math.inf, math.nan, 1e300, checks.LONGEST + 1])
def test_a_duration_out_of_bounds_is_refused(value: float) -> None:
    """Sums of times must stay within what dates can hold."""
    assert refused(checks.check_seconds, value, floor=1.0).code == "value_invalid"


def test_a_duration_may_be_zero_where_that_has_a_meaning() -> None:
    """A no-progress timeout of 0 makes every failure fatal."""
    assert checks.check_seconds(0.0) == 0.0


def test_a_size_fits_into_the_queue_file() -> None:
    """SQLite holds 63 bits."""
    assert checks.check_size(2**63 - 1) == 2**63 - 1
    assert checks.check_size(None) is None
    assert refused(checks.check_size, 2**63).code == "value_invalid"


@pytest.mark.parametrize("algorithm", CHECKSUM_ALGORITHMS)
def test_every_algorithm_has_its_length(algorithm: str) -> None:
    """One digit more or less is a mistake that can be told at once."""
    digest = "Ab" * CHECKSUM_ALGORITHMS[algorithm]
    assert checks.check_checksum(f"{algorithm.upper()}:{digest}") == Checksum(
        algorithm=algorithm, digest=digest.lower()
    )
    assert refused(checks.check_checksum, f"{algorithm}:{digest}0").code == "checksum_invalid"
    assert refused(checks.check_checksum, f"{algorithm}:g{digest[1:]}").code == "checksum_invalid"


@pytest.mark.parametrize("text", ["", ":", "sha256", "crc32:00000000", "a" * 64, "sha256:"])
def test_a_checksum_without_a_known_algorithm_is_refused(text: str) -> None:
    """The algorithm is never guessed."""
    assert refused(checks.check_checksum, text).code == "checksum_invalid"


def test_hostile_input_is_quoted_short_and_escaped() -> None:
    """A message must not steer a terminal, nor fill a log."""
    error = refused(checks.check_priority, "\x1b[2J\r\n" + "x" * 10_000)
    assert "\\x1b[2J\\r\\n" in error.detail
    assert len(error.detail) < 250


# ── headers ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"X Y": "x"},
        {"X:": "x"},
        {"X-A\r\nX-B": "x"},
        {"Ä": "x"},
        {"X": "hunter2\r\nHost: evil"},
        {"X": "hunter2\n"},
        {"X": "hunter2\0"},
        {"X": " hunter2"},
        {"X": "hunter2 "},
        {"X": "hunter2ä"},
        {"X-A": "hunter2", "x-a": "hunter2"},
        {"Authorization: Bearer hunter2": ""},
        *({name.title(): "hunter2"} for name in checks.RESERVED_HEADERS),
    ],
)
def test_a_header_cannot_inject_or_replace_what_the_transfer_sends(headers: dict[str, str]) -> None:
    """Names are tokens, values one line, and framing, ranges and proxies are not the caller's."""
    error = refused(checks.check_headers, headers, LIMITS)
    assert error.code == "header_invalid"
    assert "hunter2" not in error.detail


def test_headers_are_kept_with_their_values_hidden() -> None:
    """Values are secrets; their spelling is kept."""
    kept = checks.check_headers({"X-Token": "a b\tc", "Authorization": "", "DNT": "1"}, LIMITS)
    assert [(header.name, header.value.reveal()) for header in kept] == [
        ("X-Token", "a b\tc"),
        ("Authorization", ""),
        ("DNT", "1"),
    ]
    assert "a b" not in repr(kept)


def test_headers_have_a_common_limit() -> None:
    """Servers refuse more in all, however it is divided."""
    headers = {f"X-{index}": "v" * 1000 for index in range(17)}
    assert refused(checks.check_headers, headers, LIMITS).code == "headers_too_large"
