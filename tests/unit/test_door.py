"""Doors: who asks, for what, and which credentials there are for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.support.worker import PLAIN
from transferd.auth.flow import Attempt
from transferd.model.credentials import (
    Credential,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Secret,
    Target,
)
from transferd.worker.answer import Answer
from transferd.worker.door import Door, Doors, Hop, exposed, place_of
from transferd.worker.proxy import Proxy
from transferd.worker.request import Request

HTTP, HTTPS = "http://files.example.org/a?b=%20c", "https://files.example.org/a?b=%20c"
PROXY = Proxy(URL("http://proxy.example.org:3128"))
SECURE_PROXY = Proxy(URL("https://proxy.example.org:3128"))
BINDING = b"tls-server-end-point:hash"
PASSPORT = ("WWW-Authenticate", "Passport1.4 site=7,Bare,word")


def credential(
    scheme: Scheme, target: Target = Target.SERVER, username: str | None = "alice"
) -> Credential:
    """Make a credential."""
    return Credential(target=target, scheme=scheme, username=username, password=Secret("x"))


def doors(*credentials: Credential, **settings: object) -> Doors:
    """Make the doors of a run."""
    return Doors(credentials, replace(PLAIN, **settings), bytes)  # type: ignore[arg-type]


def request(url: str = HTTPS, proxy: Proxy | None = None, method: str = "GET") -> Request:
    """Make a request."""
    return Request(
        url=url,
        method=method,
        proxy=None if proxy is None else proxy.url,
        headers=(("X-Key", "secret"),),
        identity="owner",
    )


def server_door(made: Doors, asked: Request | None = None, *, own: bool = True) -> Door:
    """Make the server's door."""
    return made.server(Hop(request=asked or request(), own=own))


def answer(status: int, *headers: tuple[str, str], binding: bytes | None = BINDING) -> Answer:
    """Make an answer without a body."""
    fields = CIMultiDictProxy(CIMultiDict(headers))
    made = Answer(request(), status, fields, 7, None)
    made.channel_binding = binding
    return made


# ── who asks ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "header", "asks"),
    [
        (401, ("WWW-Authenticate", "Basic"), True),
        (401, ("X", "y"), True),
        (401, PASSPORT, True),
        (302, PASSPORT, True),
        *((status, PASSPORT, False) for status in (301, 303, 307, 308)),
        (302, ("WWW-Authenticate", "passport1.4 a=b"), True),
        (302, ("WWW-Authenticate", "Basic, Passport1.4"), False),
        (302, ("WWW-Authenticate", "Passport1.4"), False),
        (302, ("WWW-Authenticate", "NTLM"), False),
        (302, ("Location", "Passport1.4 a=b"), False),
        (200, PASSPORT, False),
        (304, PASSPORT, False),
        (403, ("WWW-Authenticate", "Basic"), False),
        (407, ("Proxy-Authenticate", "Basic"), False),
    ],
)
def test_a_server_asks_with_401_or_a_redirect_of_passports(
    status: int, header: tuple[str, str], asks: bool
) -> None:
    """A 302 with a Passport challenge is a redirect for browsers alone (MS-PASS 2.2.8)."""
    assert server_door(doors()).asks(answer(status, header)) is asks


def test_a_proxy_asks_with_407_alone() -> None:
    """Whatever else there is in its answer."""
    door = doors().proxy(request(HTTP, PROXY), PROXY)
    assert door.asks(answer(407))
    assert not door.asks(answer(401))
    assert not door.asks(answer(302, PASSPORT))


