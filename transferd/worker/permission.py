"""What another user may do in a directory, as its mode bits tell.

The kernel answers for the user who asks, and nobody here can be another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from transferd.accounts import UnknownAccount, find_account

_WRITE, _PASS = 0o2, 0o1
_ACL = "system.posix_acl_access"


def could_write(uid: int, directory: int) -> bool:
    """Whether a user could make files in an open directory, and get there.

    Where an ACL says more than the mode bits, he could if anybody of whom it speaks may. Root is
    never asked whether he could. May wait for a directory service.
    """
    if uid == 0:
        return True
    groups: Collection[int] = ()
    with contextlib.suppress(UnknownAccount):
        groups = find_account(uid).groups
    place = Path(os.readlink(f"/proc/self/fd/{directory}"))
    if not _grants(place, uid, groups, _WRITE | _PASS):
        return False
    return all(_grants(parent, uid, groups, _PASS) for parent in place.parents)


def _grants(place: Path, uid: int, groups: Collection[int], wanted: int) -> bool:
    found = place.stat()
    if found.st_uid == uid:
        granted = found.st_mode >> 6
    elif found.st_gid in groups:
        granted = found.st_mode >> 3
    else:
        granted = found.st_mode
        with contextlib.suppress(OSError):
            os.getxattr(place, _ACL)
            granted |= found.st_mode >> 3  # the mask of the ACL (acl(5))
    return granted & wanted == wanted
