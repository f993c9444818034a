"""What went over a wire, for people to read: tokens are told, not shown."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

from tests.support.relay import Passed

_TELLING = (
    "www-authenticate",
    "proxy-authenticate",
    "authorization",
    "proxy-authorization",
    "authentication-info",
    "persistent-auth",
    "connection",
    "proxy-connection",
)
_TOKEN = re.compile(r"\b(NTLM|Negotiate|Basic) ([A-Za-z0-9+/]+=*)")
_PROOF = re.compile(r'\b(response|cnonce|nonce|opaque|rspauth|nextnonce)="?([^",]+)"?')
_NTLM_TYPES = {1: "negotiate", 2: "challenge", 3: "authenticate"}
_SPNEGO = {0x60: "SPNEGO first token", 0xA1: "SPNEGO response"}


def transcript(record: Iterable[Passed]) -> str:
    """Return the messages of a relay's record, each with what has to do with authentication."""
    return "\n".join(line for passed in record for line in _exchange(passed))


def _exchange(passed: Passed) -> Iterator[str]:
    seen = passed.seen
    sent = [f"{name.title()}: {value}" for name, value in seen.headers]
    for line in [f"{seen.method} {seen.target} HTTP/1.1", *_telling(sent)]:
        yield f"[{seen.connection}] > {line}"
    if passed.answer is None:
        return
    status, *fields = passed.answer.decode("latin-1").rstrip("\r\n").split("\r\n")
    for line in [status, *_telling(fields)]:
        yield f"[{seen.connection}] < {line}"


def _telling(fields: Iterable[str]) -> Iterator[str]:
    return (describe(text) for text in fields if text.partition(":")[0].lower() in _TELLING)


def describe(text: str) -> str:
    """Return a header line with every token replaced by what kind it is and how long."""
    text = _TOKEN.sub(lambda found: f"{found[1]} <{_kind(found[1], found[2])}>", text)
    return _PROOF.sub(lambda found: f'{found[1]}="…"', text)


def _kind(scheme: str, token: str) -> str:
    if scheme == "Basic":
        return "user and password"
    try:
        raw = base64.b64decode(token, validate=True)
    except binascii.Error:
        return "garbage"
    if raw.startswith(b"NTLMSSP\0") and len(raw) > 8:
        what = f"NTLM {_NTLM_TYPES.get(raw[8], '?')}"
    else:
        what = _SPNEGO.get(raw[0], "token") if raw else "empty"
        if b"NTLMSSP\0" in raw:
            what += " with NTLM inside"
        elif raw and raw[0] == 0x60:
            what += " with Kerberos inside"
    return f"{what}, {len(raw)} bytes"
