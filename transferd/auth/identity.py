"""User names and passwords as the password schemes put them on the wire.

UTF-8 in Normalization Form C, always. A server can name no other encoding than UTF-8 (RFC 7617 2.1,
RFC 7616 3.3), one that names none mostly expects it too, and a wrong guess could not be told from a
wrong password. NFC because both RFCs ask for it, and because the same name typed on two machines
may otherwise be two names.
"""

from __future__ import annotations

import re
import unicodedata

from transferd.auth.flow import CannotStart
from transferd.model.credentials import Credential

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def user_name(credential: Credential) -> str:
    """Return the user name, normalised.

    Raises:
        CannotStart: it has a colon or a control character (RFC 7617 2, RFC 7616 4), or is no text.
    """
    name = credential.username or ""
    if ":" in name:
        raise _inexpressible(credential, "user name has a colon, which ends a user name")
    if _CONTROL.search(name):
        raise _inexpressible(credential, "user name has control characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _inexpressible(credential, "user name is not valid Unicode") from None
    return unicodedata.normalize("NFC", name)


def password_bytes(credential: Credential, *, controls: bool) -> bytes:
    """Return the password, normalised, in UTF-8; the caller must not keep it.

    Raises:
        CannotStart: it has control characters and *controls* does not let them pass.
    """
    text = unicodedata.normalize("NFC", credential.password.reveal())
    if not controls and _CONTROL.search(text):
        raise _inexpressible(credential, "password has control characters")
    return text.encode()


def _inexpressible(credential: Credential, problem: str) -> CannotStart:
    return CannotStart(f"cannot use the {credential.scheme} credentials: the {problem}")
