"""Kerberos in SPNEGO (RFC 4559, RFC 4178): contexts, and what their errors mean.

`gssapi` and `krb5` are an optional extra and are imported when a context is wanted. Their calls may
wait for a KDC or a name server.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from transferd.auth.flow import AuthError, AuthRejected, CannotStart
from transferd.auth.gss import Context, Service, Status, quieten, status_of
from transferd.auth.libraries import load
from transferd.auth.tickets import (
    CACHE_FORMAT,
    KEY_NOT_FOUND,
    KEYTAB_VERSION,
    REALM_UNKNOWN,
    Tickets,
)
from transferd.model.credentials import Target

# Error codes of krb5 (krb5.h).
_NAME_EXPIRED = -1765328383
_CLIENT_UNKNOWN = -1765328378
_SERVICE_UNKNOWN = -1765328377
_REVOKED = -1765328366
_PASSWORD_EXPIRED = -1765328361
_PREAUTH_FAILED = -1765328360
_BAD_INTEGRITY = -1765328353
_TICKET_EXPIRED = -1765328352
_NOT_YET_VALID = -1765328351
_NOT_US = -1765328349
_SKEW = -1765328347
_MODIFIED = -1765328343
_KEY_VERSION = -1765328340
_NO_KEY = -1765328339
_GENERIC = -1765328324
_WRONG_REALM = -1765328316
_CACHE_NOT_FOUND = -1765328243
_CACHE_TYPE = -1765328244
_KDC_REPLY_SKEW = -1765328236
_KDC_UNREACHABLE = -1765328228
_NO_CACHE_FILE = -1765328189
_CACHE_VERSION = -1765328172
_REALM_UNRESOLVED = -1765328164
_NO_DEFAULT_REALM = -1765328160
_NO_KCM = -1750600181


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """What a code means while a ticket is fetched."""

    #: What happened; {service} is what a ticket was wanted for.
    text: str
    #: None: the remedy of the tickets' own kind, or of the code; {spn} is what names the service.
    advice: str | None = None
    code: str | None = None
    #: The KDC knows who asks and refuses him.
    rejects: bool = False


_CLOCKS = "set the clocks of this machine and of the KDC right"
_REALM = "give the user as user@REALM, mostly in capitals, and name the realm in krb5.conf"
_NO_CACHE = _Fault(text="there is no ticket")
_BAD_CACHE = _Fault(text="the ticket cache cannot be read")
_BAD_SKEW = _Fault(text="the clocks of this machine and of the KDC differ too much", advice=_CLOCKS)
_NO_REALM = _Fault(text="the realm is not known here", advice=_REALM)
_NO_KDC = _Fault(text="no KDC answers", code="kdc_unreachable")
_WRONG_SECRET = _Fault(text="the KDC refuses it, it is wrong", rejects=True)

_FAULTS: Mapping[int, _Fault] = MappingProxyType(
    {
        _KDC_UNREACHABLE: _NO_KDC,
        _REALM_UNRESOLVED: _NO_KDC,
        REALM_UNKNOWN: _NO_REALM,
        _WRONG_REALM: _NO_REALM,
        _NO_DEFAULT_REALM: _NO_REALM,
        _CLIENT_UNKNOWN: _Fault(
            text="the KDC does not know the user",
            advice="set the right credentials, with the right realm (user@REALM)",
        ),
        _PREAUTH_FAILED: _WRONG_SECRET,
        _BAD_INTEGRITY: _WRONG_SECRET,
        _REVOKED: _Fault(
            text="the account is locked or disabled",
            advice="have the account unlocked",
            rejects=True,
        ),
        _NAME_EXPIRED: _Fault(
            text="the account has expired",
            advice="have the account extended",
            rejects=True,
        ),
        _PASSWORD_EXPIRED: _Fault(
            text="the password has expired",
            advice="change it with kpasswd and set the new one",
            rejects=True,
        ),
        _SKEW: _BAD_SKEW,
        _KDC_REPLY_SKEW: _BAD_SKEW,
        _NOT_YET_VALID: _BAD_SKEW,
        _SERVICE_UNKNOWN: _Fault(
            text="the KDC does not know the service {service}",
            advice="name the service that runs there with {spn}",
        ),
        _TICKET_EXPIRED: _Fault(text="the ticket has expired"),
        _NO_CACHE_FILE: _NO_CACHE,
        _CACHE_NOT_FOUND: _NO_CACHE,
        _NO_KCM: _NO_CACHE,
        _CACHE_TYPE: _BAD_CACHE,
        CACHE_FORMAT: _BAD_CACHE,
        _CACHE_VERSION: _BAD_CACHE,
        KEYTAB_VERSION: _Fault(text="the file is no keytab"),
        KEY_NOT_FOUND: _Fault(text="there is no key for that principal in it"),
        errno.ENOENT: _Fault(text="the file does not exist"),
        errno.EACCES: _Fault(
            text="the job's owner may not read the file",
            advice="make the file readable for the job's owner",
        ),
    }
)

#: What a server's own refusal means, by the code in its token.
_SERVER_KEY = "have the {target}'s keytab renewed, or name the service that it runs as with {spn}"
_SERVER_CLOCK = "set the clocks of this machine, of the KDC and of the {target} right"
_SERVER_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        _SKEW: _SERVER_CLOCK,
        _NOT_YET_VALID: _SERVER_CLOCK,
        _NO_KEY: _SERVER_KEY,
        _NOT_US: _SERVER_KEY,
        _KEY_VERSION: _SERVER_KEY,
        _MODIFIED: _SERVER_KEY,
        _BAD_INTEGRITY: _SERVER_KEY,
    }
)
#: It may be a missing channel binding as well (BITS.md NT7, NG9): servers keep that to themselves.
_SILENT_ADVICE = (
    "look into the {target}'s log: it may have no key for that service, or demand https with a"
    " channel binding (Extended Protection)"
)


def open_kerberos(
    tickets: Tickets, service: Service, target: Target, binding: bytes | None
) -> tuple[Context, bytes]:
    """Return a fresh context for *service*, and its first token. May wait for a KDC.

    *target* is what the service runs at, for what is advised.

    Asks for mutual authentication, and for nothing else: no delegation, no encryption.

    Raises:
        CannotStart: there is no ticket to be had; the text says why, and with what it was tried.
        AuthRejected: the KDC refuses the credential.
    """
    _check_name(service, target)
    _check_libraries()
    try:
        try:
            return _begin(tickets, service, binding)
        except Exception as error:
            if not tickets.own or status_of(error).code != _TICKET_EXPIRED:
                raise
            tickets.forget()
            return _begin(tickets, service, binding)
    except Exception as error:
        raise _explained(status_of(error), tickets, service, target) from error


def refusal(
    service: Service, tickets: Tickets, target: Target, said: Status | None
) -> AuthRejected:
    """Make the error for a server that refuses a ticket; *said* is what its token says."""
    text = f"the {target} refused the Kerberos ticket for {service}, got with {tickets}"
    if said is None:
        return AuthRejected(
            f"{text}, and does not say why", advice=_addressed(_SILENT_ADVICE, target)
        )
    if said.code == _GENERIC:
        text += ", as it does when a channel binding is wrong"
    advice = None if said.code is None else _SERVER_ADVICE.get(said.code)
    return AuthRejected(f"{text}: {said.text}", advice=_addressed(advice, target))


def _begin(tickets: Tickets, service: Service, binding: bytes | None) -> tuple[Context, bytes]:
    import spnego

    quieten()
    credential = spnego.KerberosCCache(tickets.cache())
    made = [
        spnego.client(
            credential,
            hostname=service.host,
            service=service.kind,
            protocol=protocol,
            options=option,
            context_req=spnego.ContextReq.mutual_auth,
        )
        for protocol, option in (
            # Only this one tells what is wrong with a cache…
            ("kerberos", spnego.NegotiateOptions.use_gssapi),
            # …and only this one speaks SPNEGO; with such a credential it has no other mechanism.
            ("negotiate", spnego.NegotiateOptions.use_negotiate),
        )
    ]
    context = Context(made[-1])
    first = context.step(None, binding)
    if first is None:
        raise ValueError("no first token")
    return context, first


def _check_name(service: Service, target: Target) -> None:
    try:
        ipaddress.ip_address(service.host)
    except ValueError:
        return
    raise CannotStart(
        f"Kerberos knows servers by their names, and {service.host} is an address",
        advice=_addressed("use the {target}'s host name, or name its service with {spn}", target),
    )


def _check_libraries() -> None:
    try:
        load("gssapi", "krb5", "spnego")
    except (ImportError, OSError) as error:
        raise CannotStart(
            f"Kerberos is not installed: {error}",
            advice=(
                f"install it with `{sys.executable} -m pip install gssapi krb5` (needs gcc,"
                " python3-dev and libkrb5-dev; a running daemon notices)"
            ),
        ) from error


def _explained(status: Status, tickets: Tickets, service: Service, target: Target) -> AuthError:
    what = f"cannot get a Kerberos ticket for {service} with {tickets}"
    fault = None if status.code is None else _FAULTS.get(status.code)
    if fault is None:
        return CannotStart(f"{what}: {status.text}", advice=tickets.remedy)
    text = f"{what}: {fault.text.format(service=service)} ({status.text})"
    kind = AuthRejected if fault.rejects else CannotStart
    advice = _addressed(fault.advice, target)
    if advice is None and fault.code is None:
        misnamed = status.code == KEY_NOT_FOUND and tickets.misnamed
        advice = misnamed or tickets.remedy
    return kind(text, code=fault.code, advice=advice)


def _addressed(advice: str | None, target: Target) -> str | None:
    """Say whom advice is about, and which option names its service."""
    if advice is None:
        return None
    spn = "--proxy-spn (negotiate.proxy_spn)" if target is Target.PROXY else "--spn (negotiate.spn)"
    return advice.format(target=target, spn=spn)
