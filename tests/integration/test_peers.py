"""That the real peers of other tests admit who is right and refuse who is not; curl asks."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from spnego.exceptions import InvalidTokenError

from tests.support import apache_gssapi as apache_server
from tests.support.apache_gssapi import NTLM_DOMAIN, NTLM_ODD_USER
from tests.support.handshakes import Line, line
from tests.support.kdc import REALM, Kdc
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    USER,
    Proxies,
    Server,
    require_program,
)
from tests.support.squid import Squid


@dataclass(frozen=True, slots=True)
class Curl:
    """Asks as somebody with a ticket of alice, or without."""

    kdc: Kdc
    ticket: Path

    def __call__(self, *arguments: str | Path, ticket: bool = True) -> tuple[int, str]:
        """Return the last status and everything else that curl printed; 0 when nobody answered."""
        asked = subprocess.run(
            [require_program("curl"), "-qsSi", "--noproxy", "", "-w", "\n%{http_code}", *arguments],
            env={**os.environ, **self.kdc.environment(ccache=self.ticket if ticket else None)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        said, _, status = asked.stdout.rpartition("\n")
        return int(status), said + asked.stderr


@pytest.fixture(scope="session")
def curl(kdc: Kdc) -> Curl:
    """curl, with a ticket of alice in hand."""
    return Curl(kdc, kdc.kinit())


@pytest.fixture
def without_kerberos(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which Kerberos cannot begin, at once."""
    for name, value in kdc.environment(config=kdc.configuration(realm="NOWHERE.TEST")).items():
        monkeypatch.setenv(name, value)


RIGHT = f"{USER}:{PASSWORD}"
WRONG = f"{USER}:wrong"
ODD = f"{ODD_USER}:{ODD_PASSWORD}"

# -- Apache as server


@pytest.mark.parametrize("place", ["kerberos", "bound", "negotiate", "spnego", "wordy", "every"])
def test_apache_admits_a_ticket_alone(apache_gssapi: Server, curl: Curl, place: str) -> None:
    """mod_auth_gssapi names the principal; without a ticket it refuses."""
    path = f"/{place}{apache_gssapi.put(b'kerberos')}"
    url = apache_gssapi.url(path, host="localhost")
    status, said = curl("--negotiate", "-u", ":", url)
    assert (status, said[-8:]) == (200, "kerberos")
    assert f"X-User: {USER}@{REALM}" in said
    assert "WWW-Authenticate: Negotiate oY" in said, "no proof of the server's identity"
    assert curl("--negotiate", "-u", ":", url, ticket=False)[0] == 401


@pytest.mark.parametrize("kind", apache_server.CERTIFICATES)
def test_apache_speaks_tls_with_each_certificate(
    apache_gssapi: Server, curl: Curl, kind: str
) -> None:
    """Certificates whose signatures have different hashes lead to different channel bindings."""
    assert apache_gssapi.cacert is not None
    url = apache_gssapi.tls_url(f"/kerberos{apache_gssapi.put(b'tls')}", kind=kind)
    arguments: list[str | Path] = ["--negotiate", "-u", ":", "--cacert", apache_gssapi.cacert, url]
    assert curl(*arguments)[0] == 200
    assert curl(*arguments, ticket=False)[0] == 401


def test_apache_authenticates_each_request_or_the_connection(
    apache_gssapi: Server, curl: Curl
) -> None:
    """Only where `Persistent-Auth` promises it, a connection stays authenticated."""
    path = apache_gssapi.put(b"again")
    for place, persistent in (("kerberos", False), ("bound", True)):
        url = apache_gssapi.url(f"/{place}{path}", host="localhost")
        _, said = curl("--negotiate", "-u", ":", url, url)
        assert len(set(re.findall(r"^X-Port: (\d+)", said, re.MULTILINE))) == 1
        # The server proves itself whenever it has got a token.
        assert said.count("WWW-Authenticate: Negotiate oY") == (1 if persistent else 2)
        assert ("Persistent-Auth: true" in said) is persistent


def test_apache_refuses_a_token_that_it_has_seen(apache_gssapi: Server, curl: Curl) -> None:
    """A replay is 401, on the same connection and on another."""
    target = f"/kerberos{apache_gssapi.put(b'replay')}"
    _, said = curl("-v", "--negotiate", "-u", ":", apache_gssapi.url(target, host="localhost"))
    token = re.search(r"^> Authorization: (Negotiate \S+)", said, re.MULTILINE)
    assert token is not None
    with line(apache_gssapi.url("/")) as wire:
        assert wire.ask(target, {"Authorization": token[1]}).status == 401


