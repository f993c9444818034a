"""What a caller may say of authentication: credentials, and how Negotiate and Passport are spoken.

As in model/checks.py, each check returns the value as it is kept, or raises BadRequest with a
stable code; messages never quote a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from transferd.model.checks import check_path, quoted, too_long
from transferd.model.credentials import IMPLICIT_SCHEMES, Credential, Scheme, Secret, Target
from transferd.model.errors import BadRequest
from transferd.model.limits import Limits

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
#: RFC 4559 4.1: the service and the host's name; neither port nor realm.
_SPN = re.compile(rf"(?:[A-Za-z][A-Za-z0-9_-]{{0,62}}/)?(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
#: Where MIT Kerberos keeps tickets (krb5 "Credential cache"), and whether a path has to follow.
_CCACHE_TYPES: Mapping[str, bool] = MappingProxyType(
    {"FILE": True, "DIR": True, "KCM": False, "KEYRING": False}
)
#: One parameter of Passport's comma lists (MS-PASS 2.2.1).
_REALM = re.compile(r"[!-+\--~](?:[ -+\--~]*[!-+\--~])?")

#: Why a scheme cannot do without a user and a password, where more is to be said than that.
_EXPLICIT_ONLY: Mapping[Scheme, str] = MappingProxyType(
    {
        Scheme.NTLM: (
            "no Linux machine keeps what NTLM would need to know who you are already; "
            "give a user and a password, or use negotiate with a Kerberos ticket or keytab"
        ),
        Scheme.PASSPORT: "a login server takes nothing else; give both",
    }
)


# ── credentials ────────────────────────────────────────────────────────────────────────────


def check_credential(
    target: Target, scheme: Scheme, username: str | None, password: str | None, limits: Limits
) -> Credential:
    """Check a user and a password; neither of them is the implicit identity (BITS.md A8, A9).

    Raises:
        BadRequest: `credentials_incomplete`, `username_too_long`, `username_invalid`,
            `password_too_long`, `password_invalid`.
    """
    if username is None and password is None:
        check_implicit(scheme)
        return Credential(target=target, scheme=scheme, username=None, password=Secret(""))
    if username is None or password is None:
        neither = " or, for whoever you are already, neither" if scheme in IMPLICIT_SCHEMES else ""
        raise BadRequest(
            "credentials_incomplete",
            f"cannot use {scheme} with only one of user and password; give both{neither}",
        )
    _check_username(scheme, username, limits)
    _check_password(password, limits)
    return Credential(target=target, scheme=scheme, username=username, password=Secret(password))


def check_implicit(scheme: Scheme) -> None:
    """Refuse a scheme that cannot use who the owner is already.

    Raises:
        BadRequest: `credentials_incomplete`.
    """
    if scheme not in IMPLICIT_SCHEMES:
        raise BadRequest(
            "credentials_incomplete",
            f"cannot use {scheme} without a user and a password: "
            + _EXPLICIT_ONLY.get(scheme, "there is nothing else that it could send; give both"),
        )


def _check_username(scheme: Scheme, username: str, limits: Limits) -> None:
    if len(username) > limits.username_chars:
        raise too_long("username", len(username), limits.username_chars, "characters")
    if _CONTROL.search(username) or not _encodable(username):
        raise BadRequest("username_invalid", "cannot use a username with control characters")
    if scheme is Scheme.BASIC and ":" in username:
        raise BadRequest(
            "username_invalid", "cannot use a username with a colon for basic (RFC 7617 2)"
        )


def _check_password(password: str, limits: Limits) -> None:
    if not _encodable(password) or not {"\0", "\r", "\n"}.isdisjoint(password):
        raise BadRequest(
            "password_invalid", "cannot use a password with NUL, CR or LF; check how it was read"
        )
    if len(password) > limits.password_chars:
        raise too_long("password", len(password), limits.password_chars, "characters")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ── Negotiate ──────────────────────────────────────────────────────────────────────────────


def check_spn(text: str, _limits: Limits) -> str:
    """Check the name of a service, `HTTP/host` or `host`.

    Raises:
        BadRequest: `spn_invalid`.
    """
    if not _SPN.fullmatch(text):
        raise BadRequest(
            "spn_invalid",
            f"cannot use service name {quoted(text)}; write HTTP/host or host, "
            "without port and realm",
        )
    return text


def check_principal(text: str, limits: Limits) -> str:
    """Check the name of a Kerberos principal.

    Raises:
        BadRequest: `principal_invalid`.
    """
    if not text.strip() or len(text) > limits.principal_chars:
        why = f"it has 1 to {limits.principal_chars} characters"
    elif _CONTROL.search(text) or not _encodable(text):
        why = "it has control characters"
    else:
        return text
    raise BadRequest("principal_invalid", f"cannot use principal {quoted(text)}: {why}")


def check_ccache(text: str, limits: Limits) -> str:
    """Check the name of a ticket cache: `FILE:`, `DIR:`, `KCM:`, `KEYRING:`, or an absolute path.

    A cache in memory belongs to one process, and is no cache of the owner's. Which caches the
    owner has only the worker can tell.

    Raises:
        BadRequest: `ccache_invalid`.
    """
    kind, colon, rest = text.partition(":")
    if text.startswith("/"):
        kind, rest = "FILE", text
    elif not colon or kind not in _CCACHE_TYPES:
        raise _bad_ccache(text, "it begins with FILE:, DIR:, KCM:, KEYRING: or /")
    if _CCACHE_TYPES[kind]:
        # `DIR::/path` is one cache of those in a directory.
        try:
            check_path(rest.removeprefix(":") if kind == "DIR" else rest, limits)
        except BadRequest as error:
            raise _bad_ccache(text, error.detail) from None
    elif _CONTROL.search(rest) or not _encodable(rest) or len(rest) > limits.path_component_bytes:
        raise _bad_ccache(text, "what follows the colon is no name of a cache")
    elif kind == "KEYRING" and not rest:
        raise _bad_ccache(text, "it names no keyring, as KEYRING:persistent:1000 does")
    return text


def _bad_ccache(text: str, why: str) -> BadRequest:
    return BadRequest("ccache_invalid", f"cannot use ticket cache {quoted(text)}: {why}")


# ── Passport ───────────────────────────────────────────────────────────────────────────────


def check_realm(text: str, limits: Limits) -> str:
    """Check the realm of a Passport login server: printable, on one line, without a comma.

    Raises:
        BadRequest: `realm_invalid`.
    """
    if not _REALM.fullmatch(text) or len(text) > limits.realm_chars:
        raise BadRequest(
            "realm_invalid",
            f"cannot use Passport realm {quoted(text)}; it has 1 to {limits.realm_chars} printable "
            "ASCII characters, none of them a comma",
        )
    return text