def test_a_door_reads_its_own_fields() -> None:
    """What a server says to a proxy's door counts nothing, and the other way round."""
    headers = (
        ("WWW-Authenticate", "NTLM"),
        ("Authentication-Info", "a"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authentication-Info", "b"),
    )
    server = server_door(doors()).reply(answer(401, *headers))
    proxy = doors().proxy(request(HTTP, PROXY), PROXY).reply(answer(407, *headers))
    assert (server.authenticate, server.authentication_info) == (("NTLM",), ("a",))
    assert (proxy.authenticate, proxy.authentication_info) == (("Basic",), ("b",))
    assert server.headers == proxy.headers == headers
    assert (server.status, server.connection) == (401, 7)


# ── what is authenticated ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_server_is_shown_the_request_as_it_gets_it(method: str) -> None:
    """Origin-form even through a proxy, which passes that on; the request's own method."""
    for proxy in (None, PROXY):
        door = server_door(doors(), request(HTTP, proxy, method))
        line = door.line(None)
        assert (line.method, line.target, line.url) == (method, "/a?b=%20c", HTTP)
        assert door.repeatable is (method != "POST")


def test_a_forwarding_proxy_is_shown_the_absolute_form() -> None:
    """Which is what it gets (RFC 9112 3.2.2)."""
    line = doors().proxy(request(HTTP, PROXY), PROXY).line(None)
    assert (line.method, line.target) == ("GET", HTTP)


@pytest.mark.parametrize(
    ("url", "target"),
    [(HTTPS, "files.example.org:443"), ("https://[::1]:8443/a", "[::1]:8443")],
)
def test_a_tunnelling_proxy_is_shown_the_authority_alone(url: str, target: str) -> None:
    """CONNECT host:port: neither path nor headers nor credentials of the server's (BITS.md H5)."""
    asked = replace(request(url, PROXY, "POST"), authorization="Basic server")
    door = doors().proxy(asked, PROXY)
    line = door.line(None)
    assert (line.method, line.target, line.url) == ("CONNECT", target, "")
    assert (door.request.headers, door.request.authorization) == ((), None)
    assert door.request.identity == "owner"
    assert door.tunnel
    assert door.repeatable


def test_credentials_are_bound_to_the_door_where_tls_ends() -> None:
    """The origin's certificate for the server, an https proxy's own for the proxy (BITS.md 4.6)."""
    asked = answer(401)
    assert server_door(doors()).binding(asked) == BINDING
    assert server_door(doors(), request(HTTP, SECURE_PROXY)).binding(asked) is None
    assert doors().proxy(request(HTTP, PROXY), PROXY).binding(asked) is None
    assert doors().proxy(request(HTTP, SECURE_PROXY), SECURE_PROXY).binding(asked) == BINDING
    assert server_door(doors()).reply(asked).channel_binding == BINDING
    assert server_door(doors()).line(BINDING).channel_binding == BINDING


def test_an_attempt_dresses_the_request_for_its_door() -> None:
    """One field for each door; what is there for the other one stays."""
    attempt = Attempt(authorization="NTLM x", url="https://files.example.org/there")
    sent = server_door(doors()).dressed(attempt, 3)
    assert (sent.url, sent.authorization, sent.connection) == (attempt.url, "NTLM x", 3)
    inside = replace(request(HTTP, PROXY), authorization="NTLM server")
    sent = doors().proxy(inside, PROXY).dressed(Attempt(authorization="NTLM x"), 3)
    assert (sent.authorization, sent.proxy_authorization) == ("NTLM server", "NTLM x")
    assert sent.url == HTTP


# ── what there is to answer with ───────────────────────────────────────────────────────────


def test_credentials_are_for_their_target_and_the_files_own_origin() -> None:
    """Another hop gets none, whatever is held (BITS.md A23)."""
    made = doors(credential(Scheme.NTLM), credential(Scheme.BASIC, Target.PROXY))
    assert set(server_door(made).held) == {Scheme.NTLM}
    assert server_door(made, own=False).held == {}
    assert (
        "credentials go to the origin of the file's URL only" in server_door(made, own=False).name
    )
    assert set(made.proxy(request(HTTP, PROXY), PROXY).held) == {Scheme.BASIC}
    assert made.armed
    assert not doors(credential(Scheme.BASIC, Target.PROXY)).armed


def test_who_the_owner_is_to_the_proxy_he_is_to_the_server() -> None:
    """Implicit proxy credentials count for the server, too (BITS.md A10)…"""
    made = doors(credential(Scheme.NEGOTIATE, Target.PROXY, username=None))
    (held,) = server_door(made).held.values()
    assert (held.target, held.scheme, held.username) == (Target.SERVER, Scheme.NEGOTIATE, None)
    assert made.armed


@pytest.mark.parametrize("scheme", list(Scheme))
def test_unless_the_server_has_credentials_of_its_own(scheme: Scheme) -> None:
    """…but not beside explicit ones, of any scheme."""
    made = doors(credential(Scheme.NEGOTIATE, Target.PROXY, username=None), credential(scheme))
    assert set(server_door(made).held) == {scheme}
    assert server_door(made).held[scheme].username == "alice"


def test_an_explicit_identity_stays_with_the_proxy() -> None:
    """A password that was given for the proxy is no server's."""
    made = doors(credential(Scheme.NEGOTIATE, Target.PROXY))
    assert server_door(made).held == {}


def test_the_proxys_url_may_name_an_identity() -> None:
    """For every scheme that a proxy may ask; what the job holds for the proxy comes before it."""
    named = Proxy(PROXY.url, "bob", Secret("y"))
    found = doors().proxy(request(HTTP, named), named).held
    assert set(found) == {Scheme.NEGOTIATE, Scheme.DIGEST, Scheme.NTLM, Scheme.BASIC}
    assert {held.username for held in found.values()} == {"bob"}
    assert {held.target for held in found.values()} == {Target.PROXY}
    made = doors(credential(Scheme.BASIC, Target.PROXY))
    assert set(made.proxy(request(HTTP, named), named).held) == {Scheme.BASIC}


def test_each_door_has_its_place() -> None:
    """The host to be named to others, and what the job says of speaking there."""
    passport = PassportOptions(login_host="id.example.org")
    negotiate = NegotiateOptions(spn="HTTP/a", proxy_spn="HTTP/b", ntlm=True)
    made = doors(negotiate=negotiate, passport=passport)
    server = server_door(made).place
    proxy = made.proxy(request(HTTP, PROXY), PROXY).place
    assert (server.host, server.negotiate) == ("files.example.org", negotiate)
    assert (proxy.host, proxy.negotiate) == ("proxy.example.org", negotiate)
    assert server.passport == passport


@pytest.mark.parametrize(
    ("url", "proxy", "open_way"),
    [
        (HTTPS, None, False),
        (HTTPS, PROXY, False),
        (HTTP, None, True),
        (HTTP, SECURE_PROXY, True),
        ("http://127.0.0.1/", None, False),
        ("http://localhost/", None, False),
        ("http://[::1]/", None, False),
        ("http://127.0.0.1/", PROXY, True),
        ("http://127.0.0.1/", Proxy(URL("http://127.0.0.2:3128")), False),
    ],
)
def test_a_way_is_open_where_anybody_can_read_along(
    url: str, proxy: Proxy | None, open_way: bool
) -> None:
    """Plain http that leaves this machine, or goes through a proxy that is elsewhere."""
    asked = request(url, proxy)
    assert exposed(asked) is open_way
    assert server_door(doors(), asked).transit.cleartext is open_way


@pytest.mark.parametrize(
    "url", ["", "/a", "ftp://host/", "http://", "http://host/ä", "http://host/a b", "http://a@b/"]
)
def test_what_cannot_be_asked_for_has_no_place(url: str) -> None:
    """Neither an origin nor a request line comes of it."""
    assert place_of(url) is None
    assert str(place_of("HTTP://Host:80/x")) == "http://host"
