"""NTLM over HTTP (MS-NTHT, MS-NLMP): three legs on one connection, as a conversation."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthRejected,
    CannotStart,
    Conversation,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.gss import (
    Context,
    Service,
    Status,
    StepFailed,
    heard,
    quieten,
    service_at,
    status_of,
    written,
)
from transferd.auth.identity import password_bytes
from transferd.auth.libraries import load
from transferd.model.credentials import Credential, Scheme, Target

if TYPE_CHECKING:
    from spnego import NTLMHash

_AUTHENTICATE = b"NTLMSSP\0\3\0\0\0"
#: An NTLMv1 response has exactly so many bytes, an NTLMv2 one more (MS-NLMP 2.2.2.6, 2.2.2.8).
_V1_BYTES = 24
#: What stands before the AV_PAIRs in an NTLMv2 response: the proof, and the head of what it proves.
_V2_HEADER = 16 + 28
#: MsvAvEOL and MsvAvChannelBindings (MS-NLMP 2.2.2.1).
_AV_END = 0
_AV_BINDINGS = 10


def usable(challenge: Challenge) -> bool:
    """Whether *challenge* asks for NTLM; one that holds a message already answers nobody."""
    return challenge.scheme == Scheme.NTLM and challenge.token68 is None


class NtlmSession:
    """NTLM at one origin.

    Authenticates connections, not requests: a later request is sent without credentials, and a
    handshake begins where its connection turns out not to be authenticated. A token is never sent
    twice. Nothing is remembered between conversations; a conversation holds the NT hash from its
    first message to its last.

    User names are `DOMAIN\\user`, `user@domain` (which goes out as it is, without a domain of its
    own) or `user` (BITS.md NT8).
    """

    __slots__ = ("_credential", "_service")

    def __init__(self, credential: Credential, place: Place) -> None:
        self._credential = credential
        self._service = service_at(place)

    @property
    def scheme(self) -> Scheme:
        """NTLM."""
        return Scheme.NTLM

    @property
    def mechanism(self) -> None:
        """Nothing: the scheme itself."""
        return None

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*; see `Session.converse`."""
        if challenge is None:
            reply = yield Attempt(authorization=None)
            if not self._asked(reply):
                return
        context, first = open_ntlm(self._credential, self._service)
        reply = yield Attempt(authorization=written("NTLM", first))
        if reply.status != self._status:
            return
        answer = self._answer(context, reply)
        binding = reply.channel_binding
        reply = yield Attempt(authorization=written("NTLM", answer), pinned=True)
        if reply.status == self._status:
            # Whatever it says in addition is not answered any more (MS-NTHT 3.1.5.1).
            why = refusal(self._credential, binding, secure=request.url.startswith("https:"))
            raise AuthRejected(f"{why} (NTLM)")

    def close(self) -> None:
        """Do nothing: nothing is remembered."""

    @property
    def _status(self) -> int:
        return CHALLENGE_STATUS[self._credential.target]

    def _asked(self, reply: Reply) -> bool:
        if reply.status != self._status:
            return False
        try:
            said = heard(reply.authenticate, "ntlm")
        except StepFailed:
            return False
        return said.offered and said.token is None

    def _answer(self, context: Context, reply: Reply) -> bytes:
        try:
            token = heard(reply.authenticate, "ntlm").token
            if token is None:
                raise AuthRejected(
                    f"the {self._credential.target} offers NTLM and does not go on with it: it"
                    " answered the first message without a challenge, before it was told who asks"
                )
            answer = context.step(token, reply.channel_binding)
        except StepFailed as error:
            raise AuthRejected(
                f"cannot go on with NTLM: the challenge of the {self._credential.target} is"
                f" wrong: {error}"
            ) from error
        if answer is None:
            raise AuthRejected("cannot go on with NTLM: there is no answer to the challenge")
        return answer


