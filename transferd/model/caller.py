"""Who is at the other end of the socket."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An identity as the kernel vouches for it (SO_PEERCRED, read once per connection)."""

    uid: int
    gid: int
    pid: int
    #: uid 0 or a member of the admin group: sees and steers everybody's jobs.
    admin: bool = False
    #: An admin, or whose daemon it is: may ask for the service's state and mend it.
    operator: bool = False

    def may_see(self, owner: int) -> bool:
        """Whether jobs of *owner* exist for this caller."""
        return self.admin or self.uid == owner
