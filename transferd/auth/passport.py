"""Passport 1.4 (MS-PASS), as a conversation with three servers.

The partner that has the file asks for a ticket; the configuration server, which the owner names,
says where tickets are granted; the login server there grants one for a password or for a cookie.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from transferd.auth.challenge import Challenge, parse_challenges
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    Conversation,
    Errand,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.identity import password_bytes
from transferd.auth.passport_grammar import (
    SCHEME,
    Configuration,
    Grant,
    LoginChallenge,
    Opening,
    first_request,
    partner_parameters,
    read_configuration,
    read_grant,
    read_login_challenge,
    read_statuses,
    read_version_hint,
    sign_in_request,
    token_request,
)
from transferd.auth.passport_trust import Trust, askable_origin, sign_in_name, trust_of
from transferd.model.credentials import Credential, Scheme
from transferd.model.failures import TRANSIENT_STATUSES
from transferd.model.origins import origin, resolve, split

_T = TypeVar("_T")
#: A part of a conversation, and what comes of it.
_Part: TypeAlias = Generator[Attempt | Errand, Reply, _T]
_Answer: TypeAlias = Grant | LoginChallenge

#: How often a login server may send us elsewhere in one exchange.
LOGIN_REDIRECTS = 5

#: Statuses that carry a partner's challenge (MS-PASS 2.2.8); any other one is just an answer.
PARTNER_STATUSES = frozenset({302, 401})

#: So much of a realm is told.
_REALM_CHARS = 80

_CONFIGURATION_ADVICE = "check --passport-configuration (passport.configuration_url)"
_REALM_ADVICE = (
    "check --passport-realm (passport.realm) and --passport-configuration"
    " (passport.configuration_url)"
)
_LOGIN_SERVER_ADVICE = "have the login server mended"
_PARTNER_ADVICE = "have the server's Passport parameters mended (the password is not to blame)"


def usable(challenge: Challenge) -> bool:
    """Whether *challenge* is one of Passport's that can be passed on to a login server."""
    return challenge.scheme == SCHEME and bool(partner_parameters(challenge.raw))