def refusal(credential: Credential, binding: bytes | None, *, secure: bool) -> str:
    """Say what it may mean that the answer to a challenge is refused.

    A server that demands a channel binding refuses right passwords, too (BITS.md NT7): where TLS
    ends before it, or where there is none.
    """
    user = repr(credential.username).replace("\\\\", "\\")
    text = f"the {credential.target} refused user name or password of {user}"
    if credential.target is Target.PROXY:
        return text
    if binding is not None:
        return (
            f"{text}, or it demands a binding to its own TLS connection, which is lost where"
            " something in between ends TLS"
        )
    if secure:
        return (
            f"{text}, or it demands a binding to the TLS connection, which there cannot be with"
            " its certificate"
        )
    return f"{text}, or it demands https (Extended Protection)"


def open_ntlm(
    credential: Credential, service: Service, *, wrapped: bool = False
) -> tuple[Context, bytes]:
    """Return a context and its first message; *wrapped* in SPNEGO, as the only mechanism.

    Raises:
        CannotStart: the library cannot; nothing of the server's has part in it.
    """
    load("spnego")
    import spnego

    quieten()
    options = spnego.NegotiateOptions
    try:
        proxy = spnego.client(
            _hashed(credential),
            hostname=service.host,
            service=service.kind,
            protocol="negotiate" if wrapped else "ntlm",
            options=options.use_negotiate if wrapped else options.none,
            context_req=spnego.ContextReq.integrity,
        )
        context = NtlmContext(proxy)
        first = context.step(None)
    except StepFailed as error:
        raise CannotStart(f"cannot begin with NTLM: {error}") from error
    except Exception as error:
        raise CannotStart(f"cannot begin with NTLM: {status_of(error).text}") from error
    if first is None:
        raise CannotStart("cannot begin with NTLM: there is no first message")
    return context, first


def _hashed(credential: Credential) -> NTLMHash:
    """Return what NTLM needs of *credential*: the name and NTOWFv1 of the password (MS-NLMP 3.3.1).

    A password given as such would be taken for a hash where it looks like one, and with `negotiate`
    it would be tried with Kerberos behind our back.
    """
    import spnego
    from spnego._ntlm_raw.md4 import md4

    password = password_bytes(credential, controls=True).decode()
    user = unicodedata.normalize("NFC", credential.username or "")
    return spnego.NTLMHash(user, nt_hash=md4(password.encode("utf-16-le")).hex())


class NtlmContext(Context):
    """NTLM, in SPNEGO or without: refuses what a client must not take part in."""

    __slots__ = ()

    def step(self, token: bytes | None, binding: bytes | None = None) -> bytes | None:
        """Go on as `Context.step` does."""
        answer = super().step(token, binding)
        if answer is not None:
            _check_answer(answer, bound=binding is not None)
        return answer


def _check_answer(token: bytes, *, bound: bool) -> None:
    """Refuse to send what is to be signed and should not be.

    What a challenge says of its target is copied into the response, and a channel binding with it
    where we have none of our own. It is for the client to say: whoever else puts one there relays
    the response to another server. It is looked for in what goes out, since there is more than one
    way of reading what came in.

    LM_COMPAT_LEVEL in the environment would have pyspnego send NTLMv1.
    """
    start = token.find(_AUTHENTICATE)
    if start < 0:
        return
    message = token[start:]
    size, _, offset = struct.unpack_from("<HHI", message, 20)
    if size <= _V1_BYTES:
        raise StepFailed(
            Status("the answer would be NTLMv1; take LM_COMPAT_LEVEL out of the environment")
        )
    pairs = dict(_av_pairs(message[offset : offset + size]))
    if not bound and any(pairs.get(_AV_BINDINGS, b"")):
        raise StepFailed(Status("it holds a channel binding, which is the client's to say"))


def _av_pairs(response: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what an NTLMv2 response says of its target (MS-NLMP 2.2.2.1, 2.2.2.7, 2.2.2.8)."""
    at = _V2_HEADER
    while True:
        kind, length = struct.unpack_from("<HH", response, at)
        if kind == _AV_END:
            return
        yield kind, response[at + 4 : at + 4 + length]
        at += 4 + length
