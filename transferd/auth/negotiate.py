"""Negotiate (RFC 4559, MS-N2HT): Kerberos, and NTLM where the job lets it, as a conversation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from transferd.auth import kerberos, ntlm
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    CHALLENGE_STATUS,
    Attempt,
    AuthRejected,
    CannotStart,
    Conversation,
    NotMutual,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.gss import Context, Status, StepFailed, heard, service_at, written
from transferd.auth.tickets import tickets_of
from transferd.model.credentials import Credential, Scheme, Target
from transferd.model.failures import kind_of

#: So many tokens of ours at most in one conversation (BITS.md H2).
LEGS = 5

_KERBEROS = "kerberos"
_NTLM = "ntlm"
_ALLOW_NTLM = "allow NTLM inside Negotiate with --allow-ntlm (negotiate.ntlm)"


def usable(challenge: Challenge) -> bool:
    """Whether *challenge* asks for Negotiate; a token in it is a hint, and overlooked (NG6)."""
    return challenge.scheme == Scheme.NEGOTIATE


@dataclass(frozen=True, slots=True)
class _Refused:
    """A challenge came back for what was sent."""

    reply: Reply
    #: What the mechanism reports, if anything.
    said: Status | None = None


class NegotiateSession:
    """Negotiate at one origin.

    Kerberos is tried first, with the tickets of the credential, and NTLM only where Kerberos cannot
    start, the job allows it and the credential is explicit; `mechanism` tells which it was, and a
    session that has come to NTLM keeps to it.

    Kerberos authenticates requests: after a success a later request carries a token of its own from
    the start (a repeated one would be refused as a replay), for the same ticket. NTLM, and a server
    that says `Persistent-Auth: true`, authenticate connections: later requests go without a token
    until it is asked for again (MS-N2HT 3.2.5). What is refused without having been asked for
    proves nothing: the server's key may have changed; the fresh challenge is answered once, with
    tickets got anew.

    Mutual authentication is asked for, and a token that comes with the final reply has to prove it.
    A final reply without one is accepted: RFC 4559 does not demand it, squid and lighttpd send
    none, and whom we talk to is TLS's to prove.
    """

    __slots__ = (
        "_allow_ntlm",
        "_credential",
        "_instead",
        "_mechanism",
        "_persistent",
        "_service",
        "_succeeded",
        "_tickets",
    )

    def __init__(self, credential: Credential, place: Place) -> None:
        options = place.negotiate
        proxy = credential.target is Target.PROXY
        self._credential = credential
        self._service = service_at(place, options.proxy_spn if proxy else options.spn)
        self._tickets = tickets_of(credential, options)
        self._allow_ntlm = options.ntlm
        self._mechanism: str | None = None
        #: Why Kerberos could not start, where NTLM is spoken instead.
        self._instead: str | None = None
        self._succeeded = False
        #: The server keeps connections authenticated.
        self._persistent = False

    @property
    def scheme(self) -> Scheme:
        """Negotiate."""
        return Scheme.NEGOTIATE

    @property
    def mechanism(self) -> str | None:
        """`kerberos` or `ntlm`, once one has started."""
        return self._mechanism

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*; see `Session.converse`. Steps may wait for a KDC."""
        secure = request.url.startswith("https:")
        binding = request.channel_binding
        if challenge is None:
            unasked = yield from self._unasked(binding)
            if unasked is None:
                return
            binding = unasked.channel_binding
        refused = yield from self._exchange(binding)
        if refused is not None:
            self._succeeded = False
            raise self._rejected(refused, secure=secure)

    def close(self) -> None:
        """Forget what the server said, and destroy tickets that are not the owner's."""
        self._succeeded = self._persistent = False
        self._tickets.forget()

    @property
    def _status(self) -> int:
        return CHALLENGE_STATUS[self._credential.target]

    def _unasked(self, binding: bytes | None) -> Generator[Attempt, Reply, Reply | None]:
        """Send with what is remembered. Returns the reply that asks for more, None: none does."""
        if self._succeeded and self._mechanism == _KERBEROS and not self._persistent:
            refused = yield from self._exchange(binding)
            if refused is None:
                return None
            reply = refused.reply
            self._tickets.forget()
        else:
            reply = yield Attempt(authorization=None)
            if reply.status != self._status:
                return None
        try:
            asked = heard(reply.authenticate, "negotiate").offered
        except StepFailed:
            asked = False
        return reply if asked else None

    def _exchange(self, binding: bytes | None) -> Generator[Attempt, Reply, _Refused | None]:
        """Send a fresh token, and those that it takes after it. None: there is no refusal.

        Raises:
            CannotStart, AuthRejected: nothing was sent.
            NotMutual: the final token is wrong.
        """
        context, token = self._begin(binding)
        legs = 0
        while True:
            # The rest of an exchange is known to the connection that it was begun on.
            reply = yield Attempt(authorization=written("Negotiate", token), pinned=legs > 0)
            if reply.status != self._status:
                self._conclude(context, reply)
                return None
            legs += 1
            try:
                received = heard(reply.authenticate, "negotiate").token
                if received is None or context.complete:
                    return _Refused(reply)
                answer = context.step(received, reply.channel_binding)
            except StepFailed as error:
                return _Refused(reply, error.status)
            if answer is None:
                return _Refused(reply)
            if legs == LEGS:
                return _Refused(reply, Status(f"it asks for more than {LEGS} tokens"))
            token = answer

    def _begin(self, binding: bytes | None) -> tuple[Context, bytes]:
        if self._instead is None:
            try:
                begun = kerberos.open_kerberos(
                    self._tickets, self._service, self._credential.target, binding
                )
            except CannotStart as error:
                if not self._allow_ntlm or self._credential.implicit:
                    raise self._advised(error) from error
                self._instead = str(error)
            except AuthRejected:
                # By the KDC, on record as a refusal: that was Kerberos.
                self._mechanism = _KERBEROS
                raise
            else:
                self._mechanism = _KERBEROS
                return begun
        begun = ntlm.open_ntlm(self._credential, self._service, wrapped=True)
        self._mechanism = _NTLM
        return begun

    def _conclude(self, context: Context, reply: Reply) -> None:
        """Read the final reply.

        Raises:
            NotMutual: its token is wrong.
        """
        try:
            token = heard(reply.authenticate, "negotiate").token
            if token is not None and not context.complete:
                context.step(token)
            if token is not None and not context.complete:
                raise StepFailed(Status("it is not the last one"))
        except StepFailed as error:
            self._succeeded = False
            raise NotMutual(
                f"the {self._credential.target} did not prove that it is {self._service}: its"
                f" final token is wrong: {error}"
            ) from error
        said = "".join(reply.values("Persistent-Auth")).strip().lower()
        self._persistent = said == "true" or (not said and self._mechanism == _NTLM)
        self._succeeded = True

    def _advised(self, error: CannotStart) -> CannotStart:
        """Tell who could allow NTLM that it is not spoken unless they do."""
        if self._credential.implicit:
            return error
        usual = "" if error.code is None else kind_of(error.code).advice
        advice = f"{error.advice or usual}; or {_ALLOW_NTLM}"
        return CannotStart(str(error), code=error.code, advice=advice)

    def _rejected(self, refused: _Refused, *, secure: bool) -> AuthRejected:
        if self._mechanism == _KERBEROS:
            return kerberos.refusal(
                self._service, self._tickets, self._credential.target, refused.said
            )
        text = ntlm.refusal(self._credential, refused.reply.channel_binding, secure=secure)
        said = "" if refused.said is None else f" ({refused.said.text})"
        return AuthRejected(
            f"{text}{said}; NTLM was spoken inside Negotiate, for Kerberos could not start:"
            f" {self._instead}"
        )