class PassportSession:
    """Passport at one partner.

    Remembers what the configuration server said. Tickets become cookies, which the servers set and
    the authenticator keeps: a later request goes out without credentials, and a new exchange begins
    only when the partner asks for a ticket again.
    """

    __slots__ = ("_configuration", "_credential", "_forget", "_outdated", "_place")

    def __init__(self, credential: Credential, place: Place) -> None:
        self._credential = credential
        self._place = place
        self._configuration: Configuration | None = None
        #: The login server knows of a newer one.
        self._outdated = False
        #: The login server has logged the user out: its cookies are not to be shown again.
        self._forget = False

    @property
    def scheme(self) -> Scheme:
        """Passport."""
        return Scheme.PASSPORT

    @property
    def mechanism(self) -> None:
        """Nothing: the scheme itself."""
        return None

    def converse(self, request: RequestLine, challenge: Challenge | None) -> Conversation:
        """Authenticate *request*; see `Session.converse`."""
        if challenge is None:
            challenge = _partner_challenge((yield Attempt(authorization=None)))
            if challenge is None:
                return
        sign_in_name(self._credential)
        exchange = _Exchange(
            trust=trust_of(self._place.passport),
            opening=Opening(
                verb=request.method, url=request.url, challenge=partner_parameters(challenge.raw)
            ),
        )
        grant = yield from self._log_in(exchange)
        url = _return_url(exchange, grant)
        reply = yield Attempt(authorization=first_request(grant), url=url)
        if _partner_challenge(reply) is not None:
            raise AuthRejected(
                f"the server {self._place.host} refused the ticket that the login server"
                f" {exchange.trust.login_host} granted {self._credential.username!r} (Passport)",
                advice=_PARTNER_ADVICE,
            )

    def close(self) -> None:
        """Forget what the servers said."""
        self._configuration = None
        self._outdated = self._forget = False

    def _log_in(self, exchange: _Exchange) -> _Part[Grant]:
        """Get a ticket: for a cookie of the login server's, or else for the password."""
        trust = exchange.trust
        configuration = self._configuration
        if configuration is None or self._outdated:
            configuration = yield from self._configure(trust)
        login, answer = yield from self._request_token(exchange, configuration)
        if _foreign(answer, trust, configuration):
            # The configuration may have grown old.
            newer = yield from self._configure(trust)
            if newer.version > configuration.version:
                login, answer = yield from self._request_token(exchange, newer)
            if _foreign(answer, trust, newer):
                raise _wrong_realm(login, answer, trust, newer)
        if isinstance(answer, Grant):
            return answer
        return (yield from self._sign_in(exchange, login, answer))

    def _request_token(
        self, exchange: _Exchange, configuration: Configuration
    ) -> _Part[tuple[str, _Answer]]:
        """Ask for a ticket without the password; returns who answered, and what."""
        trust, login = exchange.trust, configuration.login_url
        trust.check(login, f"the configuration server {trust.configuration_server}")
        return (yield from self._ask(exchange, login, lambda: token_request(exchange.opening)))

    def _sign_in(self, exchange: _Exchange, login: str, challenge: LoginChallenge) -> _Part[Grant]:
        """Show the password to the login server that posed *challenge*."""
        credential = self._credential
        # Nobody is there to type it again: what the job holds is the answer to a prompt, too.
        elapsed = 0 if challenge.prompt else int(credential.age)
        login, answer = yield from self._ask(
            exchange,
            login,
            lambda: sign_in_request(
                exchange.opening,
                challenge,
                name=sign_in_name(credential),
                password=password_bytes(credential, controls=True),
                elapsed=elapsed,
            ),
        )
        if isinstance(answer, Grant):
            return answer
        wish = ", and wants them typed in anew" if answer.prompt else ""
        raise AuthRejected(
            f"the login server {origin(login)} refused user name or password of"
            f" {credential.username!r}{wish} (Passport)"
        )

    def _ask(
        self, exchange: _Exchange, url: str, write: Callable[[], str]
    ) -> _Part[tuple[str, _Answer]]:
        """Ask a login server, and the ones that it sends us on to, the same.

        The request is written anew for each of them, so that no password is kept meanwhile.
        """
        while True:
            forget, self._forget = self._forget, False
            reply = yield Errand(url=url, authorization=write(), forget=forget)
            statuses = read_statuses(reply.values("Authentication-Info"))
            self._heed(reply, statuses)
            if reply.status != 302 or "redir" not in statuses:
                return url, _login_answer(url, reply)
            url = _next_server(exchange, url, reply)

    def _heed(self, reply: Reply, statuses: frozenset[str]) -> None:
        """Note what a login server says beside its answer (MS-PASS 3.1.5.4, 3.1.5.5)."""
        if "logout" in statuses:
            self._forget = True
        newest = read_version_hint(reply.values("PassportConfig"))
        if self._configuration is not None and newest > self._configuration.version:
            self._outdated = True

    def _configure(self, trust: Trust) -> _Part[Configuration]:
        """Ask the configuration server; only what is newer replaces what is known (3.1.5.3)."""
        reply = yield Errand(url=trust.configuration_url)
        self._outdated = False
        found = read_configuration(reply.values("PassportURLs"))
        if found is not None and _realm(trust, found) is None:
            found = None
        known = self._configuration
        if known is None or (found is not None and found.version > known.version):
            if found is None:
                raise _strange(
                    f"the configuration server {trust.configuration_server} answered with status"
                    f" {reply.status}, and named no login server and realm (Passport)",
                    reply,
                    _CONFIGURATION_ADVICE,
                )
            known = self._configuration = found
        return known


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """One way from a partner's challenge to a ticket."""

    trust: Trust
    opening: Opening
    #: Followed so far.
    redirects: int = 0


def _partner_challenge(reply: Reply) -> Challenge | None:
    if reply.status not in PARTNER_STATUSES:
        return None
    return next(filter(usable, parse_challenges(reply.authenticate)), None)


