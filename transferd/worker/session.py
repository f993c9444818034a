"""The owner's umask and limits: a PAM session of the service `transferd`, where there is PAM.

`/etc/pam.d/transferd` decides what a session is; the modules run in the worker, as the owner and
without any capability. It lasts as long as the worker: what it sets ends with the process.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from pathlib import Path

SERVICE = "transferd"
CONFIGURATION = Path("/etc/pam.d") / SERVICE
#: Of owners for whom nobody says anything else.
USUAL_UMASK = 0o022

_LIBRARY = "libpam.so.0"
#: <security/_pam_types.h>
_SUCCESS, _CONVERSATION_ERROR, _SILENT = 0, 19, 0x8000

_Conversation = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)


class _PamConversation(ctypes.Structure):
    _fields_ = (("conv", _Conversation), ("appdata_ptr", ctypes.c_void_p))


def _refuse(*_: object) -> int:
    """Answer no question: there is nobody to ask."""
    return _CONVERSATION_ERROR


#: libpam keeps pointers to both for as long as the session lasts.
_CONVERSATION = _PamConversation(_Conversation(_refuse), None)


def open_session(configuration: Path = CONFIGURATION) -> str | None:
    """Take the umask and the limits of this process's user.

    Returns: what did not work, as a clause; None where all went well, or there is no PAM.
    """
    os.umask(USUAL_UMASK)
    if not configuration.is_file():
        return None
    try:
        pam = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"the user database does not know uid {os.getuid()}"
    return _open(pam, name)


def _open(pam: ctypes.CDLL, name: str) -> str | None:
    pam.pam_strerror.restype = ctypes.c_char_p
    handle = ctypes.c_void_p()
    result = pam.pam_start(
        SERVICE.encode(), os.fsencode(name), ctypes.byref(_CONVERSATION), ctypes.byref(handle)
    )
    if result == _SUCCESS:
        result = pam.pam_open_session(handle, _SILENT)
    if result == _SUCCESS:
        return None
    reason: bytes = pam.pam_strerror(handle, result) or b""
    return f"PAM says: {reason.decode(errors='replace')}"
