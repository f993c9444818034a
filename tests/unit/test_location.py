"""Where redirects lead, and what an origin is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.model.errors import TransferFailed
from transferd.model.origins import Origin, is_loopback, origin, readable
from transferd.transfer.location import next_hop

HERE = "https://files.example/a/b;p?sig=1"


def hop(
    location: str | None,
    current: str = HERE,
    *,
    credentials_attached: bool = True,
    hops: int = 0,
) -> str:
    """Follow one redirect of a job with credentials, ten allowed."""
    return next_hop(current, 302, location, credentials_attached, hops=hops, limit=10)


def refusal(location: str | None, current: str = HERE, *, hops: int = 0) -> str:
    """Follow a redirect that must not be followed; return the failure's code."""
    with pytest.raises(TransferFailed) as caught:
        hop(location, current, hops=hops)
    assert caught.value.failure.http_status == 302
    assert caught.value.failure.message.startswith("cannot follow the redirect (302) of ")
    return caught.value.failure.code


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other.example/x", "https://other.example/x"),
        ("HTTPS://other.example", "https://other.example"),
        ("//cdn.example:8443/x?y", "https://cdn.example:8443/x?y"),
        ("/x/./y/../z", "https://files.example/x/./y/../z"),
        ("c", "https://files.example/a/c"),
        ("../c?d", "https://files.example/c?d"),
        ("../../../c/.", "https://files.example/c/"),
        ("?sig=2", "https://files.example/a/b;p?sig=2"),
        ("#top", "https://files.example/a/b;p?sig=1"),
        ("c;?#top", "https://files.example/a/c;?"),
        (" /x\t", "https://files.example/x"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://bücher.example:444/x", "https://xn--bcher-kva.example:444/x"),
        ("/a b/ü", "https://files.example/a%20b/%C3%BC"),
    ],
)
def test_a_location_is_resolved(location: str, target: str) -> None:
    """RFC 3986 5.2, RFC 9110 10.2.2: absolute, protocol-relative, relative; no fragment."""
    assert hop(location) == target


@given(
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#")),
    query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")),
)
def test_a_signed_url_is_kept_byte_for_byte(path: str, query: str) -> None:
    """A URL that is quoted again is another URL, and its signature is wrong."""
    url = f"https://cdn.example/{path}?{query}"
    assert hop(url) == url
    if not path.startswith("/"):
        assert hop(f"/{path}?{query}") == f"https://files.example/{path}?{query}"


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        " ",
        "https://",
        "https:///x",
        "https://a b/",
        "https://evil.example\\.files.example/",
        "https://%65vil.example/",
        "https://x:99999/",
        "https://x:0/",
        "https://x:8o/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://faß.example/",
        "https://\uff46iles.example/",
        "/x\r\nSet-Cookie: a",
        "/x\0",
    ],
)
def test_a_location_that_cannot_be_read_is_invalid(location: str | None) -> None:
    """Nothing is guessed: what two parsers could read differently is not followed."""
    assert refusal(location) == "redirect_invalid"


@pytest.mark.parametrize(
    "location",
    ["ftp://files.example/a", "file:///etc/passwd", "javascript:alert(1)", ":x", "data:,x"],
)
def test_only_http_is_followed(location: str) -> None:
    """A server cannot make transferd read something else."""
    assert refusal(location) == "redirect_refused"


@pytest.mark.parametrize("userinfo", ["alice@", "alice:pw@", "@", "files.example@", "a@b@"])
def test_userinfo_in_a_location_is_refused(userinfo: str) -> None:
    """RFC 9110 4.2.4: it is an error, and never a credential."""
    assert refusal(f"https://{userinfo}evil.example/") == "redirect_refused"


def test_credentials_keep_a_job_from_leaving_https() -> None:
    """LESSONS 4.6: https to http is refused when any credential is attached."""
    assert refusal("http://files.example/a") == "redirect_refused"
    plain = "http://files.example/a"
    assert hop(plain, credentials_attached=False) == plain
    assert hop(plain, "http://files.example/b") == plain
    assert hop("https://files.example/a", "http://files.example/b") == "https://files.example/a"


def test_redirects_are_counted() -> None:
    """A loop ends at the limit, and not one hop later."""
    assert hop("/x", hops=9) == "https://files.example/x"
    assert refusal("/x", hops=10) == "redirect_limit"


def test_a_message_names_no_secret_of_the_url() -> None:
    """A signed query or a password in a URL does not reach a log."""
    with pytest.raises(TransferFailed) as caught:
        hop(None, "https://alice:hunter2@files.example/a?sig=hunter2#hunter2")
    assert "https://files.example/a:" in caught.value.failure.message
    assert "hunter2" not in caught.value.failure.message


@given(st.text())
def test_any_location_leads_to_a_url_or_is_refused(location: str) -> None:
    """Whatever a server sends: one of our failures, or a URL that can be sent and has an origin."""
    try:
        target = hop(location)
    except TransferFailed:
        return
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert "#" not in target
    assert origin(target).scheme == "https"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://A.Example./x", Origin("http", "a.example", 80)),
        ("HTTPS://a.example:443?x", Origin("https", "a.example", 443)),
        ("https://a.example:/", Origin("https", "a.example", 443)),
        ("http://a.example:8080/x@y", Origin("http", "a.example", 8080)),
        ("http://[2001:DB8:0::1]/", Origin("http", "2001:db8::1", 80)),
        ("http://BÜCHER.example/", Origin("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_spellings_of_one_origin_are_equal(url: str, expected: Origin) -> None:
    """RFC 9110 4.3.1, 4.2.3: case, default port, final dot, IPv6 zeros, IDN."""
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url", ["ftp://a/", "a.example/x", "http:///x", "http://a@b/", "http://a b/", "http://[::g]/"]
)
def test_what_is_no_http_url_has_no_origin(url: str) -> None:
    """An origin is a security boundary: it is never guessed."""
    with pytest.raises(ValueError, match="it"):
        origin(url)


def test_an_origin_can_be_read() -> None:
    """Messages name origins in the usual spelling."""
    assert str(origin("https://A:443/x")) == "https://a"
    assert str(origin("http://[::1]:81/x")) == "http://[::1]:81"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost."])
def test_loopback_literals_are_this_machine(host: str) -> None:
    """Loopback addresses are exempt from the rule against clear-text credentials."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["128.0.0.1", "127.1", "0x7f.0.0.1", "::ffff:127.0.0.1", "localhost.example", "10.0.0.1", ""],
)
def test_nothing_else_is_this_machine_for_sure(host: str) -> None:
    """An odd spelling or a name is not trusted to stay on this machine."""
    assert not is_loopback(host)


def test_a_readable_url_keeps_what_a_person_needs() -> None:
    """Scheme, host, port and path are shown."""
    assert readable("https://u:p@h:8443/a/b?c#d") == "https://h:8443/a/b"
