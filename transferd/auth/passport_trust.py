"""Whom the owner of a job trusts with a Passport password (BITS.md 2.7).

The password goes to one host, which the owner names, over a connection that nobody reads. Neither
the partner nor a redirect can change that; the configuration server can only say where on that host
to ask.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from transferd.auth.flow import AuthRejected, CannotStart
from transferd.model.credentials import Credential, PassportOptions, Target
from transferd.model.origins import DEFAULT_PORTS, Origin, host_and_port, origin, shielded

_MAIL_ADDRESS = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")
_UNSENDABLE = re.compile(r"[^\x21-\x7e]")

_SETTINGS_ADVICE = (
    "set --passport-configuration (passport.configuration_url) and --passport-login-host"
    " (passport.login_host), or [passport] of the configuration file"
)
_LOGIN_HOST_ADVICE = (
    "check --passport-configuration (passport.configuration_url), or, if that host may be shown"
    " the password, name it with --passport-login-host (passport.login_host)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom the owner trusts."""

    configuration_url: str
    configuration_server: Origin
    #: As the owner wrote it.
    login_host: str
    #: None: the one that the configuration names.
    realm: str | None

    def check(self, url: str, who: str) -> None:
        """Make sure that the password may go to *url*, which *who* named.

        Raises:
            AuthRejected: it is not at the login host, or others could read along.
        """
        try:
            place = safe_origin(url)
        except ValueError as error:
            raise AuthRejected(
                f"{who} names a login server that cannot be asked: {error} (Passport)",
                advice=_LOGIN_HOST_ADVICE,
            ) from None
        host, port = host_and_port(self.login_host)
        if (place.host, place.port) != (host, port or DEFAULT_PORTS[place.scheme]):
            raise AuthRejected(
                f"{who} names the login server {place}, but only {self.login_host}"
                " may be shown the password (Passport)",
                advice=_LOGIN_HOST_ADVICE,
            )


def trust_of(options: PassportOptions) -> Trust:
    """Return whom *options* trust.

    Raises:
        CannotStart: they do not say it, or not so that it can be used.
    """
    url, login_host = options.configuration_url, options.login_host
    if url is None or login_host is None:
        missing = "configuration_url" if url is None else "login_host"
        raise _not_configured(f"passport.{missing} is not set")
    try:
        server = safe_origin(url)
    except ValueError as error:
        raise _not_configured(f"passport.configuration_url cannot be used: {error}") from None
    try:
        host_and_port(login_host)
    except ValueError as error:
        raise _not_configured(f"passport.login_host cannot be used: {error}") from None
    return Trust(
        configuration_url=url,
        configuration_server=server,
        login_host=login_host,
        realm=options.realm,
    )


def sign_in_name(credential: Credential) -> str:
    """Return the user name as it is signed in with, normalised as every scheme does it.

    Raises:
        CannotStart: it is no e-mail address, or the credential is for a proxy.
    """
    if credential.target is Target.PROXY:
        raise CannotStart("Passport is spoken to servers only, never to a proxy (MS-PASS 1.3)")
    name = unicodedata.normalize("NFC", credential.username or "")
    if not _MAIL_ADDRESS.fullmatch(name):
        raise CannotStart(
            f"Passport needs an e-mail address as user name, and {credential.username!r} is none",
            advice="set passport credentials with an e-mail address as user name",
        )
    return name


def safe_origin(url: str) -> Origin:
    """Return the origin of a URL that may be told secrets.

    Raises:
        ValueError: it is none, or others could read along; the text is about the URL ("it …").
    """
    place = askable_origin(url)
    if not shielded(place):
        raise ValueError("it is not https")
    return place


def askable_origin(url: str) -> Origin:
    """Return the origin of a URL that came in a header.

    Raises:
        ValueError: it cannot be asked as it is; the text is about the URL ("it …").
    """
    if _UNSENDABLE.search(url):
        raise ValueError("it has characters that cannot stand in a URL")
    return origin(url)


def _not_configured(problem: str) -> CannotStart:
    return CannotStart(f"Passport is not configured: {problem}", advice=_SETTINGS_ADVICE)