def _login_answer(url: str, reply: Reply) -> _Answer:
    """Return what a login server answers.

    Raises:
        AuthRejected: it refuses for good, or the answer is none of Passport's.
        AuthError: it is out of order at the moment.
    """
    grant = read_grant(reply.values("Authentication-Info"))
    if grant is not None:
        return grant
    challenge = None
    if reply.status == 401:
        challenge = read_login_challenge(reply.values("WWW-Authenticate"))
    if challenge is None:
        raise _strange(
            f"the login server {origin(url)} answered with status {reply.status},"
            " neither granting nor asking anything (Passport)",
            reply,
            _LOGIN_SERVER_ADVICE,
        )
    if challenge.noretry:
        raise AuthRejected(
            f"the login server {origin(url)} refused the parameters of the server's challenge,"
            " whatever the password (Passport, failed-noretry)",
            advice=_PARTNER_ADVICE,
        )
    return challenge


def _strange(message: str, reply: Reply, advice: str) -> AuthError:
    """Return what comes of an answer that is none: time may heal it, or nobody but an admin."""
    if reply.status >= 500 or reply.status in TRANSIENT_STATUSES:
        return AuthError(message, code=f"http_{reply.status}")
    return AuthRejected(message, advice=advice)


def _realm(trust: Trust, configuration: Configuration) -> str | None:
    return trust.realm or configuration.realm


def _foreign(answer: _Answer, trust: Trust, configuration: Configuration) -> bool:
    """Whether a login server speaks for another realm, and so must not see the password."""
    if isinstance(answer, Grant):
        return False
    realm = _realm(trust, configuration) or ""
    return (answer.realm or "").lower() != realm.lower()


def _wrong_realm(
    login: str, answer: _Answer, trust: Trust, configuration: Configuration
) -> AuthRejected:
    named = None if isinstance(answer, Grant) else answer.realm
    told = "no realm" if named is None else f"the realm {named[:_REALM_CHARS]!r}"
    wanted = (_realm(trust, configuration) or "")[:_REALM_CHARS]
    return AuthRejected(
        f"the login server {origin(login)} speaks for {told}, not for {wanted!r}:"
        " the password was not sent (Passport)",
        advice=_REALM_ADVICE,
    )


def _next_server(exchange: _Exchange, url: str, reply: Reply) -> str:
    """Return where the redirect of a login server leads (MS-PASS 3.1.5.6).

    Raises:
        AuthRejected: nowhere, to where the password may not go, or on and on.
    """
    who = f"the login server {origin(url)}"
    exchange.redirects += 1
    if exchange.redirects > LOGIN_REDIRECTS:
        raise AuthRejected(
            f"{who} redirected more than {LOGIN_REDIRECTS} times (Passport)",
            advice=_LOGIN_SERVER_ADVICE,
        )
    location = next(iter(reply.values("Location")), "").strip(" \t")
    if not location:
        raise AuthRejected(
            f"{who} redirected without saying where (Passport)", advice=_LOGIN_SERVER_ADVICE
        )
    parts = resolve(split(url), split(location))
    target = f"{parts.scheme}://{parts.authority or ''}{parts.path}{parts.query}"
    exchange.trust.check(target, f"a redirect of {who}")
    return target


def _return_url(exchange: _Exchange, grant: Grant) -> str:
    """Return where the ticket is to be shown.

    Raises:
        AuthRejected: it is not the origin that asked for it; whoever has the ticket is the user.
    """
    opening, back = exchange.opening, grant.return_url
    if back is None or back == opening.sent_url:
        return opening.url
    try:
        same = askable_origin(back) == origin(opening.url)
    except ValueError:
        same = False
    if not same:
        raise AuthRejected(
            f"the login server {exchange.trust.login_host} wants its ticket shown to another"
            f" origin than {origin(opening.url)}, which asked for it: nobody was shown it"
            " (Passport)",
            advice=_LOGIN_SERVER_ADVICE,
        )
    return back.partition("#")[0]
