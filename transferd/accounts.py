"""Users of this machine, as its user database knows them."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from transferd.model.errors import TransferdError


class UnknownAccount(TransferdError):
    """The machine has no user with that uid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a process needs to be a user."""

    uid: int
    gid: int
    #: All of them, the first one too.
    groups: tuple[int, ...]
    name: str
    home: Path
    shell: str


def find_account(uid: int) -> Account:
    """Look a user up; may wait for a directory service, so that it is called in a thread.

    Raises:
        UnknownAccount: there is none.
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise UnknownAccount(
            f"there is no user with uid {uid} on this machine; make one, or cancel the job"
        ) from None
    return Account(
        uid=uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        name=entry.pw_name,
        home=Path(entry.pw_dir),
        shell=entry.pw_shell,
    )


def is_member(uid: int, group: str) -> bool:
    """Whether a user is root or in a group, as admins are; "" is the group of nobody.

    May wait for a directory service, so that it is called in a thread.
    """
    if uid == 0 or not group:
        return uid == 0
    try:
        return grp.getgrnam(group).gr_gid in find_account(uid).groups
    except (KeyError, UnknownAccount):
        return False
