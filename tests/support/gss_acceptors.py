"""The other end of NTLM and Negotiate, in this process: pyspnego's and MIT's acceptors.

Unlike the servers that Debian has, these refuse absent and wrong channel bindings.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from transferd.auth.challenge import Challenge
from transferd.auth.flow import CHALLENGE_STATUS, Attempt, Reply, RequestLine, Session
from transferd.model.credentials import Target

if TYPE_CHECKING:
    from spnego import ContextProxy

#: A password with 32 hexadecimal digits, a colon, and 32 more.
HASH_LIKE = f"{'0123456789abcdef' * 2}:{'fedcba9876543210' * 2}"
#: DOMAIN:USER:PASSWORD, for passwords without a colon; and name:id:LM:NT:flags:time, with NTOWFv1
#: (MS-NLMP 3.3.1) by `iconv -t utf-16le | openssl dgst -provider legacy -md4`.
_USERS = rf"""CORP:alice:opensesame
:alice@corp.test:opensesame
:bob:opensesame
:jürgen:p-ä, "q\ ß日本€
carol:1:{"0" * 32}:AA35ECFD2F1865D6B2D4A0FE7C401FD3:[U]:LCT-0
dave:1:{"0" * 32}:3E947E7E9ECB1268FA7DBED25855F067:[U]:LCT-0
"""


def require_module(name: str) -> None:
    """Skip the test where a Python module is missing, or fail it where the environment has CI."""
    try:
        importlib.import_module(name)
    except ImportError:
        reason = f"{name} is not installed: pip install 'transferd[kerberos]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def ntlm_users() -> Iterator[None]:
    """Let acceptors of NTLM know their users, for the whole process, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="transferd-test-") as directory:
        path = Path(directory) / "users"
        path.write_text(_USERS, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NTLM_USER_FILE", str(path))
            yield


class Acceptor(Protocol):
    """A server, or one connection of it."""

    def reply(self, attempt: Attempt) -> Reply:
        """Answer a request."""
        ...


@dataclass
class NtlmAcceptor:
    """One connection to a server that speaks NTLM, raw or inside SPNEGO."""

    scheme: str = "NTLM"
    #: Raw, whatever the client does (BITS.md NG6).
    raw: bool = False
    #: Of its own TLS connection; it is demanded.
    binding: bytes | None = None
    #: Of the connection that the client sees.
    seen_binding: bytes | None = None
    target: Target = Target.SERVER
    persistent: str | None = None
    #: Who was admitted, by name.
    user: str | None = None
    #: Why somebody was not.
    errors: list[Exception] = field(default_factory=list)
    #: What came in, as bytes; None: no credentials.
    tokens: list[bytes | None] = field(default_factory=list)
    _proxy: ContextProxy | None = None

    def reply(self, attempt: Attempt) -> Reply:
        """Answer a request; once somebody is admitted, everybody is who comes without a token."""
        from spnego.exceptions import SpnegoError

        token = _token(attempt, self.scheme)
        self.tokens.append(token)
        if token is None:
            return self._refused() if self.user is None else self._served(None)
        if self.user is not None or self._proxy is None:
            self._proxy = self._open()
        try:
            answer = self._proxy.step(token)
        except SpnegoError as error:
            self.errors.append(error)
            self._proxy = None
            return self._refused()
        if not self._proxy.complete:
            return self._refused(answer)
        self.user = self._proxy.client_principal
        return self._served(answer)

    def _open(self) -> ContextProxy:
        import spnego
        from spnego.channel_bindings import GssChannelBindings

        inside = self.scheme == "Negotiate" and not self.raw
        options = spnego.NegotiateOptions
        return spnego.server(
            protocol="negotiate" if inside else "ntlm",
            options=options.use_negotiate if inside else options.none,
            channel_bindings=(
                None if self.binding is None else GssChannelBindings(application_data=self.binding)
            ),
        )

    def _refused(self, token: bytes | None = None) -> Reply:
        return Reply(
            status=CHALLENGE_STATUS[self.target],
            authenticate=(_line(self.scheme, token), 'Basic realm="r"'),
            channel_binding=self.seen_binding,
        )

    def _served(self, token: bytes | None) -> Reply:
        headers = () if self.persistent is None else (("persistent-auth", self.persistent),)
        lines = () if token is None else (_line(self.scheme, token),)
        return Reply(
            status=200, authenticate=lines, headers=headers, channel_binding=self.seen_binding
        )


@dataclass
class KerberosAcceptor:
    """A server that authenticates each request by Kerberos, with MIT's library."""

    keytab: Path
    #: Of its own TLS connection; it is demanded.
    binding: bytes | None = None
    seen_binding: bytes | None = None
    persistent: str | None = None
    #: Whether it sends a final token.
    proof: bool = True
    users: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    #: Whether a request without credentials is served: its connection is known.
    known: bool = False

    def reply(self, attempt: Attempt) -> Reply:
        """Answer a request."""
        token = _token(attempt, "Negotiate")
        if token is None:
            return Reply(status=200) if self.known else self._refused(None)
        context, answer, error = accept(self.keytab, token, self.binding)
        if error is None and self.binding is not None and not _bound(context):
            error = ValueError("no channel binding")
        if error is not None:
            self.errors.append(error)
            return self._refused(answer)
        self.users.append(str(context.initiator_name))
        return self._served(answer)

    def _refused(self, token: bytes | None) -> Reply:
        return Reply(
            status=401,
            authenticate=(_line("Negotiate", token),),
            channel_binding=self.seen_binding,
        )

    def _served(self, token: bytes | None) -> Reply:
        headers = () if self.persistent is None else (("Persistent-Auth", self.persistent),)
        lines = () if token is None else (_line("Negotiate", token),)
        return Reply(
            status=200,
            authenticate=lines if self.proof else (),
            headers=headers,
            channel_binding=self.seen_binding,
        )


def accept(
    keytab: Path, token: bytes, binding: bytes | None = None
) -> tuple[Any, bytes | None, Exception | None]:
    """Let MIT's acceptor read a token. Returns its context, its answer, and what it has against."""
    import gssapi
    from gssapi.raw.chan_bindings import ChannelBindings
    from gssapi.raw.misc import GSSError

    context = gssapi.SecurityContext(
        creds=gssapi.Credentials(usage="accept", store={"keytab": f"FILE:{keytab}"}),
        usage="accept",
        channel_bindings=None if binding is None else ChannelBindings(application_data=binding),
    )
    try:
        answer = context.step(token)
    except GSSError as error:
        return context, None, error
    try:
        # A step with an error token to send keeps its error back.
        _ = context.complete
    except GSSError as error:
        return context, answer, error
    return context, answer, None


def _bound(context: Any) -> bool:
    import gssapi

    # MIT lets a client pass that names no binding at all.
    return gssapi.RequirementFlag.channel_bound in context.actual_flags


def _token(attempt: Attempt, scheme: str) -> bytes | None:
    if attempt.authorization is None:
        return None
    found, _, token = attempt.authorization.partition(" ")
    assert found == scheme
    return base64.b64decode(token, validate=True)


def _line(scheme: str, token: bytes | None) -> str:
    return scheme if not token else f"{scheme} {base64.b64encode(token).decode()}"


def converse(
    session: Session,
    acceptor: Acceptor,
    *,
    request: RequestLine,
    challenge: Challenge | None = None,
) -> list[Attempt]:
    """Carry a conversation to its end and return what was sent; a last reply of 401 is allowed."""
    talk = session.converse(request, challenge)
    attempts: list[Attempt] = []
    step = next(talk)
    while True:
        assert isinstance(step, Attempt)
        attempts.append(step)
        try:
            step = talk.send(acceptor.reply(step))
        except StopIteration:
            return attempts
