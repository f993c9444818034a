"""Negotiate and NTLM at the servers of Debian: each speaks and refuses in its own way."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass, field

import pytest

from tests.support.apache_gssapi import NTLM_DOMAIN, NTLM_ODD_USER
from tests.support.gss_acceptors import (
    converse,
)
from tests.support.kdc import REALM
from tests.support.realm import (
    GET,
    NEGOTIATE,
    Realm,
    own,
    session,
)
from tests.support.servers import (
    ODD_PASSWORD,
    PASSWORD,
    USER,
    Server,
)
from tests.support.squid import Squid
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthRejected,
    Place,
    Reply,
    Session,
)
from transferd.auth.negotiate import NegotiateSession
from transferd.auth.ntlm import NtlmSession
from transferd.model.credentials import Credential, NegotiateOptions, Scheme, Secret, Target


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
        # The text is krb5's, for whatever had that code in this thread before.
        ("apache kerberos", r": .* \(GSS status 851968/2529638947\)"),
        ("lighttpd kerberos", ", and does not say why"),
        ("squid origin-negotiate", ", and does not say why"),
    ],
)
def test_a_real_server_refuses_a_ticket_and_is_quoted(peers: Peers, peer: str, reason: str) -> None:
    """NG9: a ticket for a service whose key it does not have; most say nothing."""
    talker = session(options=NegotiateOptions(spn="HTTP/elsewhere.test"))
    with pytest.raises(AuthRejected, match=f"HTTP/elsewhere.test, .* '{USER}'{reason}"):
        admitted(talker, peers.wire(peer))