def test_an_acceptor_with_a_wrong_clock_refuses(served: Path, kdc: Kdc, curl: Curl) -> None:
    """Clock skew between client and server is refused, though the KDC is content."""
    with apache_server.apache_gssapi(served, kdc, clock=timedelta(hours=1)) as server:
        url = server.url(f"/kerberos{server.put(b'')}", host="localhost")
        status, said = curl("--negotiate", "-u", ":", url)
        assert status == 401
        # It says why, in Kerberos' own error message.
        assert "WWW-Authenticate: Negotiate oX" in said


def test_a_ticket_that_has_ended_is_refused(apache_gssapi: Server, curl: Curl, kdc: Kdc) -> None:
    """This is the state of a long job whose ticket was not renewed."""
    url = apache_gssapi.url(f"/kerberos{apache_gssapi.put(b'')}", host="localhost")
    assert replace(curl, ticket=kdc.expired_ticket())("--negotiate", "-u", ":", url)[0] == 401


@pytest.mark.usefixtures("without_kerberos")
@pytest.mark.parametrize(
    ("place", "scheme"),
    [
        ("ntlm", "NTLM"),
        ("negotiate", "NTLM"),
        ("every", "NTLM"),
        ("wordy", "NTLM"),
        ("spnego-ntlm", "Negotiate"),
        ("spnego", "Negotiate"),
        ("negotiate", "Negotiate"),
        ("every", "Negotiate"),
    ],
)
def test_apache_admits_ntlm_for_the_connection(
    apache_gssapi: Server, place: str, scheme: str
) -> None:
    """gss-ntlmssp takes two legs, then nothing; a wrong password is refused."""
    target = f"/{place}{apache_gssapi.put(b'ntlm')}"
    with line(apache_gssapi.url("/")) as wire:
        heard = wire.shake(target, scheme, USER, PASSWORD)
        assert (heard.status, heard.body, heard.legs) == (200, b"ntlm", 2)
        assert heard.headers["X-User"] == USER
        again = wire.ask(target)
        assert (again.status, again.headers["X-User"]) == (200, USER)
        assert again.headers["X-Port"] == heard.headers["X-Port"]
    with line(apache_gssapi.url("/")) as wire:
        assert is_refused(wire, target, scheme, USER, "wrong")
    with line(apache_gssapi.url("/")) as wire:
        assert wire.shake(target, scheme, f"{NTLM_DOMAIN}\\{USER}", PASSWORD).status == 200
    with line(apache_gssapi.url("/")) as wire:
        assert wire.shake(target, scheme, NTLM_ODD_USER, ODD_PASSWORD).status == 200


def is_refused(wire: Line, target: str, scheme: str, user: str, password: str) -> bool:
    """Whether a server says no, by status or in SPNEGO's own words."""
    try:
        return wire.shake(target, scheme, user, password).status == 401
    except InvalidTokenError:
        return True


def test_apache_takes_no_token_on_an_authenticated_connection(apache_gssapi: Server) -> None:
    """A further token on it gets the offers of the beginning, never a challenge."""
    target = f"/negotiate{apache_gssapi.put(b'once')}"
    with line(apache_gssapi.url("/")) as wire:
        assert wire.shake(target, "NTLM", USER, PASSWORD).status == 200
        again = wire.shake(target, "NTLM", USER, PASSWORD)
        assert (again.status, again.legs) == (401, 1)
        assert again.headers.get_all("WWW-Authenticate") == ["Negotiate", "NTLM"]


@pytest.mark.parametrize("place", apache_server.PLACES)
def test_apache_offers_what_its_table_says(apache_gssapi: Server, curl: Curl, place: str) -> None:
    """The challenges of each place, strongest first."""
    offered = {
        "kerberos": "Negotiate",
        "bound": "Negotiate",
        "spnego": "Negotiate",
        "ntlm": "NTLM",
        "spnego-ntlm": "Negotiate",
        "every": "Negotiate NTLM Digest Basic",
    }
    status, said = curl(apache_gssapi.url(f"/{place}{apache_gssapi.put(b'')}"))
    assert status == 401
    schemes = re.findall(r"^WWW-Authenticate: (\S+)", said, re.MULTILINE)
    assert " ".join(schemes) == offered.get(place, "Negotiate NTLM")
    assert ("Connection: close" in said) is (place == "closing")
    assert (len(said) > 200_000) is (place == "wordy")


