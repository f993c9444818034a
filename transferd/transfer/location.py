"""Where a redirect leads.

URLs are kept byte for byte: a signed URL that is quoted again is another URL. Only what cannot
stand in a request at all (spaces, non-ASCII characters) is escaped.
"""

from __future__ import annotations

import re

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.origins import (
    DEFAULT_PORTS,
    Parts,
    host_and_port,
    readable,
    resolve,
    split,
)

#: Statuses that are followed; a GET stays a GET with each of them (RFC 9110 15.4).
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSENDABLE = re.compile(r"[^\x21-\x7e]")


def next_hop(
    current: str,
    status: int,
    location: str | None,
    credentials_attached: bool,
    *,
    hops: int,
    limit: int,
) -> str:
    """Return the absolute URL that a redirect leads to, without a fragment.

    Args:
        current: the URL that was asked.
        status: one of REDIRECTS.
        location: the Location field as it came.
        credentials_attached: whether the job has credentials or secret headers, for any origin.
        hops: redirects followed before this one.
        limit: how many may be followed.

    Raises:
        TransferFailed: `redirect_limit`; `redirect_invalid`: no Location, or none that can be
            read; `redirect_refused`: not http(s), userinfo in it (RFC 9110 4.2.4 calls it an
            error; it is never used as a credential), or from https to http with credentials.
    """
    if hops >= limit:
        raise _failed(
            "redirect_limit",
            current,
            status,
            f"{limit} redirects were followed and here is one more",
        )
    reference = (location or "").strip(" \t")
    if not reference:
        raise _failed("redirect_invalid", current, status, "it does not say where it leads")
    if _CONTROL.search(reference):
        raise _failed("redirect_invalid", current, status, "its Location has control characters")
    target = resolve(split(current), split(reference))
    _check_target(target, current, status, credentials_attached)
    try:
        authority = _sendable_authority(target.authority or "")
    except ValueError as error:
        raise _failed("redirect_invalid", current, status, str(error)) from None
    return f"{target.scheme}://{authority}{_escape(target.path)}{_escape(target.query)}"


def _check_target(target: Parts, current: str, status: int, credentials_attached: bool) -> None:
    scheme = target.scheme or ""
    if scheme not in DEFAULT_PORTS:
        raise _failed(
            "redirect_refused", current, status, f"it leads to a URL of scheme {scheme[:20]!r}"
        )
    if "@" in (target.authority or ""):
        raise _failed(
            "redirect_refused", current, status, "it leads to a URL with a user name in it"
        )
    if credentials_attached and scheme == "http" and split(current).scheme == "https":
        raise _failed(
            "redirect_refused",
            current,
            status,
            "it leads from https to http, and this job has credentials",
        )


def _failed(code: str, current: str, status: int, what: str) -> TransferFailed:
    message = f"cannot follow the redirect ({status}) of {readable(current)}: {what}"
    return TransferFailed(Failure(code=code, message=message, http_status=status))


def _sendable_authority(authority: str) -> str:
    host, port = host_and_port(authority)
    if authority.isascii():
        return authority
    return host if port is None else f"{host}:{port}"


def _escape(text: str) -> str:
    return _UNSENDABLE.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))
