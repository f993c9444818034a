"""Cookies of a run: where they go, and where they never do (RFC 6265, one origin for each)."""

from __future__ import annotations

import pytest

from transferd.model.origins import origin
from transferd.worker.cookies import ORIGINS, Cookies
from transferd.worker.request import Request

HERE = "https://host.example.org/kit/app.bin"


def shown(cookies: Cookies, url: str, *headers: tuple[str, str]) -> str | None:
    """Return the Cookie field of a request for *url*."""
    fields = cookies.attach(Request(url=url, headers=headers)).headers
    found = [value for name, value in fields if name.lower() == "cookie"]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    "value", ["Zt4q", "t=1&p=", "a/b+c==", '"in quotes"', '"a\\"b"', "{json:1}", "", "ü"]
)
async def test_a_cookie_comes_back_as_it_was_set(value: str) -> None:
    """Byte for byte: servers compare what they set."""
    cookies = Cookies()
    cookies.take(HERE, [f"k={value}; Path=/; HttpOnly; SameSite=Strict"])
    assert shown(cookies, HERE) == f"k={value}"


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example.org/kit/app.bin",
        "https://host.example.org:8443/kit/app.bin",
        "https://www.host.example.org/kit/app.bin",
        "https://example.org/kit/app.bin",
        "https://other.example.org/kit/app.bin",
    ],
)
@pytest.mark.parametrize("domain", ["", "; Domain=example.org", "; Domain=host.example.org"])
async def test_a_cookie_goes_to_no_other_origin(url: str, domain: str) -> None:
    """No Domain widens that, and neither scheme nor port is overlooked."""
    cookies = Cookies()
    cookies.take(HERE, [f"k=v; Path=/{domain}"])
    assert shown(cookies, HERE) == "k=v"
    assert shown(cookies, url) is None


@pytest.mark.parametrize("domain", ["evil.org", "w.host.example.org", "org.evil"])
async def test_a_cookie_for_somebody_else_is_not_kept(domain: str) -> None:
    """RFC 6265 5.3: a Domain that is not the host's is refused with its cookie."""
    cookies = Cookies()
    cookies.take(HERE, [f"k=v; Path=/; Domain={domain}"])
    assert shown(cookies, HERE) is None


@pytest.mark.parametrize(
    ("attribute", "path", "goes"),
    [
        ("", "/kit/other", True),
        ("", "/elsewhere", False),
        ("; Path=/kit", "/kit", True),
        ("; Path=/kit", "/kitten", False),
        ("; Path=/", "/anything", True),
        ("; Max-Age=0", "/kit/app.bin", False),
        ("; Expires=Mon, 05 Jan 2015 10:00:00 GMT", "/kit/app.bin", False),
        ("; Max-Age=1000", "/kit/app.bin", True),
        ("; Secure", "/kit/app.bin", True),
    ],
)
async def test_path_and_expiry_hold(attribute: str, path: str, goes: bool) -> None:
    """RFC 6265 5.1.4, 5.2, 5.4."""
    cookies = Cookies()
    cookies.take(HERE, [f"k=v{attribute}"])
    assert (shown(cookies, f"https://host.example.org{path}") == "k=v") is goes


async def test_a_secure_cookie_does_not_go_in_clear() -> None:
    """Not even to the place that set it in clear."""
    cookies = Cookies()
    cookies.take("http://127.0.0.1:8000/", ["k=v; Secure", "open=1"])
    assert shown(cookies, "http://127.0.0.1:8000/") == "open=1"


async def test_a_cookie_is_replaced_and_removed() -> None:
    """The newest of a name holds, and one that has expired is gone."""
    cookies = Cookies()
    cookies.take(HERE, ["k=1", 'k="2/"'])
    assert shown(cookies, HERE) == 'k="2/"'
    cookies.take(HERE, ["k=; Max-Age=0"])
    assert shown(cookies, HERE) is None


async def test_the_owners_own_cookies_come_first() -> None:
    """One field holds them all (RFC 6265 5.4)."""
    cookies = Cookies()
    cookies.take(HERE, ["k=v"])
    assert shown(cookies, HERE, ("cookie", "mine=1"), ("X", "y")) == "mine=1; k=v"


async def test_forgetting_is_for_one_place() -> None:
    """A logout at one server leaves the others logged in; the end of the run leaves nothing."""
    cookies = Cookies()
    there = "https://id.example.org/"
    for url in (HERE, there):
        cookies.take(url, ["k=v"])
    cookies.forget(origin(there))
    assert (shown(cookies, there), shown(cookies, HERE)) == (None, "k=v")
    cookies.clear()
    assert shown(cookies, HERE) is None


async def test_nobody_can_fill_the_memory() -> None:
    """Places, cookies of one place, and the size of a cookie and of a request are bounded."""
    cookies = Cookies()
    for number in range(ORIGINS + 5):
        cookies.take(f"https://h{number}.example.org/", ["k=v"])
    kept = [shown(cookies, f"https://h{number}.example.org/") for number in range(ORIGINS + 5)]
    assert kept == ["k=v"] * ORIGINS + [None] * 5
    first = "https://h0.example.org/"
    cookies.take(first, [f"huge={'x' * 10_000}"])
    for number in range(1000):
        cookies.take(first, [f"k{number}={'x' * 1000}"])
    assert 0 < len(shown(cookies, first) or "") < 9000


@pytest.mark.parametrize("line", ["", ";", "=", "no-pair", "k=v\r\nX: y", "k=\x00", "a b=c"])
async def test_nonsense_is_not_kept(line: str) -> None:
    """Whatever a server sends, reading it neither raises nor lets anything into a request."""
    cookies = Cookies()
    cookies.take(HERE, [line])
    assert "\r" not in (shown(cookies, HERE) or "")
    assert "X:" not in (shown(cookies, HERE) or "")