@pytest.mark.parametrize("scheme", ["--basic", "--digest"])
def test_apache_accepts_every_scheme_that_it_offers_at_once(
    apache_gssapi: Server, curl: Curl, scheme: str
) -> None:
    """Where all are offered, the weak ones are no show either."""
    url = apache_gssapi.url(f"/every{apache_gssapi.put(b'')}")
    status, said = curl(scheme, "-u", RIGHT, url)
    assert status == 200
    assert f"X-User: {USER}" in said
    assert curl(scheme, "-u", ODD, url)[0] == 200
    assert curl(scheme, "-u", WRONG, url)[0] == 401


def test_a_ticket_for_another_service_is_refused(apache_gssapi: Server, curl: Curl) -> None:
    """The KDC knows the service, but the server does not have its key."""
    url = apache_gssapi.url(f"/kerberos{apache_gssapi.put(b'')}", host="elsewhere.test")
    resolve = f"elsewhere.test:{apache_gssapi.port}:127.0.0.1"
    assert curl("--negotiate", "-u", ":", "--resolve", resolve, url)[0] == 401


# -- lighttpd


def test_lighttpd_admits_a_ticket_alone(lighttpd_kerberos: Server, curl: Curl) -> None:
    """A second acceptor for Kerberos, written by others."""
    url = lighttpd_kerberos.url(f"/kerberos{lighttpd_kerberos.put(b'')}", host="localhost")
    assert curl("--negotiate", "-u", ":", url)[0] == 200
    assert curl("--negotiate", "-u", ":", url, ticket=False)[0] == 401


# -- Proxies

TARGETS = ("http", "connect")


def through(proxy: str, nginx: Server, target: str) -> list[str | Path]:
    """Return curl's arguments for a file of nginx through a proxy."""
    assert nginx.cacert is not None
    path = nginx.put(b"through")
    url = nginx.tls_url(path) if target == "connect" else nginx.url(path)
    return ["-x", proxy, "--cacert", nginx.cacert, url]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scheme", ["basic", "digest", "ntlm"])
def test_squid_admits_the_right_password_as_proxy(
    squid: Squid, nginx: Server, curl: Curl, scheme: str, target: str
) -> None:
    """Basic, Digest and NTLM by Samba, for plain requests and tunnels; a wrong password is 407."""
    for port in (scheme, "every"):
        arguments = [f"--proxy-{scheme}", *through(squid.url(port), nginx, target)]
        status, said = curl("-U", RIGHT, *arguments)
        assert (status, said[-7:]) == (200, "through")
        assert "407" in curl("-U", WRONG, *arguments)[1].rpartition("HTTP/")[2]
        assert scheme == "ntlm" or curl("-U", ODD, *arguments)[0] == 200


@pytest.mark.parametrize("target", TARGETS)
def test_squid_admits_a_ticket_alone_as_proxy(
    squid: Squid, nginx: Server, curl: Curl, target: str
) -> None:
    """Kerberos by MIT's library, for plain requests and tunnels."""
    for port in ("negotiate", "every"):
        arguments = ["--proxy-negotiate", "-U", ":", *through(squid.url(port), nginx, target)]
        assert curl(*arguments)[0] == 200
        assert "407" in curl(*arguments, ticket=False)[1].rpartition("HTTP/")[2]


@pytest.mark.parametrize("target", TARGETS)
def test_squid_may_ask_for_nothing(squid: Squid, nginx: Server, curl: Curl, target: str) -> None:
    """The open port forwards for everybody."""
    assert curl(*through(squid.url("open"), nginx, target))[0] == 200


@pytest.mark.parametrize("scheme", ["basic", "digest", "ntlm", "negotiate"])
def test_squid_is_a_server_that_authenticates(
    squid: Squid, nginx: Server, curl: Curl, scheme: str
) -> None:
    """As accelerator it asks with 401, and its NTLM is not Apache's."""
    path = nginx.put(b"origin")
    who = ":" if scheme == "negotiate" else RIGHT
    for port in (scheme, "every"):
        url = squid.origin(port, path)
        status, said = curl(f"--{scheme}", "-u", who, url)
        assert (status, said[-6:]) == (200, "origin")
        assert re.search(rf"^X-User: \\?{USER}", said, re.MULTILINE)
        assert curl(f"--{scheme}", "-u", ":" if who == ":" else WRONG, url, ticket=False)[0] == 401


