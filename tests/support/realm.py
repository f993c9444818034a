"""A client in a Kerberos realm: this process, its tickets, and sessions to begin with."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.clocks import shifted_clock
from tests.support.gss_acceptors import KerberosAcceptor, require_module
from tests.support.kdc import Kdc
from tests.support.servers import PASSWORD, USER, require_program
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    CannotStart,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.negotiate import NegotiateSession
from transferd.auth.tickets import Tickets
from transferd.model.credentials import Credential, NegotiateOptions, Scheme, Secret, Target

BINDING = b"tls-server-end-point:" + bytes(range(32))
GET = RequestLine(method="GET", target="/a", url="http://localhost/a")
GET_TLS = replace(GET, url="https://localhost/a", channel_binding=BINDING)
NEGOTIATE = Challenge(scheme="negotiate")
_NOTHING = NegotiateOptions()


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


def join(kdc: Kdc, patch: pytest.MonkeyPatch, directory: Path) -> Realm:
    """Make this process a machine of a realm; *directory* is where acceptors know replays from."""
    require_module("gssapi")
    require_module("krb5")
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


class ScriptedTickets(Tickets):
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