@pytest.mark.parametrize(
    ("port", "offered"),
    [
        ("basic", "Basic"),
        ("digest", "Digest"),
        ("negotiate", "Negotiate"),
        ("ntlm", "NTLM"),
        ("every", "Negotiate NTLM Digest Basic"),
    ],
)
def test_squid_offers_what_its_table_says(
    squid: Squid, nginx: Server, curl: Curl, port: str, offered: str
) -> None:
    """The challenges of each port, strongest first."""
    _, said = curl(*through(squid.url(port), nginx, "http"))
    schemes = re.findall(r"^Proxy-Authenticate: (\S+)", said, re.MULTILINE)
    assert " ".join(schemes) == offered
    _, said = curl(squid.origin(port, "/"))
    assert " ".join(re.findall(r"^WWW-Authenticate: (\S+)", said, re.MULTILINE)) == offered


@pytest.mark.parametrize("user", [ODD_USER, "TRANSFERD\\bob", "bob"])
def test_samba_knows_whoever_has_the_password(squid: Squid, nginx: Server, user: str) -> None:
    """ntlm_auth tells two users apart, with names that gss-ntlmssp fails at."""
    path = nginx.put(b"samba")
    with line(squid.origin("ntlm", "/")) as wire:
        heard = wire.shake(path, "NTLM", user, PASSWORD)
        assert (heard.status, heard.legs) == (200, 2)
        assert user.rpartition("\\")[2].encode() in heard.headers["X-User"].encode("latin-1")
        assert wire.ask(path).status == 200
    with line(squid.origin("ntlm", "/")) as wire:
        assert is_refused(wire, path, "NTLM", user, "wrong")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("port", ["basic", "digest", "shortnonce"])
def test_apache_admits_the_right_password_as_proxy(
    apache_proxy: Proxies, nginx: Server, curl: Curl, port: str, target: str
) -> None:
    """Basic and Digest, for plain requests and tunnels; a wrong password is 407."""
    scheme = "--proxy-basic" if port == "basic" else "--proxy-digest"
    arguments = [scheme, *through(apache_proxy.url(port), nginx, target)]
    assert curl("-U", RIGHT, *arguments)[0] == 200
    assert curl("-U", ODD, *arguments)[0] == 200
    assert "407" in curl("-U", WRONG, *arguments)[1].rpartition("HTTP/")[2]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("port", ["kerberos", "negotiate"])
def test_apache_admits_a_ticket_alone_as_proxy(
    apache_proxy: Proxies, nginx: Server, curl: Curl, port: str, target: str
) -> None:
    """Kerberos, for plain requests and tunnels."""
    arguments = ["--proxy-negotiate", "-U", ":", *through(apache_proxy.url(port), nginx, target)]
    assert curl(*arguments)[0] == 200
    assert "407" in curl(*arguments, ticket=False)[1].rpartition("HTTP/")[2]


@pytest.mark.usefixtures("without_kerberos")
@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
def test_apache_admits_ntlm_as_proxy(apache_proxy: Proxies, nginx: Server, scheme: str) -> None:
    """gss-ntlmssp guards plain requests, for the connection, and the way into a tunnel."""
    path = nginx.put(b"inside")
    with line(apache_proxy.url("negotiate")) as wire:
        heard = wire.shake(nginx.url(path), scheme, USER, PASSWORD, proxy=True)
        assert (heard.status, heard.headers["X-Proxy-User"]) == (200, USER)
        assert wire.ask(nginx.url(path)).status == 200
    authority = f"localhost:{nginx.tls_port}"
    with line(apache_proxy.url("negotiate")) as wire:
        heard = wire.shake(authority, scheme, USER, PASSWORD, method="CONNECT", proxy=True)
        assert heard.status == 200
        assert nginx.cacert is not None
        with wire.secured(nginx.cacert) as inside:
            assert inside.ask(path).body == b"inside"
    with line(apache_proxy.url("negotiate")) as wire, contextlib.suppress(InvalidTokenError):
        heard = wire.shake(authority, scheme, USER, "wrong", method="CONNECT", proxy=True)
        assert heard.status == 407
